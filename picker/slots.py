"""The states of many stations, a slot each, stepped some at a time: in host memory, or wherever an engine keeps them.

Shapes: B rows (stations of one call), C = 3 components, L = 64 samples a chunk, P = 3 phases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from picker.spec import PickerSpec
from picker.stepper import State, Stepper

Rows = NDArray[np.int_]
"""Slots of a call, ascending, none twice."""


class Slots(Protocol):
    """States by slot. Not safe for several threads at once."""

    capacity: int

    def step(
        self, rows: Rows, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_], whole: bool
    ) -> NDArray[np.float32]:
        """chunk (B, C, L), valid (B, C, L), reset (B,) of ``rows`` to probabilities (B, P, L); their states go on.

        ``whole`` says that no other slot is in use: then nothing need be kept of the others. Where it raises, the
        states are as they were.
        """
        ...

    def read(self, rows: Rows) -> State:
        """A copy of the states of ``rows``, on the host."""
        ...

    def write(self, rows: Rows, state: Sequence[NDArray[Any]]) -> None:
        """Put the states of ``rows``."""
        ...

    def clear(self, rows: Rows) -> None:
        """Make the states of ``rows`` those of stations that have seen nothing, whatever they hold."""
        ...

    def resize(self, capacity: int, rows: Rows) -> None:
        """Have ``capacity`` slots, the first of which are what ``rows`` are now; the others hold anything."""
        ...


@runtime_checkable
class SlotModel(Protocol):
    """A step graph that keeps the states itself."""

    @property
    def spec(self) -> PickerSpec:
        """What the graph is."""
        ...

    def slots(self, capacity: int) -> Slots:
        """So many slots, which hold anything."""
        ...


class HostSlots:
    """States in host memory, for any Stepper."""

    def __init__(self, stepper: Stepper, capacity: int) -> None:
        self.capacity = capacity
        self._stepper = stepper
        self._state, self._fresh = stepper.fresh_state(capacity), stepper.fresh_state(1)

    def step(
        self, rows: Rows, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_], whole: bool
    ) -> NDArray[np.float32]:
        """See Slots."""
        probabilities, after = self._stepper.step(chunk, valid, reset, self._gathered(rows))
        self._scatter(rows, after)
        return probabilities

    def read(self, rows: Rows) -> State:
        """See Slots."""
        return tuple(tensor[rows] for tensor in self._state)

    def write(self, rows: Rows, state: Sequence[NDArray[Any]]) -> None:
        """See Slots."""
        for tensor, new in zip(self._state, state, strict=True):
            tensor[rows] = new

    def clear(self, rows: Rows) -> None:
        """See Slots."""
        for tensor, fresh in zip(self._state, self._fresh, strict=True):
            tensor[rows] = fresh

    def resize(self, capacity: int, rows: Rows) -> None:
        """See Slots."""
        state = self._stepper.fresh_state(capacity)
        for tensor, before in zip(state, self._state, strict=True):
            tensor[: len(rows)] = before[rows]
        self._state, self.capacity = state, capacity

    def _gathered(self, rows: Rows) -> State:
        """State of ``rows``: views where they are the first ones without a hole, else copies."""
        count = len(rows)
        if rows[-1] == count - 1:
            return tuple(tensor[:count] for tensor in self._state)
        return tuple(tensor[rows] for tensor in self._state)

    def _scatter(self, rows: Rows, after: State) -> None:
        count = len(rows)
        if count == self.capacity:
            self._state = after
            return
        for tensor, new in zip(self._state, after, strict=True):
            if rows[-1] == count - 1:
                tensor[:count] = new
            else:
                tensor[rows] = new
