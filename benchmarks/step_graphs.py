"""The exported graphs that ``step_gpu.py`` compares, and the bytes that each moves between its operators."""

from __future__ import annotations

import math
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import onnx
import torch

from export.build import read_checkpoint
from export.graph import StepGraph, write_onnx
from export.precision import lowered
from picker.bundle import MODEL
from picker.model.config import preset
from picker.model.picker import Picker

FORMS = ("fp32", "fp16")
"""Precisions in which ``export build`` writes ``model.onnx``."""
VIEWS = frozenset({"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Constant"})
"""Operators that move nothing on a GPU."""
ITEM_BYTES: dict[int, int] = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.FLOAT16: 2, onnx.TensorProto.BOOL: 1}


@dataclass(frozen=True)
class Graph:
    """One graph on disk: operators, and bytes a station that its operators read and write (weights left out)."""

    path: Path
    operators: int
    moved_bytes: int


def network(name: str, checkpoint: Path | None = None) -> Picker:
    """The network of a checkpoint, or an untrained one of that preset: the time is the same."""
    if checkpoint is not None:
        return read_checkpoint(checkpoint).model.eval()
    torch.manual_seed(0)
    return Picker(preset(name)).eval()


def export_all(
    folder: Path, names: list[str], checkpoints: dict[str, Path], forms: list[str]
) -> dict[str, Future[Graph]]:
    """Begin to write every form of every preset, each in a process; futures by ``<preset> <form>``."""
    pool = ProcessPoolExecutor(max(1, min(len(names) * len(forms), 8)), mp_context=get_context("spawn"))
    begun = {
        f"{name} {form}": pool.submit(export_one, folder, name, checkpoints.get(name), form)
        for name in names
        for form in forms
    }
    pool.shutdown(wait=False)
    return begun


def export_one(folder: Path, name: str, checkpoint: Path | None, form: str) -> Graph:
    """Write one form of one preset."""
    torch.set_num_threads(1)
    path = folder / f"{name}_{form}" / MODEL
    path.parent.mkdir()
    write_onnx(lowered(network(name, checkpoint), form), path)
    written = onnx.load(path)
    return Graph(path, len(written.graph.node), moved_bytes(written))


def moved_bytes(model: onnx.ModelProto) -> int:
    """Bytes a station that the operators read and write, by the shapes that the exporter left in the graph."""
    graph = model.graph
    sizes = {value.name: _size(value) for value in (*graph.input, *graph.output, *graph.value_info)}
    return sum(
        sizes.get(name, 0) for node in graph.node if node.op_type not in VIEWS for name in (*node.input, *node.output)
    )


def _size(value: onnx.ValueInfoProto) -> int:
    """Bytes a row; nothing for what has no batch axis."""
    kind = value.type.tensor_type
    first, *rest = kind.shape.dim or [None]
    if first is None or not first.dim_param:
        return 0
    return math.prod(int(dim.dim_value) for dim in rest) * ITEM_BYTES.get(int(kind.elem_type), 8)


def floor_bytes(model: Picker, batch: int) -> int:
    """Fewest bytes of a step of ``batch`` stations: state in and out, samples, probabilities, weights in fp16."""
    graph = StepGraph(model)
    chunk, valid, reset, *state = graph.example(1)
    row = sum(t.numel() * t.element_size() for t in (chunk, valid, reset)) + chunk.numel() * 4
    row += 2 * sum(t.numel() * 4 for t in state)
    return batch * row + 2 * sum(p.numel() for p in model.parameters())
