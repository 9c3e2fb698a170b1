"""The engine: the model state of every station, and one call of the step graph for all stations that are ready.

Shapes: B rows (stations of one call), C = 3 components, L = 64 samples a chunk, P = 3 phases.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from picker.spec import PickerSpec
from picker.stepper import State, Stepper
from streamer.chunk import Chunk, StationKey

FIRST_CAPACITY = 8


class Engine:
    """Steps stations through the graph. Each station has a slot, a row of every state array; slots grow by doubling.

    Not safe for several threads at once: whoever calls ``step`` in a worker thread waits for it before the next call.
    """

    def __init__(self, stepper: Stepper, capacity: int = FIRST_CAPACITY) -> None:
        self.counts: Counter[str] = Counter()
        """``calls`` of the graph, ``steps`` of one station, ``not_finite``: those after which one starts afresh."""
        self._stepper = stepper
        self._slots: dict[StationKey, int] = {}
        self._free = list(range(capacity))
        self._state = stepper.fresh_state(capacity)
        self._fresh = stepper.fresh_state(1)

    @property
    def spec(self) -> PickerSpec:
        """What the graph is."""
        return self._stepper.spec

    @property
    def stations(self) -> int:
        """Stations that hold a slot."""
        return len(self._slots)

    @property
    def capacity(self) -> int:
        """Slots there are."""
        return len(self._slots) + len(self._free)

    def step(self, chunks: Sequence[Chunk]) -> list[NDArray[np.float32]]:
        """Probabilities (P, L) of each chunk, in the order of ``chunks``, which hold at most one of a station.

        A station seen for the first time gets a fresh slot. Where the graph yields a probability that is not finite,
        that station alone starts afresh: its probabilities are NaN throughout, its state that of a new station.
        Raises ValueError for two chunks of one station.
        """
        if not chunks:
            return []
        slots = [self._slot(chunk.station) for chunk in chunks]
        if len(set(slots)) < len(slots):
            raise ValueError("two chunks of one station in one step")
        order = sorted(range(len(chunks)), key=slots.__getitem__)
        rows = np.array([slots[index] for index in order])
        probabilities, after = self._stepper.step(
            np.stack([chunks[index].samples for index in order]),
            np.stack([chunks[index].valid for index in order]),
            np.array([chunks[index].reset for index in order]),
            self._gathered(rows),
        )
        self._scatter(rows, after)
        self.counts["calls"] += 1
        self.counts["steps"] += len(chunks)
        results: list[NDArray[np.float32]] = [probabilities[0]] * len(chunks)
        finite: NDArray[np.bool_] = np.all(np.isfinite(probabilities), axis=(1, 2))
        for row, index in enumerate(order):
            results[index] = probabilities[row] if finite[row] else self._start_afresh(slots[index])
        return results

    def remove(self, station: StationKey) -> None:
        """Give the station's slot back; unknown stations are passed over."""
        slot = self._slots.pop(station, None)
        if slot is not None:
            heapq.heappush(self._free, slot)

    def saved(self) -> tuple[list[StationKey], State]:
        """The stations that hold a slot and a copy of their states, in the same order; for a snapshot."""
        rows = np.array(list(self._slots.values()), dtype=np.int_)
        return list(self._slots), tuple(tensor[rows] for tensor in self._state)

    def restore(self, stations: Sequence[StationKey], state: Sequence[NDArray[np.float32]]) -> None:
        """Take up ``stations`` with the states ``saved`` gave. Raises ValueError where they are another graph's."""
        wanted = [(fresh.shape[1:], fresh.dtype) for fresh in self._fresh]
        if wanted != [(tensor.shape[1:], tensor.dtype) for tensor in state]:
            raise ValueError("its model states are not those of this bundle")
        rows = np.array([self._slot(station) for station in stations], dtype=np.int_)
        for tensor, before in zip(self._state, state, strict=True):
            tensor[rows] = before

    def _slot(self, station: StationKey) -> int:
        if station not in self._slots:
            if not self._free:
                self._grow()
            slot = heapq.heappop(self._free)
            self._clear(slot)
            self._slots[station] = slot
        return self._slots[station]

    def _grow(self) -> None:
        old = self.capacity
        grown = self._stepper.fresh_state(2 * old)
        for tensor, before in zip(grown, self._state, strict=True):
            tensor[:old] = before
        self._state = grown
        self._free = list(range(old, 2 * old))

    def _clear(self, slot: int) -> None:
        for tensor, fresh in zip(self._state, self._fresh, strict=True):
            tensor[slot] = fresh[0]

    def _gathered(self, rows: NDArray[np.int_]) -> State:
        """State of ``rows`` (ascending): views where they are the first ones without a hole, else copies."""
        count = len(rows)
        if rows[-1] == count - 1:
            return tuple(tensor[:count] for tensor in self._state)
        return tuple(tensor[rows] for tensor in self._state)

    def _scatter(self, rows: NDArray[np.int_], after: State) -> None:
        count = len(rows)
        if count == self.capacity:
            self._state = after
            return
        for tensor, new in zip(self._state, after, strict=True):
            if rows[-1] == count - 1:
                tensor[:count] = new
            else:
                tensor[rows] = new

    def _start_afresh(self, slot: int) -> NDArray[np.float32]:
        self.counts["not_finite"] += 1
        self._clear(slot)
        return np.full((len(self.spec.phases), self.spec.chunk_samples), np.nan, dtype=np.float32)
