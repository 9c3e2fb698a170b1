"""What the tests of ``streamer pick`` share: known data cut and stored in many ways, and the command as a call.

The data are those of ``daemon_kit``: with the tiny bundle each pulse on HHZ is a P and each on HHN an S.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from daemon_kit import P_AT_S, S_AT_S, SECOND_NS, START_NS, pulses
from numpy.typing import NDArray
from pymseed import DataEncoding
from station_data import miniseed
from tiny_bundle import write_tiny_bundle

from streamer.cli import main

RATE_HZ = 100.0
COMPONENTS: Mapping[str, Sequence[float]] = {"HHZ": P_AT_S, "HHN": S_AT_S, "HHE": ()}


def packet(
    code: str, samples: NDArray, first: int, station: str = "ONE", start_ns: int = START_NS, **more: Any
) -> bytes:
    """``samples`` of XX.<station> as miniSEED whose first is sample ``first`` after ``start_ns``."""
    return miniseed(
        samples.astype(np.float32),
        encoding=DataEncoding.FLOAT32,
        source_id=f"FDSN:XX_{station}__{'_'.join(code)}",
        start_ns=start_ns + round(first * SECOND_NS / RATE_HZ),
        **more,
    )


def packets(
    code: str,
    at_s: Sequence[float],
    sizes: Sequence[int],
    *,
    gaps_s: Iterable[tuple[float, float]] = (),
    station: str = "ONE",
    start_ns: int = START_NS,
) -> list[bytes]:
    """A channel in records of ``sizes`` samples, over and over, without the samples in ``gaps_s``."""
    data = pulses(at_s)
    missing = np.zeros(len(data), dtype=np.bool_)
    for begin_s, end_s in gaps_s:
        missing[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)] = True
    edges = np.flatnonzero(np.diff(missing)) + 1
    out, turn = [], 0
    for part in np.split(np.arange(len(data)), edges):
        if missing[part[0]]:
            continue
        position = 0
        while position < len(part):
            here = part[position : position + sizes[turn % len(sizes)]]
            out.append(packet(code, data[here], int(here[0]), station, start_ns, record_bytes=32768, version=3))
            position, turn = position + len(here), turn + 1
    return out


def bundle(folder: Path) -> Path:
    """The tiny bundle."""
    path = folder / "bundle"
    return path if path.is_dir() else write_tiny_bundle(path)


def picked(folder: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    """What ``streamer pick`` with these arguments writes as lines of JSON."""
    return [json.loads(line) for line in picked_text(folder, *arguments).splitlines()]


def picked_text(folder: Path, *arguments: str | Path) -> str:
    """The same as text."""
    out = folder / "out.jsonl"
    assert main(["pick", "--model", str(bundle(folder)), "--out", str(out), *map(str, arguments)]) == 0
    return out.read_text()


def timeless(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages by id, without what depends on when data arrived."""
    out = []
    for message in sorted(messages, key=lambda one: one["id"]):
        onset = {**message["analyticsInfo"]["extensions"]["onset"]}
        del onset["published_time"], onset["latency"]
        out.append({**message, "analyticsInfo": {**message["analyticsInfo"], "extensions": {"onset": onset}}})
    return out
