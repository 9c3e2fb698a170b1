"""ONNX Runtime's sessions on one device, the memory that they work on, and the numbers of captured graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from types import ModuleType
from typing import Any

from picker.device_buffer import Buffer, Place
from picker.spec import PickerSpec


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """The step graph, and the graph that keeps the old states of rows that were not ready."""

    spec: PickerSpec
    runtime: ModuleType
    place: Place
    step: Any
    select: Any
    cuda_graph: bool = False
    """Whether both are captured, once for each set of buffers, and replayed."""
    graphs: Iterator[int] = field(default_factory=lambda: count(1))
    """Numbers of captured graphs. None is given twice: a graph is replayed on the addresses it was captured on."""

    def run_options(self) -> Any:
        """Of one binding, which never changes; see ``cuda_graph``."""
        options = self.runtime.RunOptions()
        if self.cuda_graph:
            options.add_run_config_entry("gpu_graph_id", str(next(self.graphs)))
        return options

    def buffer(self, rows: int, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Memory of the device."""
        return Buffer(self.runtime, self.place, rows, shape, dtype)

    def state(self, rows: int) -> list[Buffer]:
        """A set of states, which hold anything."""
        return [self.buffer(rows, t.shape, t.dtype) for t in self.spec.state]
