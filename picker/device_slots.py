"""States that stay in the memory of a device, in slots, stepped by ONNX Runtime with I/O binding.

What crosses the bus in a step is chunk, valid and reset in, and probabilities out. There are two ways through a step:

- Where the rows of a call are all slots in use, the graph reads one set of slots and writes the other, and the two
  change places: nothing is copied.
- Else the rows are gathered into a working set, stepped from there into a second one, and scattered back, all on the
  device.

The graph never reads what it writes, so that a step which failed, or which ONNX Runtime makes several times to capture
a CUDA graph, finds the state as it was. All of it works with ONNX Runtime's CPU provider too, where "device" is the
host: so it is tested.

Shapes: B rows (stations of one call), S slots, C = 3 components, L = 64 samples a chunk, P = 3 phases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.rows_graph import gather_graph, kept_tensor, row_tensor, scatter_graph, slot_tensor
from picker.slots import Rows
from picker.spec import PickerSpec
from picker.stepper import State, state_input, state_output

LEAST_BUCKET = 16
"""Rows of the smallest captured step; each further one has twice as many."""


@dataclass(frozen=True)
class Place:
    """Where buffers lie, as ONNX Runtime names it: ``cuda`` and the index of a GPU, or ``cpu``."""

    kind: str = "cpu"
    index: int = 0


class Buffer:
    """Memory of a device for so many rows of one tensor; the first rows of it can be bound alone."""

    def __init__(self, runtime: ModuleType, place: Place, rows: int, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype, self._place = shape, np.dtype(dtype), place
        self.value = runtime.OrtValue.ortvalue_from_shape_and_type((rows, *shape), self.dtype, place.kind, place.index)

    def bind(self, bind: Any, name: str, rows: int) -> None:
        """Bind the first ``rows`` as the tensor ``name``."""
        address = self.value.data_ptr()
        bind(name, self._place.kind, self._place.index, self.dtype, (rows, *self.shape), address)


@dataclass(frozen=True, kw_only=True)
class DeviceModel:
    """Sessions on one device: the step graph, and the two that move rows. Any number of ``slots`` may share them."""

    spec: PickerSpec
    runtime: ModuleType
    place: Place
    step: Any
    gather: Any
    scatter: Any
    cuda_graph: bool = False
    """Whether the step is captured, for each of some numbers of rows, and replayed."""

    def slots(self, capacity: int) -> DeviceSlots:
        """See SlotModel."""
        return DeviceSlots(self, capacity)


def row_sessions(runtime: ModuleType, spec: PickerSpec, options: Any, providers: Sequence[Any]) -> tuple[Any, Any]:
    """The sessions that gather rows and put them back."""
    gather, scatter = (
        runtime.InferenceSession(graph, options, providers=list(providers))
        for graph in (gather_graph(spec), scatter_graph(spec))
    )
    return gather, scatter


class DeviceSlots:
    """See Slots."""

    def __init__(self, model: DeviceModel, capacity: int) -> None:
        self.capacity = capacity
        self._model, self._captured = model, dict[int, Captured]()
        self._set = self._state_buffers(capacity)
        self._other: list[Buffer] = []
        """The second set of slots, once a step of all stations wants it."""
        self._work: tuple[list[Buffer], list[Buffer]] = ([], [])
        self._work_rows = 0

    def step(
        self, rows: Rows, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_], whole: bool
    ) -> NDArray[np.float32]:
        """See Slots."""
        count, given = len(rows), {"chunk": chunk, "valid": valid, "reset": reset}
        if whole and not self._model.cuda_graph:
            self._other = self._other or self._state_buffers(self.capacity)
            found = self._run(given, count, self._set, self._other)
            self._set, self._other = self._other, self._set
            return found
        if self._model.cuda_graph:
            work = self._bucket(count)
            self._gather(rows, work.before)
            found = work.run(given, count)
            self._scatter(rows, work.after)
            return found
        before, after = self._working(count)
        self._gather(rows, before)
        found = self._run(given, count, before, after)
        self._scatter(rows, after)
        return found

    def read(self, rows: Rows) -> State:
        """See Slots."""
        if not len(rows):
            return tuple(np.empty((0, *t.shape), t.dtype) for t in self._model.spec.state)
        part = self._state_buffers(len(rows))
        self._gather(rows, part)
        return tuple(buffer.value.numpy() for buffer in part)

    def write(self, rows: Rows, state: Sequence[NDArray[Any]]) -> None:
        """See Slots."""
        if not len(rows):
            return
        part = self._state_buffers(len(rows))
        for buffer, values in zip(part, state, strict=True):
            buffer.value.update_inplace(np.ascontiguousarray(values, buffer.dtype))
        self._scatter(rows, part)

    def clear(self, rows: Rows) -> None:
        """See Slots."""
        self.write(rows, [np.zeros((len(rows), *t.shape), t.dtype) for t in self._model.spec.state])

    def resize(self, capacity: int, rows: Rows) -> None:
        """See Slots."""
        grown = self._state_buffers(capacity)
        if len(rows):
            self._gather(rows, grown)
        self._set, self._other, self.capacity = grown, [], capacity

    def _run(
        self, given: Mapping[str, NDArray[Any]], rows: int, before: list[Buffer], after: list[Buffer]
    ) -> NDArray[np.float32]:
        binding = self._model.step.io_binding()
        for name, values in given.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(values))
        binding.bind_output("probabilities", "cpu")
        _bind_state(binding, self._model.spec, rows, before, after)
        self._model.step.run_with_iobinding(binding)
        found: NDArray[np.float32] = binding.get_outputs()[0].numpy()
        return found

    def _gather(self, rows: Rows, into: list[Buffer]) -> None:
        binding = self._model.gather.io_binding()
        binding.bind_cpu_input("index", np.ascontiguousarray(rows, np.int64))
        for tensor, source, target in zip(self._model.spec.state, self._set, into, strict=True):
            source.bind(binding.bind_input, slot_tensor(tensor.name), self.capacity)
            target.bind(binding.bind_output, row_tensor(tensor.name), len(rows))
        self._model.gather.run_with_iobinding(binding)

    def _scatter(self, rows: Rows, part: list[Buffer]) -> None:
        binding = self._model.scatter.io_binding()
        binding.bind_cpu_input("index", np.ascontiguousarray(rows, np.int64)[:, None])
        for tensor, source, target in zip(self._model.spec.state, part, self._set, strict=True):
            target.bind(binding.bind_input, slot_tensor(tensor.name), self.capacity)
            source.bind(binding.bind_input, row_tensor(tensor.name), len(rows))
            target.bind(binding.bind_output, kept_tensor(tensor.name), self.capacity)
        self._model.scatter.run_with_iobinding(binding)

    def _working(self, rows: int) -> tuple[list[Buffer], list[Buffer]]:
        if rows > self._work_rows:
            self._work = (self._state_buffers(rows), self._state_buffers(rows))
            self._work_rows = rows
        return self._work

    def _bucket(self, rows: int) -> Captured:
        size = LEAST_BUCKET
        while size < rows:
            size *= 2
        if size not in self._captured:
            self._captured[size] = Captured(self._model, size, self._state_buffers(size), self._state_buffers(size))
        return self._captured[size]

    def _state_buffers(self, rows: int) -> list[Buffer]:
        model = self._model
        return [Buffer(model.runtime, model.place, rows, t.shape, t.dtype) for t in model.spec.state]


class Captured:
    """A step of exactly ``rows`` rows on buffers that never move, so that ONNX Runtime can replay it as a CUDA graph.

    A call of fewer stations is filled up with rows that start afresh and see nothing; no one reads what they yield.
    """

    def __init__(self, model: DeviceModel, rows: int, before: list[Buffer], after: list[Buffer]) -> None:
        self.before, self.after = before, after
        spec = model.spec
        samples = (len(spec.components), spec.chunk_samples)
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "chunk": (samples, np.float32),
            "valid": (samples, np.bool_),
            "reset": ((), np.bool_),
        }
        self._host: dict[str, NDArray[Any]] = {
            name: np.zeros((rows, *shape), dtype) for name, (shape, dtype) in shapes.items()
        }
        self._given = {
            name: Buffer(model.runtime, model.place, rows, shape, dtype) for name, (shape, dtype) in shapes.items()
        }
        self._found = Buffer(model.runtime, model.place, rows, (len(spec.phases), spec.chunk_samples), np.float32)
        self._session, self._binding = model.step, model.step.io_binding()
        self._options = model.runtime.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(rows))
        for name, buffer in self._given.items():
            buffer.bind(self._binding.bind_input, name, rows)
        self._found.bind(self._binding.bind_output, "probabilities", rows)
        _bind_state(self._binding, spec, rows, before, after)

    def run(self, given: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.float32]:
        """Probabilities of the first ``count`` rows, whose states are in ``before`` and then in ``after``."""
        for name, host in self._host.items():
            host[:count] = given[name]
            host[count:] = name == "reset"
            self._given[name].value.update_inplace(host)
        self._session.run_with_iobinding(self._binding, self._options)
        found: NDArray[np.float32] = self._found.value.numpy()[:count]
        return found


def _bind_state(binding: Any, spec: PickerSpec, rows: int, before: list[Buffer], after: list[Buffer]) -> None:
    for tensor, source, target in zip(spec.state, before, after, strict=True):
        source.bind(binding.bind_input, state_input(tensor.name), rows)
        target.bind(binding.bind_output, state_output(tensor.name), rows)
