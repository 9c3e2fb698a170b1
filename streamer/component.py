"""One component of a station: records in any order in, columns of 64 slots of the 100 Hz grid out.

Records wait in ``pending`` until they follow on from what is settled; whoever owns the component says when a hole is
given up. What each policy is, and what it is counted as, stands in the table of ``streamer.station``.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.lowpass import nominal_rate
from streamer.record import Record
from streamer.resample import CHUNK_SLOTS, CLOCK_QUESTIONABLE, INTERPOLATED, INVALID, SLOT_NS, Piece, Resampler, usable
from streamer.segment import Interval, duration_after, from_time, merged, samples_between, uncovered
from streamer.zero_fill import ZeroFill

JITTER_NS = 250_000
"""Record times may differ this much from the sample count before the clock is set anew: miniSEED 2 without
blockette 1001 tells time in steps of 100 microseconds."""
MEMORY_NS = 60_000_000_000
"""How long a duplicate is told from late data after its chunk was emitted."""
MOST_INTERVALS = 64
MOST_PENDING = 4096


@dataclass
class Column:
    """The 64 slots of one chunk: values (64,) in the digitiser's unit, valid (64,), marks (all of them together)."""

    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(CHUNK_SLOTS))
    valid: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(CHUNK_SLOTS, dtype=np.bool_))
    marks: int = 0
    time_shift_ns: int | None = None
    resampled: bool = False
    timing_quality: int | None = None

    def write(self, piece: Piece, resampled: bool, timing_quality: int | None) -> None:
        """Put the slots of ``piece`` in; the first shift written is the column's, and the lowest timing quality."""
        first = piece.first_slot % CHUNK_SLOTS
        here = slice(first, first + len(piece.values))
        valid = (piece.marks & INVALID) == 0
        self.values[here] = np.where(valid, piece.values, 0.0)
        self.valid[here] = valid
        self.marks |= int(np.bitwise_or.reduce(piece.marks[valid], initial=0))
        self.resampled = self.resampled or resampled
        self.timing_quality = lowest((self.timing_quality, timing_quality))
        if self.time_shift_ns is None:
            self.time_shift_ns = piece.time_shift_ns


def lowest(timing_qualities: Iterable[int | None]) -> int | None:
    """The lowest of those that are known."""
    return min((quality for quality in timing_qualities if quality is not None), default=None)


