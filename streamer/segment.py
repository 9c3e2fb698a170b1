"""Segments: contiguous samples of one channel, cut so that no instant is held twice.

A sample covers half an interval before and after its time. Times are int ns, intervals half open: (start, end).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from streamer.record import Record

Interval = tuple[int, int]


def samples_between(start_ns: int, end_ns: int, rate_hz: float) -> int:
    """The nearest whole number of sampling intervals from ``start_ns`` to ``end_ns`` (halves go up)."""
    return math.floor((end_ns - start_ns) * rate_hz / 1e9 + 0.5)


def cut(record: Record, first: int, last: int) -> Record:
    """Samples ``first`` up to but without ``last`` of ``record``."""
    if first == 0 and last == len(record.samples):
        return record
    start_ns = record.start_ns + round(first * 1e9 / record.sampling_rate_hz)
    return replace(record, start_ns=start_ns, samples=record.samples[first:last])


def uncovered(record: Record, taken: Iterable[Interval]) -> list[Record]:
    """The parts of ``record`` that lie in none of the intervals ``taken``, in time order."""
    count, position = len(record.samples), 0
    parts = []
    for start_ns, end_ns in sorted(taken):
        first = samples_between(record.start_ns, start_ns, record.sampling_rate_hz)
        last = samples_between(record.start_ns, end_ns, record.sampling_rate_hz)
        if last <= position:
            continue
        if first >= count:
            break
        if first > position:
            parts.append(cut(record, position, first))
        position = last
    if position < count:
        parts.append(cut(record, max(position, 0), count))
    return parts


def from_time(record: Record, floor_ns: int) -> Record | None:
    """The part of ``record`` at or after ``floor_ns`` (to the nearest sample), None where nothing is left."""
    first = max(0, samples_between(record.start_ns, floor_ns, record.sampling_rate_hz))
    return cut(record, first, len(record.samples)) if first < len(record.samples) else None


def merged(intervals: Iterable[Interval], newest: Interval, join_ns: int) -> list[Interval]:
    """``intervals`` in time order with ``newest`` added at their end, joined where it starts within ``join_ns``."""
    out = list(intervals)
    if out and newest[0] - out[-1][1] <= join_ns:
        out[-1] = (out[-1][0], max(out[-1][1], newest[1]))
    else:
        out.append(newest)
    return out


def duration_after(intervals: Iterable[Interval], since_ns: int | None) -> int:
    """Nanoseconds of data in ``intervals`` after ``since_ns`` (None: all of it)."""
    return sum(max(0, end - (start if since_ns is None else max(start, since_ns))) for start, end in intervals)
