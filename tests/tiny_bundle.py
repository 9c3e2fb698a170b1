"""A bundle whose answers can be computed by hand, for tests that need a step graph and no model.

The probability of P is the vertical component, that of S the north component, both cut to 0..1 and delayed by the
look-ahead of one chunk, which is the state; invalid samples count as zero.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from picker.spec import PickerSpec, StateTensor

CHUNK = 64


def write_tiny_bundle(folder: Path, thresholds: dict[str, float] | None = None) -> Path:
    """Write the bundle into ``folder`` (made if need be) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = PickerSpec(
        name="tiny",
        lookahead_samples=CHUNK,
        state=(StateTensor(name="tail", shape=(3, CHUNK)),),
        thresholds=thresholds or {"P": 0.3, "S": 0.3},
    )
    (folder / "spec.json").write_text(spec.to_json())
    (folder / "parity.json").write_text("{}\n")
    (folder / "card.md").write_text("A bundle for tests.\n")
    onnx.save(_graph(), str(folder / "model.onnx"))
    return folder


def _graph() -> onnx.ModelProto:
    def tensor(name: str, kind: int, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["B", *shape])

    def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
        return numpy_helper.from_array(value, name)

    nodes = [
        helper.make_node("Where", ["valid", "chunk", "zero"], ["next.tail"]),
        helper.make_node("Unsqueeze", ["reset", "axes"], ["fresh"]),
        helper.make_node("Where", ["fresh", "zero", "state.tail"], ["seen"]),
        helper.make_node("Clip", ["seen", "zero", "one"], ["cut"]),
        helper.make_node("Gather", ["cut", "picked"], ["arrivals"], axis=1),
        helper.make_node("ReduceMax", ["arrivals", "features"], ["highest"], keepdims=1),
        helper.make_node("Sub", ["one", "highest"], ["noise"]),
        helper.make_node("Concat", ["arrivals", "noise"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            tensor("chunk", TensorProto.FLOAT, (3, CHUNK)),
            tensor("valid", TensorProto.BOOL, (3, CHUNK)),
            tensor("reset", TensorProto.BOOL, ()),
            tensor("state.tail", TensorProto.FLOAT, (3, CHUNK)),
        ],
        [tensor("probabilities", TensorProto.FLOAT, (3, CHUNK)), tensor("next.tail", TensorProto.FLOAT, (3, CHUNK))],
        [
            constant("zero", np.float32(0)),
            constant("one", np.float32(1)),
            constant("axes", np.array([1, 2])),
            constant("features", np.array([1])),
            constant("picked", np.array([0, 1])),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model
