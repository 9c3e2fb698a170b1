"""The CUDA runtime, as much of it as an engine needs, through NVIDIA's ``cuda-bindings``: the driver boundary.

Everything that speaks to the driver is in this file; all else can run on a machine without a GPU.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from picker.errors import ConfigError
from picker.tensorrt import Gpu


class Device(Protocol):
    """Memory of a device and one stream, in whose order all that follows happens."""

    stream: int

    def allocate(self, size_bytes: int) -> int:
        """Address of so many bytes."""
        ...

    def upload(self, address: int, values: NDArray[Any]) -> None:
        """Begin to copy contiguous ``values`` to the device."""
        ...

    def download(self, values: NDArray[Any], address: int) -> None:
        """Begin to fill contiguous ``values`` from the device; they hold after ``wait``."""
        ...

    def wait(self) -> None:
        """Until all that was begun is done."""
        ...

    def close(self) -> None:
        """Give all memory back."""
        ...


class CudaError(RuntimeError):
    """A call of the CUDA runtime failed while it was in use."""


def _runtime() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError as error:
        raise ConfigError("cuda-bindings is not installed: pip install 'onset[tensorrt]' or 'onset[rtx]'") from error


def _checked(answer: tuple[Any, ...]) -> Any:
    """The result of a call, without its status; raises CudaError unless that is success."""
    status, *rest = answer
    if int(status) != 0:
        raise CudaError(f"CUDA: {status.name}")
    return rest[0] if len(rest) == 1 else tuple(rest)


def present_gpu(index: int = 0) -> Gpu:
    """The GPU of this machine; raises ConfigError where there is none that can be used."""
    runtime = _runtime()
    try:
        count = _checked(runtime.cudaGetDeviceCount())
        if index >= count:
            raise CudaError(f"GPU {index} of {count}")
        found = _checked(runtime.cudaGetDeviceProperties(index))
    except CudaError as error:
        raise ConfigError(f"no NVIDIA GPU can be used here ({error}); check the driver with nvidia-smi") from error
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    return Gpu(capability=(int(found.major), int(found.minor)), name=name.rstrip("\0"))


class CudaDevice:
    """A GPU and one stream on it; see Device."""

    def __init__(self, index: int = 0) -> None:
        self._runtime = _runtime()
        _checked(self._runtime.cudaSetDevice(index))
        handle = _checked(self._runtime.cudaStreamCreateWithFlags(self._runtime.cudaStreamNonBlocking))
        self.stream = int(handle)
        self._handle, self._addresses = handle, list[int]()
        self._held: list[NDArray[Any]] = []
        """Arrays that a copy may still read or fill."""

    def allocate(self, size_bytes: int) -> int:
        """See Device."""
        address = int(_checked(self._runtime.cudaMalloc(size_bytes)))
        self._addresses.append(address)
        return address

    def upload(self, address: int, values: NDArray[Any]) -> None:
        """See Device."""
        source = np.ascontiguousarray(values)
        self._copy(address, source.ctypes.data, source, self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def download(self, values: NDArray[Any], address: int) -> None:
        """See Device."""
        self._copy(values.ctypes.data, address, values, self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def _copy(self, target: int, source: int, host: NDArray[Any], kind: Any) -> None:
        self._held.append(host)
        _checked(self._runtime.cudaMemcpyAsync(target, source, host.nbytes, kind, self._handle))

    def wait(self) -> None:
        """See Device."""
        _checked(self._runtime.cudaStreamSynchronize(self._handle))
        self._held.clear()

    def close(self) -> None:
        """See Device."""
        for address in self._addresses:
            _checked(self._runtime.cudaFree(address))
        self._addresses.clear()
        _checked(self._runtime.cudaStreamDestroy(self._handle))
