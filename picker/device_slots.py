"""States that stay in the memory of a device, in slots, stepped by ONNX Runtime with I/O binding.

A step takes the first slots up to the last one that is wanted, filled up to a *bucket*: 16 slots, 32, 64 and so on to
those of a *segment*; more slots are further segments, stepped one after the other. The graph reads one set of states
and writes another; what crosses the bus is chunk, valid, reset and ready in, and probabilities out. Then

- where the rows of the call are all slots in use, the two sets change places: nothing is copied;
- else the new states of the rows that were ready are put among the old ones, by a graph of its own, in one pass.

So a call costs its buckets, however few of their stations are ready; no state is gathered or scattered. The step never
writes what it reads, and putting a new state in place twice changes nothing, so that a step which failed, or which ONNX
Runtime makes several times to capture a CUDA graph, finds the state as it was. All of it works with ONNX Runtime's CPU
provider too, where "device" is the host: so it is tested.

Shapes: B rows (stations of one call), C = 3 components, L = 64 samples a chunk, P = 3 phases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.device_segment import Segment, bucket_of
from picker.device_sessions import Sessions
from picker.slots import Rows
from picker.stepper import State

SEGMENT = 8192
"""Slots of a segment. What a step needs beside states grows with its bucket: 14 GiB for ``small``, 43 for ``base``."""


@dataclass(frozen=True, kw_only=True)
class DeviceModel(Sessions):
    """Sessions on one device; any number of ``slots`` share them."""

    segment: int = SEGMENT

    def slots(self, capacity: int) -> DeviceSlots:
        """See SlotModel."""
        return DeviceSlots(self, capacity)


class DeviceSlots:
    """See Slots."""

    def __init__(self, model: DeviceModel, capacity: int) -> None:
        self.capacity = capacity
        self._model = model
        self._segments = [Segment(model, size) for size in self._sizes(capacity)]

    def step(
        self, rows: Rows, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_], whole: bool
    ) -> NDArray[np.float32]:
        """See Slots."""
        parts = list(self._parts(rows))
        found = [segment.step(here, chunk[part], valid[part], reset[part]) for segment, here, part in parts]
        for segment, here, _ in parts:
            segment.commit(here, whole)
        return np.concatenate(found)

    def read(self, rows: Rows) -> State:
        """See Slots. Every slot of a segment crosses the bus, one tensor at a time: it is for snapshots."""
        spec = self._model.spec
        found = [segment.read(here) for segment, here, _ in self._parts(rows)]
        empty = tuple(np.empty((0, *t.shape), t.dtype) for t in spec.state)
        return tuple(np.concatenate(tensors) for tensors in zip(empty, *found, strict=True))

    def write(self, rows: Rows, state: Sequence[NDArray[Any]]) -> None:
        """See Slots. Every slot of a segment crosses the bus there and back."""
        for segment, here, part in self._parts(rows):
            segment.write(here, [tensor[part] for tensor in state])

    def clear(self, rows: Rows) -> None:
        """See Slots. Nothing is written: the next step of such a row resets it."""
        for segment, here, _ in self._parts(rows):
            segment.clear(here)

    def resize(self, capacity: int, rows: Rows) -> None:
        """See Slots. Segments of which nothing moves stay where they are; other states cross the bus there and back."""
        segments, first = list[Segment](), 0
        for index, size in enumerate(self._sizes(capacity)):
            moved = rows[first : first + size]
            if index < len(self._segments) and self._segments[index].size == size and _same(moved, first):
                segments.append(self._segments[index])
            else:
                segments.append(Segment(self._model, size))
                if len(moved):
                    segments[-1].write(np.arange(len(moved)), self._read_in_order(moved))
            first += size
        self._segments, self.capacity = segments, capacity

    def _read_in_order(self, rows: Rows) -> State:
        """``read`` for rows in any order."""
        order = np.argsort(rows)
        state = self.read(rows[order])
        back = np.argsort(order)
        return tuple(tensor[back] for tensor in state)

    def _sizes(self, capacity: int) -> list[int]:
        """Slots of each segment."""
        full, rest = divmod(capacity, self._model.segment)
        return [self._model.segment] * full + ([min(bucket_of(rest), self._model.segment)] if rest else [])

    def _parts(self, rows: Rows) -> Iterator[tuple[Segment, Rows, slice]]:
        """Each segment that holds some of ``rows``, these counted from its first slot, and where they are in them."""
        for index, segment in enumerate(self._segments):
            first = index * self._model.segment
            part = slice(*np.searchsorted(rows, (first, first + segment.size)))
            if part.stop > part.start:
                yield segment, rows[part] - first, part


def _same(rows: Rows, first: int) -> bool:
    return np.array_equal(rows, np.arange(first, first + len(rows)))