class Component:
    """The samples of one component; ``counts`` is the station's."""

    def __init__(self, interpolate_ns: int, counts: Counter[str]) -> None:
        self.interpolate_ns = interpolate_ns
        self.counts = counts
        self.pending: list[Record] = []
        self.pending_ns = 0
        self.delivered: list[Interval] = []
        self.columns: dict[int, Column] = {}
        self.resampler: Resampler | None = None
        self.zero_fill = ZeroFill()
        self.settled_ns: int | None = None
        self.floor_slot: int | None = None
        self.absent = False
        self.timing_quality: int | None = None
        """Of the last record used."""

    @property
    def settled_slot(self) -> int | None:
        """All slots before this one are decided; None where nothing runs."""
        return None if self.resampler is None else self.resampler.next_slot

    @property
    def first_slot(self) -> int | None:
        """First slot that holds or will hold a sample, None where none is known."""
        if self.columns:
            return min(self.columns) * CHUNK_SLOTS
        return self.settled_slot

    @property
    def end_ns(self) -> int | None:
        """End of the newest data, None before the first."""
        ends = [record.end_ns for record in self.pending[-1:]] + ([] if self.settled_ns is None else [self.settled_ns])
        return max(ends, default=None)

    def data_after(self, since_ns: int | None) -> int:
        """Nanoseconds of data delivered beyond ``since_ns`` (None: all that is held)."""
        settled = duration_after(self.delivered, since_ns)
        if not self.pending or since_ns is None or since_ns <= self.pending[0].start_ns:
            return settled + self.pending_ns
        waiting = [(record.start_ns, record.end_ns) for record in self.pending]
        return settled + duration_after(waiting, since_ns)

    def add(self, record: Record) -> bool:
        """Take what is new in ``record``; False where nothing of it can be used any more."""
        end_ns = self.end_ns
        if end_ns is None or record.start_ns >= end_ns:
            parts = [record]
        else:
            waiting = [(other.start_ns, other.end_ns) for other in self.pending]
            parts = uncovered(record, [*self.delivered, *waiting])
        if not parts:
            self.counts["duplicate"] += 1
            return False
        kept = [part for part in (self._not_late(part) for part in parts) if part is not None]
        samples = sum(len(part.samples) for part in parts)
        if samples < len(record.samples):
            self.counts["overlap"] += 1
        if sum(len(part.samples) for part in kept) < samples:
            self.counts["late"] += 1
        if not kept:
            return False
        if self.pending and kept[0].start_ns < self.pending[-1].start_ns:
            self.counts["out_of_order"] += 1
        for part in kept:
            insort(self.pending, part, key=lambda waiting: waiting.start_ns)
            self.pending_ns += part.end_ns - part.start_ns
        if self.absent:
            self.absent = False
            self._open(self._pop())
        self._absorb()
        return True

    def wait_again(self, from_ns: int) -> None:
        """The component delivers again, though too late until now: wait for it from ``from_ns`` on."""
        self.absent = False
        self.settled_ns = from_ns if self.settled_ns is None else max(from_ns, self.settled_ns)

    def give_up(self) -> None:
        """The hole after what is settled will not be filled: go on behind it, or without this component."""
        self._close()
        if self.pending:
            if self.settled_ns is not None:
                self.counts["gap"] += 1
            self._open(self._pop())
            self._absorb()
        else:
            self.absent = True

    def take(self, first_slot: int) -> Column | None:
        """Hand over the column that starts at ``first_slot``."""
        return self.columns.pop(first_slot // CHUNK_SLOTS, None)

    def pass_by(self, next_slot: int) -> None:
        """Everything before ``next_slot`` is emitted or skipped: what comes for it from now on is late."""
        self.floor_slot = next_slot
        forget_ns = next_slot * SLOT_NS - MEMORY_NS
        if self.delivered and self.delivered[0][1] < forget_ns:
            self.delivered = [interval for interval in self.delivered if interval[1] >= forget_ns]

    def _not_late(self, part: Record) -> Record | None:
        """What of ``part`` lies behind everything settled and emitted."""
        floors = [] if self.settled_ns is None else [self.settled_ns]
        if self.floor_slot is not None:
            floors.append(self.floor_slot * SLOT_NS - SLOT_NS // 2)
        return from_time(part, max(floors)) if floors else part

    def _pop(self) -> Record:
        """Take the earliest pending record."""
        record = self.pending.pop(0)
        self.pending_ns -= record.end_ns - record.start_ns
        return record

    def _absorb(self) -> None:
        """Settle the pending records that follow on, across holes short enough to interpolate."""
        while self.pending and self.settled_ns is not None and not self.absent:
            record = self.pending[0]
            half_ns = int(0.5e9 / record.sampling_rate_hz)
            if record.start_ns - self.settled_ns > self.interpolate_ns + half_ns:
                return
            self._follow(self._pop())

    def _follow(self, record: Record) -> None:
        """Feed a record that follows on from the settled data."""
        resampler = self.resampler
        if resampler is None or resampler.nominal != nominal_rate(record.sampling_rate_hz):
            if resampler is not None:
                self.counts["rate_changed"] += 1
                self._close()
            self._open(record)
            return
        missing = samples_between(resampler.expected_ns, record.start_ns, record.sampling_rate_hz)
        if missing > 0:
            self._interpolate(resampler, record, missing)
        if abs(record.start_ns - resampler.expected_ns) > JITTER_NS:
            self.counts["clock_set"] += 1
            resampler.retime(record.start_ns, record.sampling_rate_hz)
        self._push(resampler, record)

    def _interpolate(self, resampler: Resampler, record: Record, missing: int) -> None:
        """Fill ``missing`` samples linearly between the last value and the first of ``record``."""
        self.counts["interpolated"] += 1
        first = float(record.samples[0])
        before = resampler.last_value
        after = first if usable(record.samples[:1]).all() else before
        values = before + (after - before) * np.arange(1, missing + 1) / (missing + 1)
        self._write(resampler, resampler.push(values, np.full(missing, INTERPOLATED, dtype=np.uint8)))

    def _open(self, record: Record) -> None:
        """Start a run with ``record``."""
        resampler = Resampler(record.sampling_rate_hz, record.start_ns, self._floor(), self.zero_fill)
        self.resampler = resampler
        self._push(resampler, record)

    def _floor(self) -> int | None:
        """First slot that a new run may write: behind what was emitted and what the last run wrote."""
        floors = [] if self.floor_slot is None else [self.floor_slot]
        if self.columns:
            newest = max(self.columns)
            written = np.flatnonzero(self.columns[newest].valid)
            floors.append(newest * CHUNK_SLOTS + (int(written[-1]) + 1 if len(written) else 0))
        return max(floors, default=None)

    def _push(self, resampler: Resampler, record: Record) -> None:
        mark = CLOCK_QUESTIONABLE if record.clock_questionable else 0
        if unusable := int(np.count_nonzero(~usable(record.samples))):
            self.counts["not_finite"] += unusable
        start_ns = resampler.expected_ns
        self.timing_quality = record.timing_quality
        self._write(resampler, resampler.push(record.samples, np.full(len(record.samples), mark, dtype=np.uint8)))
        self.settled_ns = resampler.expected_ns
        join_ns = self.interpolate_ns + int(0.5e9 / record.sampling_rate_hz)
        self.delivered = merged(self.delivered, (start_ns, self.settled_ns), join_ns)[-MOST_INTERVALS:]

    def _close(self) -> None:
        """End the run."""
        if self.resampler is not None:
            self._write(self.resampler, self.resampler.finish())
            self.resampler = None

    def _write(self, resampler: Resampler, pieces: list[Piece]) -> None:
        for piece in pieces:
            column = self.columns.setdefault(piece.first_slot // CHUNK_SLOTS, Column())
            column.write(piece, not resampler.passes, self.timing_quality)
        if resampler.filled:
            self.counts["zero_filled"] += resampler.filled
            resampler.filled = 0
        if resampler.slips:
            self.counts["slip"] += resampler.slips
            resampler.slips = 0
