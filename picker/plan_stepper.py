"""The step graph as a TensorRT plan: tensors bound by name, state resident on the device in two sets that take turns.

A step reads one set of state and writes the other, so that nothing it reads is overwritten while it runs, and a step
that failed can be made again. Outputs are read after the stream has been waited for, never before.

Shapes: B rows (stations), C = 3 components, L = 64 samples a chunk, P = 3 phases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from picker.bundle import Bundle
from picker.cuda import CudaDevice, Device, present_gpu
from picker.errors import BundleError
from picker.plan import FOLDER, find_plan, plan_key
from picker.spec import PickerSpec
from picker.stepper import INPUTS, State, state_input, state_output
from picker.tensorrt import Library, library

Types = Callable[[Any], DTypeLike]
"""From a library's data type to NumPy's."""


class PlanSession:
    """A deserialised engine with its buffers for ``most_rows`` rows; row k of the state stays row k from step to step.

    ``engine`` is a TensorRT ICudaEngine, or what behaves like one. Not safe for several threads at once.
    """

    def __init__(self, spec: PickerSpec, engine: Any, types: Types, device: Device, most_rows: int) -> None:
        self.spec, self.most_rows = spec, most_rows
        _check_tensors(spec, engine, types)
        self._engine, self._device = engine, device  # the engine must outlive its context
        self._context = engine.create_execution_context()
        if self._context is None:
            raise BundleError("TensorRT cannot prepare the plan to run: is the GPU's memory full?")
        shapes = {name: shape for name, (shape, _) in _inputs(spec).items() if name in INPUTS}
        sizes = {"chunk": 4, "valid": 1, "reset": 1}
        self._shapes = shapes
        self._address = {name: device.allocate(most_rows * _bytes(shapes[name], sizes[name])) for name in INPUTS}
        phases = (len(spec.phases), spec.chunk_samples)
        self._address["probabilities"] = device.allocate(most_rows * _bytes(phases, 4))
        self._sets = [[device.allocate(most_rows * t.size_bytes) for t in spec.state] for _ in range(2)]
        self._turn = 0

    def load(self, state: State) -> None:
        """Take ``state`` as that of the first rows."""
        for address, values in zip(self._sets[self._turn], state, strict=True):
            self._device.upload(address, values)
        self._device.wait()

    def state(self, rows: int) -> State:
        """The state of the first ``rows`` rows, copied."""
        copies = tuple(np.empty((rows, *t.shape), t.dtype) for t in self.spec.state)
        for address, values in zip(self._sets[self._turn], copies, strict=True):
            self._device.download(values, address)
        self._device.wait()
        return copies

    def step(
        self, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Probabilities (B, P, L) of the first B rows, whose state goes on; shapes as in Stepper.

        Raises ValueError for more rows than the plan was opened for, RuntimeError where the engine fails; the state is
        then as it was.
        """
        rows = len(chunk)
        if not 1 <= rows <= self.most_rows:
            raise ValueError(f"{rows} rows in one step; the plan was opened for 1 to {self.most_rows}")
        given = {"chunk": (chunk, np.float32), "valid": (valid, np.bool_), "reset": (reset, np.bool_)}
        for name, (values, dtype) in given.items():
            self._device.upload(self._address[name], np.ascontiguousarray(values, dtype))
            self._bind(name, self._address[name], (rows, *self._shapes[name]))
        self._bind("probabilities", self._address["probabilities"])
        before, after = self._sets[self._turn], self._sets[1 - self._turn]
        for tensor, source, target in zip(self.spec.state, before, after, strict=True):
            self._bind(state_input(tensor.name), source, (rows, *tensor.shape))
            self._bind(state_output(tensor.name), target)
        if not self._context.execute_async_v3(self._device.stream):
            raise RuntimeError("TensorRT could not run the step")
        out = np.empty((rows, len(self.spec.phases), self.spec.chunk_samples), np.float32)
        self._device.download(out, self._address["probabilities"])
        self._device.wait()
        self._turn = 1 - self._turn
        return out

    def close(self) -> None:
        """Give context and memory back."""
        self._context = None
        self._device.close()

    def _bind(self, name: str, address: int, shape: tuple[int, ...] | None = None) -> None:
        if shape is not None and not self._context.set_input_shape(name, shape):
            raise ValueError(f"the plan's profile does not hold {name} of shape {shape}")
        if not self._context.set_tensor_address(name, address):
            raise RuntimeError(f"TensorRT does not take the address of {name}")


