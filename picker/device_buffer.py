"""Memory of a device, held by ONNX Runtime and bound by its address."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Place:
    """Where buffers lie, as ONNX Runtime names it: ``cuda`` and the index of a GPU, or ``cpu``."""

    kind: str = "cpu"
    index: int = 0


class Buffer:
    """Memory for so many rows of one tensor (rows, *shape); the first rows of it can be bound alone."""

    def __init__(self, runtime: ModuleType, place: Place, rows: int, shape: tuple[int, ...], dtype: Any) -> None:
        self.rows, self.shape, self.dtype, self._place = rows, shape, np.dtype(dtype), place
        self.value = runtime.OrtValue.ortvalue_from_shape_and_type((rows, *shape), self.dtype, place.kind, place.index)

    def bind(self, bind: Any, name: str, rows: int, shape: tuple[int, ...] | None = None) -> None:
        """Bind the first ``rows`` as the tensor ``name``; ``shape`` is another one of the same bytes a row."""
        size = (rows, *(self.shape if shape is None else shape))
        bind(name, self._place.kind, self._place.index, self.dtype, size, self.value.data_ptr())
