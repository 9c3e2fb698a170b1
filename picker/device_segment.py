"""Some thousand slots with their two sets of states, stepped together, and the buffers of each size of a step.

Shapes: B rows (stations of one call), N slots of a bucket, C = 3 components, L = 64 samples a chunk, P = 3 phases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.device_buffer import Buffer
from picker.device_sessions import Sessions
from picker.selection import kept_tensor, new_tensor, old_tensor, ready_shapes
from picker.slots import Rows
from picker.stepper import State, state_input, state_output

LEAST_BUCKET = 16
"""Slots of the smallest step; each further one has twice as many."""


class Segment:
    """Slots whose states are on the device. A step is two halves, so that several segments go on together or not."""

    def __init__(self, sessions: Sessions, size: int) -> None:
        self.size = size
        self._sessions, self._buckets = sessions, dict[int, Bucket]()
        self._fresh = np.ones(size, np.bool_)
        """Slots of stations that have seen nothing, whatever lies in them: their next step resets them."""
        self._sets = (sessions.state(size), sessions.state(size))
        self._turn = 0
        """Which set holds the states."""

    def step(
        self, rows: Rows, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """See Slots; the states do not go on before ``commit``."""
        return self._bucket(rows).step(self._turn, rows, chunk, valid, reset | self._fresh[rows])

    def commit(self, rows: Rows, whole: bool) -> None:
        """Take up the states that the last step of ``rows`` left; ``whole`` as in Slots."""
        if whole:
            self._turn = 1 - self._turn
        else:
            self._bucket(rows).select(self._turn, rows)
        self._fresh[rows] = False

    def read(self, rows: Rows) -> State:
        """See Slots."""
        fresh = self._fresh[rows]
        state = tuple(buffer.value.numpy()[rows] for buffer in self._sets[self._turn])
        for tensor in state:
            tensor[fresh] = 0
        return state

    def write(self, rows: Rows, state: Sequence[NDArray[Any]]) -> None:
        """See Slots."""
        for buffer, values in zip(self._sets[self._turn], state, strict=True):
            held = np.array(buffer.value.numpy())
            held[rows] = values
            buffer.value.update_inplace(held)
        self._fresh[rows] = False

    def clear(self, rows: Rows) -> None:
        """See Slots."""
        self._fresh[rows] = True

    def _bucket(self, rows: Rows) -> Bucket:
        size = min(bucket_of(int(rows[-1]) + 1), self.size)
        if size not in self._buckets:
            self._buckets[size] = Bucket(self._sessions, size, self._sets)
        return self._buckets[size]


class Bucket:
    """Steps of exactly ``size`` slots on buffers that never move, so that ONNX Runtime can replay them as CUDA graphs.

    A slot that is not in the call is stepped too, on what samples the last call left it; no one reads what it yields.
    """

    def __init__(self, sessions: Sessions, size: int, sets: tuple[list[Buffer], list[Buffer]]) -> None:
        spec = sessions.spec
        samples = (len(spec.components), spec.chunk_samples)
        self._sessions = sessions
        self._given = {
            "chunk": sessions.buffer(size, samples, np.float32),
            "valid": sessions.buffer(size, samples, np.bool_),
            "reset": sessions.buffer(size, (), np.bool_),
        }
        self._ready = sessions.buffer(size, (), np.bool_)
        self._host = {name: np.zeros((size, *buffer.shape), buffer.dtype) for name, buffer in self._given.items()}
        self._found = sessions.buffer(size, (len(spec.phases), spec.chunk_samples), np.float32)
        self._steps = [(self._step_bound(size, sets[k], sets[1 - k]), sessions.run_options()) for k in range(2)]
        self._selects = [(self._select_bound(size, sets[k], sets[1 - k]), sessions.run_options()) for k in range(2)]

    def step(
        self, turn: int, rows: Rows, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Probabilities (B, P, L) of ``rows``; the next states of all slots go to the other set than ``turn``."""
        self._host["reset"][:] = True  # rows that have no data: what they hold cannot grow
        for name, values in (("chunk", chunk), ("valid", valid), ("reset", reset)):
            self._host[name][rows] = values
            self._given[name].value.update_inplace(self._host[name])
        self._sessions.step.run_with_iobinding(*self._steps[turn])
        found: NDArray[np.float32] = self._found.value.numpy()[rows]
        return found

    def select(self, turn: int, rows: Rows) -> None:
        """Put the next states of ``rows`` into the set ``turn``, beside the old ones of the others."""
        ready = np.zeros(self._ready.rows, np.bool_)
        ready[rows] = True
        self._ready.value.update_inplace(ready)
        self._sessions.select.run_with_iobinding(*self._selects[turn])

    def _step_bound(self, size: int, before: list[Buffer], after: list[Buffer]) -> Any:
        binding = self._sessions.step.io_binding()
        for name, buffer in self._given.items():
            buffer.bind(binding.bind_input, name, size)
        self._found.bind(binding.bind_output, "probabilities", size)
        for tensor, source, target in zip(self._sessions.spec.state, before, after, strict=True):
            source.bind(binding.bind_input, state_input(tensor.name), size)
            target.bind(binding.bind_output, state_output(tensor.name), size)
        return binding

    def _select_bound(self, size: int, before: list[Buffer], after: list[Buffer]) -> Any:
        binding = self._sessions.select.io_binding()
        for name, shape in ready_shapes(self._sessions.spec).items():
            self._ready.bind(binding.bind_input, name, size, shape)
        for tensor, old, new in zip(self._sessions.spec.state, before, after, strict=True):
            old.bind(binding.bind_input, old_tensor(tensor.name), size)
            new.bind(binding.bind_input, new_tensor(tensor.name), size)
            old.bind(binding.bind_output, kept_tensor(tensor.name), size)
        return binding


def bucket_of(slots: int) -> int:
    """Slots of the smallest bucket that holds so many."""
    size = LEAST_BUCKET
    while size < slots:
        size *= 2
    return size
