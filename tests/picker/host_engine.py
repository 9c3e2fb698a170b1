"""A GPU in host memory: addresses, a stream that does nothing until it is waited for, and an engine that runs ONNX.

It stands where the driver and TensorRT's runtime stand, for machines without a GPU: what is bound to which address, and
when outputs may be read, is as it is there; the numbers come from ONNX Runtime.
"""

# ruff: noqa: D102 - each method does what its namesake of CUDA or TensorRT does

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.bundle import Bundle
from picker.runtime import onnxruntime

TYPES = {"tensor(float)": np.float32, "tensor(bool)": np.bool_}


class HostDevice:
    """See picker.cuda.Device. ``broken`` makes the next run of an engine fail."""

    stream = 7

    def __init__(self) -> None:
        self.buffers: dict[int, NDArray[np.uint8]] = {}
        self.queue: list[Callable[[], None]] = []

    def allocate(self, size_bytes: int) -> int:
        buffer = np.full(size_bytes, 0xFF, np.uint8)  # memory of a device is not zero
        self.buffers[buffer.ctypes.data] = buffer
        return int(buffer.ctypes.data)

    def upload(self, address: int, values: NDArray[Any]) -> None:
        assert values.flags.c_contiguous
        assert values.nbytes <= len(self.buffers[address])
        self.queue.append(lambda: void(ctypes.memmove(address, values.ctypes.data, values.nbytes)))

    def download(self, values: NDArray[Any], address: int) -> None:
        assert values.flags.c_contiguous
        assert values.nbytes <= len(self.buffers[address])
        self.queue.append(lambda: void(ctypes.memmove(values.ctypes.data, address, values.nbytes)))

    def wait(self) -> None:
        queue, self.queue = self.queue, []
        for task in queue:
            task()

    def close(self) -> None:
        self.buffers.clear()


def void(result: object) -> None:
    """Nothing."""


class HostEngine:
    """What PlanSession asks of a TensorRT ICudaEngine, for rows up to ``most``."""

    def __init__(self, bundle: Bundle, device: HostDevice, most: int) -> None:
        self.session = onnxruntime().InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
        self.device, self.most, self.fails = device, most, False
        self.nodes = {node.name: node for node in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.num_io_tensors = len(self.nodes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.nodes)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.nodes[name].shape[1:])

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.nodes[name].type)

    def create_execution_context(self) -> HostContext:
        return HostContext(self)


class HostContext:
    """What PlanSession asks of an IExecutionContext."""

    def __init__(self, engine: HostEngine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return name in self.engine.nodes and 1 <= shape[0] <= self.engine.most

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.nodes

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == self.engine.device.stream
        if self.engine.fails:
            return False
        assert self.addresses.keys() == self.engine.nodes.keys()
        assert len(set(self.addresses.values())) == len(self.addresses), "a tensor overwrites another"
        self.engine.device.queue.append(self._run)
        return True

    def _run(self) -> None:
        feed = {name: self._at(name, shape) for name, shape in self.shapes.items()}
        names = [node.name for node in self.engine.session.get_outputs()]
        for name, values in zip(names, self.engine.session.run(names, feed), strict=True):
            ctypes.memmove(self.addresses[name], np.ascontiguousarray(values).ctypes.data, values.nbytes)

    def _at(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        dtype = np.dtype(TYPES[self.engine.nodes[name].type])
        size = int(np.prod(shape)) * dtype.itemsize
        return self.engine.device.buffers[self.addresses[name]][:size].view(dtype).reshape(shape)
