"""Weights on disk: in 16 bits, where that loses nothing.

A float32 weight whose values are all float16 values (of a checkpoint that ``python -m export round`` has rounded) is
stored as float16 behind a Cast. Runtimes fold the cast when they load the graph, so what is computed is the same to the
last bit, at the same speed, from a file of half the size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from picker.model.checkpoint import load_picker, save_picker

LEAST_VALUES = 256
"""Smaller tensors are not worth a node."""


def store_in_16_bits(model: onnx.ModelProto) -> int:
    """Store what may be in float16, in place; returns how many tensors were."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < LEAST_VALUES or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.widen", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(casts)


def round_checkpoint(checkpoint: Path, out: Path) -> float:
    """Write the picker of ``checkpoint`` with matrices rounded to float16; returns the largest relative change.

    Vectors (norms, biases, gates) stay as they are: they are few. Raises ConfigError for what is no checkpoint.
    """
    model, provenance = load_picker(checkpoint)
    change = 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                continue
            rounded = parameter.half().float()
            change = max(change, float((rounded - parameter).norm() / parameter.norm().clamp(min=1e-30)))
            parameter.copy_(rounded)
    save_picker(out, model, {**provenance, "rounded": "float16"}, torch.float16)
    return change
