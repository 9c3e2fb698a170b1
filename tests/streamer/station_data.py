"""Records and miniSEED for the station tests, and what chunks add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pymseed import DataEncoding, MS3Record

from streamer.chunk import Chunk, StationKey
from streamer.record import Nslc, Record
from streamer.station import Station, StationPolicy

EPOCH_NS = 1_700_000_000_370_000_000
"""A whole number of slots, but not the start of a chunk."""
KEY = StationKey("XX", "TEST", "", "HH")
SECOND_NS = 1_000_000_000


def record(letter: str, start_s: float, samples: NDArray, rate_hz: float = 100.0, **others: object) -> Record:
    """A record of channel HH<letter>, ``start_s`` after the epoch of these tests."""
    nslc = others.pop("nslc", Nslc("XX", "TEST", "", f"HH{letter}"))
    start_ns = EPOCH_NS + round(start_s * 1e9)
    return Record(nslc=nslc, start_ns=start_ns, sampling_rate_hz=rate_hz, samples=samples, **others)  # type: ignore[arg-type]


def noise(samples: int, seed: int = 0, offset: int = 0) -> NDArray[np.int32]:
    """Integer noise around ``offset`` with a standard deviation of 50."""
    return (np.random.default_rng(seed).normal(0, 50, samples) + offset).astype(np.int32)


def packets(
    letter: str, samples: NDArray, sizes: Sequence[int], start_s: float = 0.0, rate_hz: float = 100.0
) -> list[Record]:
    """``samples`` cut into records of ``sizes`` samples, over and over."""
    out, position, turn = [], 0, 0
    while position < len(samples):
        size = sizes[turn % len(sizes)]
        here = samples[position : position + size]
        out.append(record(letter, start_s + position / rate_hz, here, rate_hz))
        position, turn = position + size, turn + 1
    return out


def by_time(records: Iterable[Record], late_s: dict[str, float] | None = None) -> list[Record]:
    """Records in the order of their start, those of a letter in ``late_s`` later by so many seconds of data."""
    delays = late_s or {}
    return sorted(records, key=lambda one: one.start_ns + delays.get(one.nslc.channel[-1], 0.0) * 1e9)


def run(
    records: Iterable[Record], policy: StationPolicy | None = None, station: Station | None = None
) -> tuple[list[Chunk], Station]:
    """All chunks of ``records`` in the order given, the end flushed."""
    station = station or Station(KEY, policy)
    chunks: list[Chunk] = []
    for one in records:
        station.add(one, one.end_ns)
        chunks += station.ready()
    return chunks + station.flush(), station


def same(left: list[Chunk], right: list[Chunk]) -> bool:
    """Whether two runs gave the same chunks to the last bit, arrival times apart."""
    return [_content(chunk) for chunk in left] == [_content(chunk) for chunk in right]


def _content(chunk: Chunk) -> tuple[object, ...]:
    return (
        chunk.station,
        chunk.first_sample,
        chunk.time_shift_ns,
        chunk.samples.tobytes(),
        chunk.valid.tobytes(),
        chunk.reset,
        chunk.flags,
    )


def line(chunks: list[Chunk], component: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Slots and values of the valid samples of one component."""
    slots = [chunk.first_sample + np.flatnonzero(chunk.valid[component]) for chunk in chunks]
    values = [chunk.samples[component][chunk.valid[component]] for chunk in chunks]
    return np.concatenate(slots), np.concatenate(values)


def miniseed(
    samples: NDArray,
    *,
    version: int = 2,
    encoding: DataEncoding = DataEncoding.STEIM2,
    rate_hz: float = 100.0,
    source_id: str = "FDSN:XX_TEST__H_H_Z",
    start_ns: int = EPOCH_NS,
    quality: int | None = None,
    flags: int = 0,
    record_bytes: int = 512,
) -> bytes:
    """Real miniSEED, as many records as it takes."""
    template = MS3Record(reclen=record_bytes, encoding=encoding)
    template.sourceid, template.formatversion, template.samprate = source_id, version, rate_hz
    template.starttime, template.flags = start_ns, flags
    if quality is not None:
        template.set_extra_header("/FDSN/Time/Quality", quality)
    kind = {"i": "i", "u": "t"}.get(samples.dtype.kind, "f" if samples.dtype == np.float32 else "d")
    return b"".join(template.generate(samples, kind))
