"""Causal streaming resampling of one channel to the 100 Hz grid, its delay compensated.

The grid: slot g is the instant g * 10 ms since the Unix epoch; 64 slots, from one divisible by 64, are a chunk.

* 100 Hz data pass bit-exactly. Their distance from the grid, at most half a slot, is carried as ``time_shift_ns``.
* Other rates (20-500 Hz) pass a linear-phase FIR that is evaluated at the very times of the slots: shift 0. The
  value of a slot needs input up to ``delay_s`` later, which delays it but does not move it.
* Where input time drifts against the nominal rate (99.99 Hz; a clock correction), the mapping from slots to input is
  renewed, but only where a chunk starts, so that a chunk has one shift. Passed samples then slip by a whole one: one is
  repeated (and marked) or left out; filtered ones move by the drift since the last renewal.
* Zeros that fill a gap (``streamer.zero_fill``) are INVALID. A run of them is held until it is known what it is.
* At both ends of a run the input is continued by its end value.

Each output is the same sum over the same products however the input was cut, so any packetisation gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.lowpass import OUTPUT_RATE_HZ, bank, half_length_samples, nominal_rate
from streamer.zero_fill import ZeroFill

SLOT_NS = 10_000_000
CHUNK_SLOTS = 64
INVALID, INTERPOLATED, CLOCK_QUESTIONABLE = 1, 2, 4
"""Marks of a sample, bits of a uint8."""
SLIP_SLOTS = 0.55
"""Passed samples slip where they are further than this from their slot; beyond 0.5 so that jitter cannot ping-pong."""
LARGEST = 1e18
"""Samples beyond would overflow float32 when squared: they count as not finite."""
RENEW_S = 0.0001
"""Filtered samples are re-timed where the mapping is off by more than this."""


def usable(samples: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of ``samples`` (n,) are finite and small enough to compute with."""
    if samples.dtype.kind == "i":
        return np.ones(samples.shape, dtype=np.bool_)
    return np.asarray(np.abs(samples) < LARGEST)


@dataclass(frozen=True)
class Piece:
    """Resampled slots, all of one chunk: values (n,) float64 and marks (n,) uint8 from slot ``first_slot`` on."""

    first_slot: int
    values: NDArray[np.float64]
    marks: NDArray[np.uint8]
    time_shift_ns: int


@dataclass(frozen=True)
class InputClock:
    """Time of input sample ``index`` and the rate from there on."""

    index: int
    start_ns: int
    rate_hz: float

    def time_of(self, index: int) -> int:
        """Time of input sample ``index``, int ns UTC."""
        return self.start_ns + round((index - self.index) * 1e9 / self.rate_hz)

    def position_of(self, time_ns: int) -> float:
        """Input position, below one sample too, at ``time_ns``."""
        return self.index + (time_ns - self.start_ns) * self.rate_hz / 1e9


@dataclass(frozen=True)
class SlotMapping:
    """Slot ``slot`` lies at input position ``index + fraction``; the others follow at the nominal rate."""

    slot: int
    index: int
    fraction: float
    time_shift_ns: int = 0