class TensorRtStepper:
    """A Stepper on a PlanSession: the state comes from the caller and goes back to it, as with ONNX Runtime.

    For proofs and comparisons. A daemon that leaves the state on the device uses PlanSession itself.
    """

    def __init__(self, session: PlanSession) -> None:
        self.spec, self._session = session.spec, session

    def fresh_state(self, rows: int) -> State:
        """Zeros: the graph treats an all-zero state as fresh."""
        return tuple(np.zeros((rows, *t.shape), dtype=t.dtype) for t in self.spec.state)

    def step(
        self, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """See Stepper. More rows than the plan holds are stepped in parts: rows do not know of each other."""
        parts = []
        for first in range(0, len(chunk), self._session.most_rows):
            here = slice(first, first + self._session.most_rows)
            self._session.load(tuple(tensor[here] for tensor in state))
            found = self._session.step(chunk[here], valid[here], reset[here])
            parts.append((found, self._session.state(len(found))))
        probabilities = np.concatenate([part for part, _ in parts])
        return probabilities, tuple(np.concatenate(tensors) for tensors in zip(*(s for _, s in parts), strict=True))


def open_session(
    bundle: Bundle,
    *,
    cache: Path | None = None,
    name: str | None = None,
    tf32: bool = False,
    rows: int | None = None,
    device: int = 0,
) -> PlanSession:
    """The bundle's plan for GPU ``device`` of this machine, ready to run.

    ``cache`` is the folder of plans, ``name`` the library, ``rows`` the most rows of a step (those of the plan's
    profile). Raises ConfigError where library or GPU is missing, BundleError where there is no plan for them.
    """
    found = library(name)
    gpu = present_gpu(device)
    plan = find_plan(cache or bundle.folder / FOLDER, plan_key(bundle, found, gpu, tf32))
    engine = deserialised(found, plan.content, str(bundle.folder))
    most = plan.batch[2] if rows is None else min(rows, plan.batch[2])
    return PlanSession(bundle.spec, engine, found.module.nptype, CudaDevice(device), most)


def deserialised(found: Library, content: bytes, place: str) -> Any:
    """The engine of a plan's bytes; raises BundleError with the library's own words."""
    found.said.clear()
    runtime = found.module.Runtime(found.logger)
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise BundleError(
            f"{place}: {found.name} {found.version} cannot open the plan here ({found.complaints()}); build it again "
            "with `python -m export plan`"
        )
    return engine


def _inputs(spec: PickerSpec) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    samples = (len(spec.components), spec.chunk_samples)
    wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        "chunk": (samples, np.dtype(np.float32)),
        "valid": (samples, np.dtype(np.bool_)),
        "reset": ((), np.dtype(np.bool_)),
    }
    return wanted | {state_input(t.name): (t.shape, np.dtype(t.dtype)) for t in spec.state}


def _check_tensors(spec: PickerSpec, engine: Any, types: Types) -> None:
    """Raise BundleError where the plan's tensors are not those that the specification names."""
    wanted = _inputs(spec) | {state_output(t.name): (t.shape, np.dtype(t.dtype)) for t in spec.state}
    wanted["probabilities"] = ((len(spec.phases), spec.chunk_samples), np.dtype(np.float32))
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {
        name: (tuple(engine.get_tensor_shape(name))[1:], np.dtype(types(engine.get_tensor_dtype(name))))
        for name in names
    }
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise BundleError(
                f"the plan's tensor {name!r} is {found.get(name, 'absent')}, and {wanted.get(name, 'absent')} in "
                "spec.json (batch axis left out); build the plan again with `python -m export plan`"
            )


def _bytes(shape: tuple[int, ...], size: int) -> int:
    return math.prod(shape) * size
