"""Continuous miniSEED and the picks of other machines: windows to learn from without an analyst.

Picks CSV: columns network, station, location, phase, time (UTC, ISO 8601) and probability. The consensus holds picks on
which machines agree; the file of all machine picks tells where nobody saw anything.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.errors import ConfigError
from picker.offset import first_valid, remove_offset
from pretrain.data.instants import time_ns_of
from pretrain.data.resample import live, ratio, resample
from pretrain.data.trace import RATE_HZ

STEP_NS = round(1e9 / RATE_HZ)


class StationCode(NamedTuple):
    """Network, station and location; a blank location is the empty string."""

    network: str
    station: str
    location: str

    def __str__(self) -> str:
        return ".".join(self)


@dataclass(frozen=True, kw_only=True)
class MachinePick:
    """A pick of another machine at an instant, int ns UTC."""

    phase: str
    time_ns: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class StationRecord:
    """All that a file holds of one instrument: ``waveform`` and ``valid`` (3, N) at 100 Hz, column 0 at ``start_ns``.

    The offset is removed; components that have no channel, and gaps, are zero and not valid.
    """

    file: str
    code: StationCode
    band_instrument: str
    start_ns: int
    waveform: NDArray[np.float32]
    valid: NDArray[np.bool_]

    @property
    def name(self) -> str:
        """For example ``CM.CHI.00.HH``."""
        return f"{self.code}.{self.band_instrument}"

    def sample_of(self, time_ns: int) -> float:
        """Sample number of an instant."""
        return (time_ns - self.start_ns) / STEP_NS


def read_picks(path: str | Path) -> dict[StationCode, list[MachinePick]]:
    """Picks by station in order of time; raises ConfigError that names the file and what is wrong in it."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file of picks")
    picks: dict[StationCode, list[MachinePick]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                code = StationCode(row["network"], row["station"], row["location"].strip("- "))
                time_ns = time_ns_of(row["time"])
                pick = MachinePick(phase=row["phase"], time_ns=time_ns, probability=float(row["probability"]))
            except (KeyError, ValueError, AttributeError) as error:
                raise ConfigError(
                    f"{path}:{number}: {error}; columns wanted: network, station, location, phase, time, probability"
                ) from error
            picks[code].append(pick)
    return {code: sorted(found, key=lambda pick: pick.time_ns) for code, found in picks.items()}


def miniseed_files(folder: str | Path, split: str | None = None) -> list[Path]:
    """The miniSEED files below ``folder`` (below ``folder/split`` where given), sorted; ConfigError if none."""
    root = Path(folder) / split if split else Path(folder)
    files = sorted(path for path in root.rglob("*") if path.suffix in (".mseed", ".ms", ".miniseed") and path.is_file())
    if not files:
        raise ConfigError(f"{root}: no miniSEED file (*.mseed, *.ms, *.miniseed) in it")
    return files


def read_miniseed(path: str | Path, unusable: Callable[[ConfigError], None] | None = None) -> Iterator[StationRecord]:
    """The instruments in one miniSEED file, in order of their codes; raises ConfigError for a file that is none.

    So does an instrument that cannot be used (its sampling rate), unless ``unusable`` is told and it is passed over.
    """
    import pymseed

    path = Path(path)
    channels: dict[tuple[StationCode, str], dict[str, list[Any]]] = defaultdict(dict)
    try:
        with pymseed.MS3TraceList.from_file(str(path), unpack_data=True) as traces:
            for trace in traces:
                network, station, location, channel = pymseed.sourceid2nslc(trace.sourceid)
                pieces = [
                    (s.starttime, s.samprate, np.array(s.np_datasamples))
                    for s in trace
                    if s.sampletype in ("i", "f", "d")
                ]
                key = (StationCode(network, station, location), channel[:2])
                channels[key].setdefault(channel[2:], []).extend(pieces)
    except pymseed.PymseedError as error:
        raise ConfigError(f"{path}: cannot be read as miniSEED ({error})") from error
    for (code, band_instrument), components in sorted(channels.items()):
        letters = component_of(components)
        pieces_of = {letters[letter]: pieces for letter, pieces in components.items() if letter in letters}
        if not any(pieces_of.values()):
            continue
        try:
            record = _aligned(path.name, code, band_instrument, pieces_of)
        except ConfigError as error:
            if unusable is None:
                raise
            unusable(error)
        else:
            yield record


def component_of(letters: Iterable[str]) -> dict[str, int]:
    """Row in Z, N, E of each component letter: Z/N/E, Z/1/2 or Z/2/3; letters that are none of these are left out."""
    letters = set(letters)
    rows = {letter: row for row, letter in enumerate("ZNE") if letter in letters}
    free = [row for row in (1, 2) if row not in rows.values()]
    numbered = sorted(letter for letter in letters if letter in {"1", "2", "3"})
    return rows | dict(zip(numbered, free, strict=False))


def _aligned(
    file: str, code: StationCode, band_instrument: str, components: Mapping[int, list[tuple[int, float, Any]]]
) -> StationRecord:
    """Segments of each component on the 100 Hz grid of the earliest one, to the nearest sample."""
    start_ns = min(start for pieces in components.values() for start, _, _ in pieces)
    placed: list[tuple[int, int, NDArray[np.float32], NDArray[np.bool_]]] = []
    for component, pieces in components.items():
        offset = None
        for piece_ns, rate_hz, samples in sorted(pieces, key=lambda piece: piece[0]):
            flags = live(samples[None], rate_hz)
            if offset is None and flags.any():
                offset = first_valid(samples[None], flags)
            if offset is None:
                continue
            factor = ratio(rate_hz)
            clean = np.where(flags, remove_offset(samples[None], offset), np.float32(0))[0]
            moved = resample(clean, factor).astype(np.float32)
            index = np.minimum((np.arange(len(moved)) / float(factor)).astype(np.int64), len(samples) - 1)
            placed.append((component, round((piece_ns - start_ns) / STEP_NS), moved, flags[0, index]))
    length = max((first + len(samples) for _, first, samples, _ in placed), default=0)
    waveform, valid = np.zeros((3, length), np.float32), np.zeros((3, length), np.bool_)
    for component, first, samples, flags in placed:
        waveform[component, first : first + len(samples)] = np.where(flags, samples, np.float32(0))
        valid[component, first : first + len(samples)] = flags
    return StationRecord(
        file=file, code=code, band_instrument=band_instrument, start_ns=start_ns, waveform=waveform, valid=valid
    )