class Resampler:
    """One run of contiguous samples of one channel: raw samples in, pieces of the 100 Hz grid out."""

    def __init__(
        self, rate_hz: float, start_ns: int, floor_slot: int | None = None, zero_fill: ZeroFill | None = None
    ) -> None:
        """``start_ns`` is the time of the first sample; no slot before ``floor_slot`` is made. Raises BadRecord.

        ``zero_fill`` is the channel's, which outlives the run.
        """
        self.nominal: Fraction = nominal_rate(rate_hz)
        self.half = half_length_samples(self.nominal)
        self._down, self._up = (self.nominal / OUTPUT_RATE_HZ).as_integer_ratio()
        self.count = 0
        self.slips = self.filled = 0
        """Slips, and samples that were found to be fill, since somebody last set them to zero."""
        self._zero_fill = ZeroFill() if zero_fill is None else zero_fill
        self._zero_fill.begin()
        self._open = 0
        self._clock = InputClock(0, start_ns, rate_hz)
        self._mapping: SlotMapping | None = None
        self._base: float | None = None
        self._kept = -(self.half + 2)
        self._values = np.zeros(0, dtype=np.float64)
        self._marks = np.zeros(0, dtype=np.uint8)
        # A sample stands for half a slot on either side; filtered slots start at the first one inside the run.
        first = (start_ns + SLOT_NS // 2) // SLOT_NS if self.passes else -(-start_ns // SLOT_NS)
        self.next_slot = first if floor_slot is None else max(first, floor_slot)

    @property
    def passes(self) -> bool:
        """Whether samples pass unfiltered."""
        return self.half == 0

    @property
    def delay_s(self) -> float:
        """How much later than the slot the last input sample is that its value needs."""
        return (self.half + 1) / float(self.nominal) if self.half else 0.0

    @property
    def expected_ns(self) -> int:
        """Time of the sample that would follow the last one."""
        return self._clock.time_of(self.count)

    @property
    def rate_hz(self) -> float:
        """Rate that the clock runs at."""
        return self._clock.rate_hz

    @property
    def last_value(self) -> float:
        """The last finite sample, zero where there is none."""
        return float(self._values[-1]) + (self._base or 0.0) if len(self._values) else 0.0

    def retime(self, start_ns: int, rate_hz: float) -> None:
        """The next sample is at ``start_ns``; used from the next chunk on."""
        self._clock = InputClock(self.count, start_ns, rate_hz)

    def push(self, samples: NDArray[Any], marks: NDArray[np.uint8]) -> list[Piece]:
        """The slots that ``samples`` (n,), marked by ``marks`` (n,), complete. Those not finite become INVALID."""
        values = samples.astype(np.float64)
        verdict = self._zero_fill.follow(values)
        finite = usable(values) & ~verdict.fill
        if not finite.all():
            marks = np.where(finite, marks, marks | INVALID).astype(np.uint8)
        if not len(values):
            return []
        if verdict.before:
            self._void(verdict.before)
        self._open = verdict.open
        self.filled += verdict.before + int(np.count_nonzero(verdict.fill))
        self._append(self._relative(values, finite), marks)
        self.count += len(values)
        return self._produce(last_position=None)

    def finish(self) -> list[Piece]:
        """The slots still open at the end of the run."""
        if self.count == 0 or (self.half == 0 and not self._open):
            return []
        held = self.half + 1
        self._append(np.full(held, self._values[-1]), np.full(held, self._marks[-1]))
        return self._produce(last_position=self.count - 1 + 1e-6)

    def _void(self, count: int) -> None:
        """The last ``count`` samples, of which no slot was made yet, are fill; the one before stands in for them."""
        first = len(self._values) - count
        self._marks[first:] |= INVALID
        self._values[first:] = self._values[first - 1] if first > 0 else 0.0

    def _relative(self, values: NDArray[np.float64], finite: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Filtered runs are kept relative to their first finite sample; the last finite value stands in for NaN."""
        if self._base is None and finite.any():
            self._base = 0.0 if self.passes else float(values[finite.argmax()])
        before = self._values[-1] if len(self._values) else 0.0
        if not finite.all():
            latest = np.maximum.accumulate(np.where(finite, np.arange(len(values)), -1))
            held = values[latest] - (self._base or 0.0)
            return np.where(latest >= 0, held, before)
        return values - (self._base or 0.0)

    def _append(self, values: NDArray[np.float64], marks: NDArray[np.uint8]) -> None:
        if not len(self._values):
            lead = -self._kept
            values = np.concatenate([np.full(lead, values[0]), values])
            marks = np.concatenate([np.full(lead, marks[0], dtype=np.uint8), marks])
        self._values = np.concatenate([self._values, values])
        self._marks = np.concatenate([self._marks, marks])

    def _produce(self, last_position: float | None) -> list[Piece]:
        pieces = []
        available = self._kept + len(self._values) - (self._open if last_position is None else 0)
        while True:
            slot = self.next_slot
            mapping = self._mapping_at(slot)
            end = slot - slot % CHUNK_SLOTS + CHUNK_SLOTS
            whole, phase = self._positions(mapping, slot, end)
            ready = int(np.count_nonzero(whole + self.half < available))
            if last_position is not None:
                offsets = (np.arange(slot, end) - mapping.slot) * self._down / self._up
                positions = mapping.index + mapping.fraction + offsets
                ready = min(ready, int(np.count_nonzero(positions <= last_position)))
            if ready == 0:
                break
            pieces.append(self._piece(mapping, slot, whole[:ready], phase[:ready]))
            self._mapping = mapping
            self.next_slot = slot + ready
            if self.next_slot < end:
                break
        self._forget()
        return pieces

    def _mapping_at(self, slot: int) -> SlotMapping:
        """The mapping that holds at ``slot``: the one in use inside a chunk, renewed where it is off at its start."""
        mapping = self._mapping
        if mapping is not None and slot % CHUNK_SLOTS:
            return mapping
        position = self._clock.position_of(slot * SLOT_NS)
        if self.passes:
            index = None if mapping is None else mapping.index + slot - mapping.slot
            if index is None or abs(position - index) > SLIP_SLOTS:
                index = math.floor(position + 0.5)
            return SlotMapping(slot, index, 0.0, self._clock.time_of(index) - slot * SLOT_NS)
        if mapping is not None:
            predicted = mapping.index + mapping.fraction + (slot - mapping.slot) * self._down / self._up
            if abs(position - predicted) <= RENEW_S * float(self.nominal):
                return mapping
        # Steps of 1e-4 samples let stations share filter banks.
        index, steps = divmod(round(position * 10_000), 10_000)
        return SlotMapping(slot, index, steps / 10_000)

    def _positions(self, mapping: SlotMapping, slot: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Whole input positions and filter phases of the slots from ``slot`` to ``end``."""
        steps = np.arange(slot - mapping.slot, end - mapping.slot, dtype=np.int64) * self._down
        phase = steps % self._up
        _, carry = bank(self.nominal, mapping.fraction)
        return mapping.index + steps // self._up + carry[phase], phase

    def _piece(self, mapping: SlotMapping, slot: int, whole: NDArray[np.int64], phase: NDArray[np.int64]) -> Piece:
        here = whole - self._kept
        if self.passes:
            marks = self._marks[here]
            previous = self._mapping
            if previous is not None and slot == mapping.slot:
                moved = mapping.index - (previous.index + slot - previous.slot)
                self.slips += moved != 0
                if moved < 0:
                    marks[:-moved] |= INTERPOLATED
            return Piece(slot, self._values[here], marks, mapping.time_shift_ns)
        rows, carry = bank(self.nominal, mapping.fraction)
        windows = self._values[here[:, None] + np.arange(-self.half, self.half + 1)]
        values = (windows * rows[phase]).sum(axis=1) + (self._base or 0.0)
        position = mapping.fraction + phase / self._up - carry[phase]
        return Piece(slot, values, self._marks[here + (position >= 0.5)], mapping.time_shift_ns)

    def _forget(self) -> None:
        """Drop input that no later slot needs; a slip may go back by two samples."""
        mapping = self._mapping
        if mapping is None:
            return
        whole, _ = self._positions(mapping, self.next_slot, self.next_slot + 1)
        drop = int(whole[0]) - self.half - 2 - self._kept
        drop = min(drop, len(self._values) - 1)
        if drop > 0:
            self._kept += drop
            self._values = self._values[drop:].copy()
            self._marks = self._marks[drop:].copy()
