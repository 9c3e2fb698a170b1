"""A station: records of three components in, aligned chunks of the 100 Hz grid out.

Everything is decided in data time, so that the chunks do not depend on the speed of a replay; ``now_ns`` serves only to
refuse data from the future and to stamp chunks. Each policy is counted under its reason in ``Station.counts``.

| data | what happens | counted as | flag |
|---|---|---|---|
| duplicate | dropped | ``duplicate`` | |
| overlap | the samples seen first stay, the rest is dropped | ``overlap`` | |
| out of order, its hole not yet given up | accepted, as if in order | ``out_of_order`` | |
| late: the hole is given up or the chunk emitted | dropped, state is never rewritten | ``late`` | |
| more than 60 s before the last chunk (backward clock step) | dropped until time catches up | ``backward_clock`` | |
| starts more than 60 s after now | dropped | ``future`` | |
| hole up to ``interpolate_s`` | filled linearly, at once | ``interpolated`` | ``interpolated`` |
| longer hole | waited for like a late component, then invalid | ``gap`` | ``gap`` |
| no component valid for up to ``hold_s`` | empty chunks, the model state is carried on | ``held`` | ``gap`` |
| no component valid for longer | nothing emitted, then a chunk with ``reset``, new offsets | ``reset`` | ``reset`` |
| component behind by more than ``component_wait_s`` + the longest record | goes on without it, not waited for until it
  delivers again | ``missing_component`` | ``missing_Z``, ``missing_N``, ``missing_E`` |
| sample that is not finite | invalid | ``not_finite`` (samples) | ``gap`` |
| exact zeros in a run that chance does not explain | invalid, like a gap | ``zero_filled`` (samples) | ``gap`` |
| rate other than 100 Hz | resampled, delay compensated | | ``resampled`` |
| rate changes | the run ends, a new one starts | ``rate_changed`` | |
| record times off the sample count by more than 0.25 ms | the clock is set anew | ``clock_set`` | |
| 100 Hz data drift off their slots | one sample is repeated or left out | ``slip`` | ``interpolated`` if repeated |
| time tag questionable | used | | ``clock_questionable`` |
| numbered orientation that contradicts the set known so far | dropped | ``component_conflict`` | |

"Behind" is measured in data delivered: a component is behind by what the fullest component holds beyond its last
settled sample. So a gap of an hour in all components makes none of them late. Components that are sampled at instants
of their own lie up to half a slot off the grid, each by its own shift: ``Chunk.shifts_ns``; ``time_shift_ns`` is that
of the first one with data. Spikes and other
sentinel values are data.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from picker.errors import ConfigError
from picker.offset import first_valid, remove_offset
from streamer.channels import COMPONENTS, components
from streamer.chunk import Chunk, StationKey
from streamer.component import MOST_PENDING, Column, Component, lowest
from streamer.lowpass import nominal_rate
from streamer.record import Record
from streamer.resample import CHUNK_SLOTS, CLOCK_QUESTIONABLE, INTERPOLATED, SLOT_NS

FUTURE_NS = 60_000_000_000
PAST_NS = 60_000_000_000
BUFFER_S = 60.0
"""A station holds at most this much data of a component plus two of its longest records."""


@dataclass(frozen=True, kw_only=True)
class StationPolicy:
    """Waiting times of a station, in seconds of data time."""

    component_wait_s: float = 5.0
    interpolate_s: float = 0.05
    hold_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("component_wait_s", "interpolate_s", "hold_s"):
            value = getattr(self, name)
            if not 0 <= value <= BUFFER_S:
                raise ConfigError(f"{name} is {value}: give seconds between 0 and {BUFFER_S:g}")


class Station:
    """One instrument of one station. ``orientations`` are the letters already known to exist, for example Z12."""

    def __init__(self, key: StationKey, policy: StationPolicy | None = None, orientations: str = "") -> None:
        self.key = key
        self.policy = policy or StationPolicy()
        self.counts: Counter[str] = Counter()
        self.orientations = components(orientations)
        self.components = {name: Component(0, self.counts) for name in COMPONENTS}
        self.follow(self.policy)
        self.longest_ns = 0
        self.next_slot: int | None = None
        self.valid_until_slot: int | None = None
        self.offsets = np.zeros(3)
        self.offset_known = np.zeros(3, dtype=np.bool_)
        self.time_shift_ns = 0
        self.last_now_ns = 0
        self._chunks: list[Chunk] = []

    def follow(self, policy: StationPolicy) -> None:
        """Go on with other waiting times."""
        self.policy = policy
        for component in self.components.values():
            component.interpolate_ns = round(policy.interpolate_s * 1e9)

    def component_of(self, record: Record) -> str | None:
        """Component of the record's channel, None where its orientation contradicts those already known."""
        letter = record.nslc.channel[-1]
        if letter not in self.orientations:
            known = components({*self.orientations, letter})
            if letter not in known or any(known.get(old) != name for old, name in self.orientations.items()):
                return None
            self.orientations = known
        return self.orientations[letter]

    def add(self, record: Record, now_ns: int) -> None:
        """Take a record that arrived at ``now_ns``. Raises BadRecord where its rate cannot be resampled."""
        nominal_rate(record.sampling_rate_hz)
        self.last_now_ns = now_ns
        name = self.component_of(record)
        refusal = "component_conflict" if name is None else self._refusal(record, now_ns)
        if name is None or refusal is not None:
            self.counts[refusal or "component_conflict"] += 1
            return
        self.longest_ns = max(self.longest_ns, record.end_ns - record.start_ns)
        component = self.components[name]
        used = component.add(record)
        if not used and component.absent and self._nearly_in_time(record):
            component.wait_again(0 if self.next_slot is None else self.next_slot * SLOT_NS)
        self._advance()

    def ready(self) -> list[Chunk]:
        """The chunks completed since the last call, in time order."""
        chunks, self._chunks = self._chunks, []
        return chunks

    def flush(self) -> list[Chunk]:
        """End of data: all chunks still held, the last one padded with invalid samples. Data may follow."""
        for component in self.components.values():
            while not component.absent:
                component.give_up()
        if self.next_slot is None and any(component.columns for component in self.components.values()):
            self._start()
        while any(component.columns for component in self.components.values()):
            self._emit()
        return self.ready()

    def _refusal(self, record: Record, now_ns: int) -> str | None:
        if not len(record.samples):
            return "no_samples"
        if record.start_ns > now_ns + FUTURE_NS:
            return "future"
        if self.next_slot is not None:
            earliest_ns = self.next_slot * SLOT_NS
        else:
            starts = [waiting.start_ns for one in self.components.values() for waiting in one.pending[:1]]
            earliest_ns = min(starts, default=record.end_ns)
        return "backward_clock" if record.end_ns < earliest_ns - PAST_NS else None

    def _wait_ns(self) -> int:
        return round(self.policy.component_wait_s * 1e9) + self.longest_ns

    def _nearly_in_time(self, record: Record) -> bool:
        """Whether an absent component's data, though too late, come soon enough to wait for the next."""
        ends = [component.end_ns for component in self.components.values()]
        return max((end for end in ends if end is not None), default=0) - record.end_ns <= self._wait_ns()

    def _advance(self) -> None:
        """Emit what is settled and give up what is overdue, until neither is left."""
        while not all(component.absent for component in self.components.values()):
            end = None if self.next_slot is None else self.next_slot + CHUNK_SLOTS
            blocking = [component for component in self.components.values() if _blocks(component, end)]
            if not blocking and end is None:
                self._start()
                continue
            if not blocking:
                self._emit()
                continue
            overdue = [component for component in blocking if self._overdue(component)]
            if not overdue:
                return
            for component in overdue:
                component.give_up()
                if component.absent:
                    self.counts["missing_component"] += 1

    def _overdue(self, component: Component) -> bool:
        since_ns = component.settled_ns
        ahead_ns = max(other.data_after(since_ns) for other in self.components.values())
        return ahead_ns > self._wait_ns() or len(component.pending) > MOST_PENDING

    def _start(self) -> None:
        """Fix the first chunk, once every component has started or was given up."""
        if self.next_slot is None:
            firsts = [component.first_slot for component in self.components.values()]
            first = min((slot for slot in firsts if slot is not None), default=None)
            if first is not None:
                self._move_to(first - first % CHUNK_SLOTS)

    def _move_to(self, next_slot: int) -> None:
        self.next_slot = next_slot
        for component in self.components.values():
            component.pass_by(next_slot)

    def _emit(self) -> None:
        """Emit the chunk at ``next_slot``, or skip to the next one with data where it is not to be emitted."""
        first = self.next_slot
        assert first is not None
        columns = [component.take(first) or Column() for component in self.components.values()]
        valid = np.stack([column.valid for column in columns])
        self._move_to(first + CHUNK_SLOTS)
        hold_slots = self.policy.hold_s * 1e9 / SLOT_NS
        filled = np.flatnonzero(valid.any(axis=0))
        if len(filled):
            until = self.valid_until_slot
            reset = until is None or first + int(filled[0]) - until > hold_slots
            self.valid_until_slot = first + int(filled[-1]) + 1
        else:
            if self.valid_until_slot is None or first + CHUNK_SLOTS - self.valid_until_slot > hold_slots:
                self._skip()
                return
            reset = False
            self.counts["held"] += 1
        if reset:
            self.counts["reset"] += 1
            self.offset_known[:] = False
        self._chunks.append(self._chunk(first, columns, valid, reset))

    def _skip(self) -> None:
        """Jump over chunks that hold nothing, however many."""
        assert self.next_slot is not None
        firsts = [component.first_slot for component in self.components.values()]
        first = min((slot for slot in firsts if slot is not None), default=self.next_slot)
        self._move_to(max(self.next_slot, first - first % CHUNK_SLOTS))

    def _chunk(self, first: int, columns: list[Column], valid: NDArray[np.bool_], reset: bool) -> Chunk:
        values = np.stack([column.values for column in columns])
        fresh = valid.any(axis=1) & ~self.offset_known
        self.offsets = np.where(fresh, first_valid(values, valid), self.offsets)
        self.offset_known = self.offset_known | fresh
        for column in reversed(columns):
            if column.valid.any() and column.time_shift_ns is not None:
                self.time_shift_ns = column.time_shift_ns
        return Chunk(
            station=self.key,
            first_sample=first,
            time_shift_ns=self.time_shift_ns,
            samples=np.where(valid, remove_offset(values, self.offsets), np.float32(0)),
            valid=valid,
            reset=reset,
            data_complete_ns=self.last_now_ns,
            flags=_flags(columns, valid, reset),
            shifts_ns=tuple(column.time_shift_ns if column.valid.any() else None for column in columns),
            timing_quality=lowest(column.timing_quality for column in columns if column.valid.any()),
        )


def _blocks(component: Component, end_slot: int | None) -> bool:
    """Whether the chunk that ends at ``end_slot`` (None: the first one) must wait for ``component``."""
    if component.absent:
        return False
    settled = component.settled_slot
    return settled is None or (end_slot is not None and settled < end_slot)


def _flags(columns: list[Column], valid: NDArray[np.bool_], reset: bool) -> frozenset[str]:
    flags = {"reset"} if reset else set()
    if not valid.any():
        flags.add("gap")
    for name, column, here in zip(COMPONENTS, columns, valid, strict=True):
        if not here.any():
            if valid.any():
                flags.add(f"missing_{name}")
            continue
        if not here.all():
            flags.add("gap")
        if column.resampled:
            flags.add("resampled")
        if column.marks & INTERPOLATED:
            flags.add("interpolated")
        if column.marks & CLOCK_QUESTIONABLE:
            flags.add("clock_questionable")
    return frozenset(flags)
