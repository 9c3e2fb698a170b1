"""The step graph: one chunk of 64 samples with its state, as flat tensors in and out, and its translation to ONNX."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from onnxscript import opset20 as op
from torch import Tensor, nn

from export.storage import store_in_16_bits
from picker.errors import BundleError
from picker.model.picker import Picker
from picker.model.state import named, replace
from picker.stepper import INPUTS, state_input, state_output

OPSET = 20
FORBIDDEN = frozenset({"Loop", "Scan", "If", "CumSum"})
"""Control flow keeps a graph from being fused and captured; CumSum is wrong in TensorRT from 10.8."""


class StepGraph(nn.Module):
    """A Picker with flat state: (chunk, valid, reset, *state) to (probabilities, *next state)."""

    def __init__(self, model: Picker) -> None:
        super().__init__()
        self.model = model
        self.names = [name for name, _ in named(model.initial_state(1))]

    def forward(self, chunk: Tensor, valid: Tensor, reset: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """See Picker.probabilities; shapes as PickerSpec says."""
        before = replace(self.model.initial_state(1, chunk), list(state))
        probabilities, after = self.model.probabilities(chunk, valid, reset, before)
        return (probabilities, *(tensor for _, tensor in named(after)))

    def example(self, rows: int) -> tuple[Tensor, ...]:
        """Inputs of the right shapes with ``rows`` rows."""
        config = self.model.config
        chunk = torch.zeros(rows, 3, config.chunk_samples)
        state = [tensor for _, tensor in named(self.model.initial_state(rows, chunk))]
        return (chunk, torch.ones_like(chunk, dtype=torch.bool), torch.zeros(rows, dtype=torch.bool), *state)


LANES = 16
"""float32 values in the widest vector of a CPU (AVX-512)."""


def _log_sigmoid(x: Any) -> Any:
    """What the exporter would write as log(sigmoid(x)), for ONNX Runtime: finite everywhere, and rows apart.

    Its float32 sigmoid is 0 below about -17, and the log of that -inf; softplus is exact. It computes log and softplus
    by vectors with another last bit in what is left over, so that a row's result would depend on its place in the
    batch: each row is filled up to whole vectors.
    """
    length = x.shape[-1]
    filling = -length % LANES
    if not filling:
        return op.Neg(op.Softplus(op.Neg(x)))
    ends = [0] * (2 * len(x.shape) - 1) + [filling]
    filled = op.Pad(op.Neg(x), cast(Any, op.Constant(value_ints=ends)))
    first, stop, axis = (cast(Any, op.Constant(value_ints=[value])) for value in (0, length, -1))
    return op.Neg(op.Slice(op.Softplus(filled), first, stop, axis))


def _sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), for ONNX Runtime: its own sigmoid keeps few digits of a small value.

    An input gate that is all but closed is such a value, and the norm after the memory makes it large again.
    """
    one = cast(Any, op.Constant(value_float=1.0))
    return op.Div(one, op.Add(one, op.Exp(op.Neg(x))))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.log_sigmoid.default: _log_sigmoid,
    torch.ops.aten.sigmoid.default: _sigmoid,
}


def write_onnx(model: Picker, path: Path) -> None:
    """Translate the step graph to ONNX with a dynamic batch axis; raises BundleError on a forbidden operator.

    The same weights and library versions give the same bytes.
    """
    graph = StepGraph(model).eval()
    batch = torch.export.Dim("batch", min=1, max=65536)
    arguments = graph.example(2)
    fixed, rest = arguments[: len(INPUTS)], arguments[len(INPUTS) :]
    with _quiet():
        program = torch.onnx.export(
            graph,
            arguments,
            dynamo=True,
            input_names=[*INPUTS, *(state_input(name) for name in graph.names)],
            output_names=["probabilities", *(state_output(name) for name in graph.names)],
            dynamic_shapes=(*({0: batch} for _ in fixed), tuple({0: batch} for _ in rest)),
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    written = program.model_proto
    _forget_sources(written)
    store_in_16_bits(written)
    onnx.save(written, path)
    check_operators(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own deprecations and on libraries that Onset does not use."""
    logger = logging.getLogger("torch.onnx._internal.exporter")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _forget_sources(model: onnx.ModelProto) -> None:
    """Remove the exporter's stack traces: they hold paths of this machine and differ from one to the next."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def check_operators(path: Path) -> Counter[str]:
    """Number of each operator in the graph; raises BundleError where a forbidden one is among them."""
    model = onnx.load(path)
    onnx.checker.check_model(model)
    operators: Counter[str] = Counter(node.op_type for node in model.graph.node)
    operators.update(node.op_type for function in model.functions for node in function.node)
    if found := sorted(FORBIDDEN & operators.keys()):
        raise BundleError(f"{path}: the graph holds {', '.join(found)}; a step must be static and loop-free")
    return operators
