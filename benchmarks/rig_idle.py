"""A bundle that does nothing but give picks: the floor under a latency, what the daemon takes without a model.

The probability of P is the vertical component times ``GAIN``, cut to 0..1 and one chunk late; that of S the north one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from picker.spec import PickerSpec, StateTensor

CHUNK = 64
GAIN = 4e-4
NODES: tuple[tuple[str, tuple[str, ...], str, dict[str, Any]], ...] = (
    ("Where", ("valid", "chunk", "zero"), "next.tail", {}),
    ("Unsqueeze", ("reset", "axes"), "fresh", {}),
    ("Where", ("fresh", "zero", "state.tail"), "seen", {}),
    ("Mul", ("seen", "gain"), "scaled", {}),
    ("Clip", ("scaled", "zero", "one"), "cut", {}),
    ("Gather", ("cut", "picked"), "arrivals", {"axis": 1}),
    ("ReduceMax", ("arrivals", "features"), "highest", {"keepdims": 1}),
    ("Sub", ("one", "highest"), "noise", {}),
    ("Concat", ("arrivals", "noise"), "probabilities", {"axis": 1}),
)


def write_idle_bundle(folder: Path) -> Path:
    """Write the bundle into ``folder`` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    state = (StateTensor(name="tail", shape=(3, CHUNK)),)
    spec = PickerSpec(name="idle", lookahead_samples=CHUNK, state=state, thresholds={"P": 0.5, "S": 0.5})
    (folder / "spec.json").write_text(spec.to_json())
    (folder / "parity.json").write_text("{}\n")
    (folder / "card.md").write_text("Picks loud samples: the floor of benchmarks/latency.py.\n")
    onnx.save(_graph(), str(folder / "model.onnx"))
    return folder


def _graph() -> onnx.ModelProto:
    def tensor(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["B", *shape])

    constants = {
        "zero": np.float32(0),
        "one": np.float32(1),
        "gain": np.float32(GAIN),
        "axes": np.array([1, 2]),
        "features": np.array([1]),
        "picked": np.array([0, 1]),
    }
    number, flag = TensorProto.FLOAT, TensorProto.BOOL
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **options) for kind, inputs, output, options in NODES],
        "idle",
        [
            tensor("chunk", number, 3, CHUNK),
            tensor("valid", flag, 3, CHUNK),
            tensor("reset", flag),
            tensor("state.tail", number, 3, CHUNK),
        ],
        [tensor("probabilities", number, 3, CHUNK), tensor("next.tail", number, 3, CHUNK)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model
