"""The engine: the model state of every station, and one call of the step graph for all stations that are ready.

Shapes: B rows (stations of one call), C = 3 components, L = 64 samples a chunk, P = 3 phases.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from picker.slots import HostSlots, SlotModel, Slots
from picker.spec import PickerSpec
from picker.stepper import State, Stepper
from streamer.chunk import Chunk, StationKey

Model = Stepper | SlotModel
"""A step graph whose states the engine keeps, or that keeps them itself."""
FIRST_CAPACITY = 8
ROOMY = 4
"""With fewer than one station in so many slots, half of the slots are given back."""


class Engine:
    """Steps stations through the graph. Each station has a slot, a row of every state array; slots grow by doubling.

    The states are on the host for a Stepper, and where the model keeps them for a SlotModel. Not safe for several
    threads at once: whoever calls ``step`` in a worker thread waits for it before the next call.
    """

    def __init__(self, model: Model, capacity: int = FIRST_CAPACITY) -> None:
        self.counts: Counter[str] = Counter()
        """``calls`` of the graph, ``steps`` of one station, ``not_finite``: those after which one starts afresh."""
        self.spec: PickerSpec = model.spec
        """What the graph is."""
        self._slots: dict[StationKey, int] = {}
        self._free = list(range(capacity))
        self._states: Slots = model.slots(capacity) if isinstance(model, SlotModel) else HostSlots(model, capacity)
        self._least = capacity

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
        self._give_back()
        slots = self._taken([chunk.station for chunk in chunks])
        if len(set(slots)) < len(slots):
            raise ValueError("two chunks of one station in one step")
        order = sorted(range(len(chunks)), key=slots.__getitem__)
        rows = np.array([slots[index] for index in order])
        probabilities = self._states.step(
            rows,
            np.stack([chunks[index].samples for index in order]),
            np.stack([chunks[index].valid for index in order]),
            np.array([chunks[index].reset for index in order]),
            whole=len(rows) == len(self._slots),
        )
        self.counts["calls"] += 1
        self.counts["steps"] += len(chunks)
        finite: NDArray[np.bool_] = np.all(np.isfinite(probabilities), axis=(1, 2))
        if not finite.all():
            probabilities = self._start_afresh(rows, finite, probabilities)
        results: list[NDArray[np.float32]] = [probabilities[0]] * len(chunks)
        for row, index in enumerate(order):
            results[index] = probabilities[row]
        return results

    def remove(self, station: StationKey) -> None:
        """Give the station's slot back; unknown stations are passed over."""
        slot = self._slots.pop(station, None)
        if slot is not None:
            heapq.heappush(self._free, slot)

    def saved(self) -> tuple[list[StationKey], State]:
        """The stations that hold a slot and a copy of their states, in the same order; for a snapshot."""
        stations = sorted(self._slots, key=self._slots.__getitem__)
        return stations, self._states.read(np.array([self._slots[station] for station in stations], dtype=np.int_))

    def restore(self, stations: Sequence[StationKey], state: Sequence[NDArray[np.float32]]) -> None:
        """Take up ``stations`` with the states ``saved`` gave. Raises ValueError where they are another graph's."""
        wanted = [(t.shape, np.dtype(t.dtype)) for t in self.spec.state]
        if wanted != [(tensor.shape[1:], tensor.dtype) for tensor in state]:
            raise ValueError("its model states are not those of this bundle")
        slots = np.array(self._taken(stations), dtype=np.int_)
        order = np.argsort(slots)
        self._states.write(slots[order], [tensor[order] for tensor in state])

    def _taken(self, stations: Sequence[StationKey]) -> list[int]:
        """The slot of each station; those that had none get one, and are fresh."""
        new = [station for station in dict.fromkeys(stations) if station not in self._slots]
        while len(self._free) < len(new):
            old = self.capacity
            self._states.resize(2 * old, np.arange(old))
            self._free += range(old, 2 * old)
        for station in new:
            self._slots[station] = heapq.heappop(self._free)
        if new:
            self._states.clear(np.array(sorted(self._slots[station] for station in new)))
        return [self._slots[station] for station in stations]

    def _give_back(self) -> None:
        """Halve the slots where most are free: stations that are left move to the first ones."""
        capacity = self.capacity
        while capacity > self._least and ROOMY * len(self._slots) < capacity:
            capacity //= 2
        if capacity == self.capacity:
            return
        stations = sorted(self._slots, key=self._slots.__getitem__)
        self._states.resize(capacity, np.array([self._slots[station] for station in stations], dtype=np.int_))
        self._slots = {station: slot for slot, station in enumerate(stations)}
        self._free = list(range(len(stations), capacity))

    def _start_afresh(
        self, rows: NDArray[np.int_], finite: NDArray[np.bool_], probabilities: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """``probabilities`` whose rows that are not finite are NaN throughout; their states become fresh."""
        self.counts["not_finite"] += int((~finite).sum())
        self._states.clear(rows[~finite])
        return np.where(finite[:, None, None], probabilities, np.float32(np.nan))
