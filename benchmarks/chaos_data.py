"""Faults in the data themselves: which station, when, and what becomes of each record that they hit."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pymseed import MS3Record
from rig_waves import SECOND_NS, records

from streamer.replay.source import SourceRecord

TEN_YEARS_S = 3650 * 86_400
DAY_S = 86_400
GRACE_S = 300.0
"""So long after a fault picks may differ from those of the undisturbed run."""

LENGTHS_S = {
    "corrupt": 12.0,
    "lost_component": 30.0,
    "lost_record": 2.0,
    "gap": 15.0,
    "clock_future": 8.0,
    "clock_past": 8.0,
    "clock_shift": 12.0,
    "nan": 6.0,
}
"""Kinds of fault and how long each lasts (s of data)."""
LEAVES_HOLE = ("corrupt", "lost_component", "gap", "clock_future", "clock_past", "nan")
"""Those after which data are missing for so long that every pick near must carry a flag."""
NAN_EVERY = 7
"""Of the samples of a record with ``nan`` each seventh is not a number."""


class Fault(NamedTuple):
    """A fault at a station, in seconds of data from the start of all data; ``component`` empty hits all three."""

    station: str
    kind: str
    begin_s: float
    end_s: float
    component: str = ""

    def hits(self, record: SourceRecord, start_ns: int) -> bool:
        """Whether ``record`` begins within the fault."""
        begin_s = (record.start_ns - start_ns) / SECOND_NS
        return self.begin_s <= begin_s < self.end_s and (not self.component or record.name.subsource == self.component)


def plan(stations: Sequence[str], earliest_s: float, latest_s: float, seed: int) -> list[Fault]:
    """One fault for each station but every eighth, all kinds in turn."""
    chance = random.Random(seed)
    kinds = list(LENGTHS_S)
    faults: list[Fault] = []
    for number, station in enumerate(stations):
        if number % 8 == 7:
            continue
        kind = kinds[len(faults) % len(kinds)]
        begin_s = chance.uniform(earliest_s, latest_s)
        component = chance.choice("ZNE") if kind in ("lost_component", "lost_record") else ""
        faults.append(Fault(station, kind, round(begin_s, 1), round(begin_s + LENGTHS_S[kind], 1), component))
    return faults


def write_faults(path: Path, faults: Sequence[Fault]) -> Path:
    """Keep the plan for the servers."""
    path.write_text(json.dumps([fault._asdict() for fault in faults]))
    return path


def read_faults(path: Path) -> list[Fault]:
    """The plan of ``write_faults``."""
    return [Fault(**one) for one in json.loads(path.read_text())]


def faulty(fault: Fault, record: SourceRecord, payload: bytes) -> list[SourceRecord]:
    """What the server sends in place of ``record``."""
    match fault.kind:
        case "corrupt":
            pieces = [corrupted(payload, seed=record.start_ns // 1_000_000)]
        case "lost_component" | "lost_record" | "gap":
            pieces = []
        case "clock_future":
            pieces = [moved(payload, TEN_YEARS_S)]
        case "clock_past":
            pieces = [moved(payload, -DAY_S)]
        case "clock_shift":
            pieces = [moved(payload, 0.3)]
        case "nan":
            pieces = not_finite(payload)
        case _:
            raise ValueError(f"no such fault: {fault.kind}")
    return [dataclasses.replace(record, data=piece) for piece in pieces]


def corrupted(payload: bytes, seed: int) -> bytes:
    """``payload`` with three bits of its first Steim frame turned over: its checks must find it."""
    chance = random.Random(seed)
    first = 64 if payload[:2] != b"MS" else 40 + payload[33] + int.from_bytes(payload[34:36], "little")
    out = bytearray(payload)
    for place in chance.sample(range(first + 4, first + 12), 3):  # the first and the last sample of the frame's start
        out[place] ^= 1 << chance.randrange(8)
    return bytes(out)


def moved(payload: bytes, by_s: float) -> bytes:
    """The record as a station sends it whose clock is off by ``by_s``."""
    record = MS3Record.parse(payload, unpack_data=True)
    start_ns = record.starttime + round(by_s * SECOND_NS)
    (piece,) = _again(record, np.array(record.np_datasamples), start_ns)
    return piece


def not_finite(payload: bytes) -> list[bytes]:
    """The samples as floating point numbers, some of them not a number, in as many records as that takes."""
    record = MS3Record.parse(payload, unpack_data=True)
    samples = np.array(record.np_datasamples, dtype=np.float32)
    samples[::NAN_EVERY] = np.nan
    return _again(record, samples, record.starttime)


def _again(record: MS3Record, samples: np.ndarray, start_ns: int) -> list[bytes]:
    return records(samples, record.sourceid, start_ns, version=record.formatversion, record_bytes=512)
