"""Lower precision: products with weights only, by casts that stand in the graph; what remembers stays in float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from test_export_graph import same_bits
from untrained import CHUNK, steps

from export import parity
from export.build import build
from export.precision import lowered
from export.signals import synthetic_stream
from picker.bundle import Bundle
from picker.errors import BundleError
from picker.model.checkpoint import load_picker
from picker.model.picker import Picker
from picker.stepper import OnnxStepper

SHIPPED = Path(__file__).parents[2] / "models" / "checkpoints" / "small.safetensors"


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "CASES", ((3, 60.0), (4, 30.0)))
        return build(SHIPPED, tmp_path_factory.mktemp("half") / "half", precision="fp16")


@pytest.fixture(scope="module")
def shipped() -> Picker:
    return load_picker(SHIPPED)[0]


def test_half_precision_is_proved_to_its_own_tolerance(half: Bundle, bundle: Bundle) -> None:
    """The proof and the specification say the precision; it is another model, of about half the size."""
    proof = json.loads((half.folder / "parity.json").read_text())
    assert half.spec.provenance["precision"] == "fp16"
    assert proof["engine"].startswith("ONNX Runtime CPU float16")
    assert (proof["tolerance"], proof["passed"], proof["digest"]) == (1e-2, True, half.digest)
    assert all(case["largest_difference"] > 0 for case in proof["comparisons"])
    assert half.digest != bundle.digest
    assert "float16" in (half.folder / "card.md").read_text()


def test_what_remembers_stays_in_float32(half: Bundle, shipped: Picker) -> None:
    """State and outputs are float32; every 16-bit value lies between two casts; gate weights keep their digits."""
    assert all(tensor.dtype == "float32" for tensor in half.spec.state)
    graph = onnx.shape_inference.infer_shapes(onnx.load(half.model_path)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert all(value.type.tensor_type.elem_type != TensorProto.FLOAT16 for value in (*graph.input, *graph.output))
    low = {node.op_type for node in graph.node for name in node.output if kinds.get(name) == TensorProto.FLOAT16}
    assert low <= {"Cast", "MatMul", "Conv", "Transpose"}
    assert {"MatMul", "Conv"} <= low
    # What is stored in 16 bits without loss is widened at once: it counts as the float32 that it is computed with.
    widened = {node.input[0] for node in graph.node if node.op_type == "Cast" and node.name.endswith(".widen")}
    shapes = [tuple(t.dims) for t in graph.initializer if t.data_type == TensorProto.FLOAT or t.name in widened]
    for block in shipped.unet.blocks():
        assert (block.project.in_features, 2 * block.heads) in shapes


def test_the_network_itself_is_left_as_it_was(model: Picker) -> None:
    """A copy is lowered; fp32 is no copy."""
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    assert lowered(model, "fp32") is model
    assert lowered(model, "fp16") is not model
    assert all(bool((weight == before[name]).all()) for name, weight in model.named_parameters())


def test_loud_station_leaves_the_others_bit_identical_in_half_precision(half: Bundle) -> None:
    """No scale spans the batch."""
    stream, stepper = synthetic_stream(4, 30.0, CHUNK), OnnxStepper(half)
    louder = stream._replace(samples=stream.samples.copy())
    louder.samples[1] *= 100
    (one, _), (other, _) = steps(stepper, stream), steps(stepper, louder)
    assert not same_bits(one[1], other[1])
    assert same_bits(one[[0, 2, 3]], other[[0, 2, 3]])
    assert np.isfinite(other).all()


@pytest.mark.usefixtures("short_proof")
def test_what_cannot_run_here_cannot_be_proved(run_folder: Path, tmp_path: Path) -> None:
    """ONNX Runtime has no products in bfloat16 on the CPU: nothing is written, and the error says why."""
    with pytest.raises(BundleError, match=r"has no products in bf16.*use --precision fp16"):
        build(run_folder, tmp_path / "out", precision="bf16")
    assert not (tmp_path / "out").exists()
