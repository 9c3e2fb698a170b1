"""The exported step graph is static, the same function as the network, and keeps stations apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from untrained import CHUNK, SINGLE, at, steps, through_network, untrained

from export.cost import multiply_adds, parameters
from export.graph import FORBIDDEN, check_operators, write_onnx
from export.signals import Stream, synthetic_stream
from picker.bundle import Bundle
from picker.errors import BundleError
from picker.model.config import PRESETS
from picker.model.normalizer import RunningNormalizer
from picker.model.picker import Picker, specification
from picker.model.state import named
from picker.stepper import OnnxStepper, State

ROOT = Path(__file__).parents[2]
CLOSE = 1e-3


def opened(model: Picker, folder: Path) -> OnnxStepper:
    """The graph of ``model`` without a proof."""
    write_onnx(model, folder / "model.onnx")
    return OnnxStepper(Bundle(folder=folder, spec=specification(model), digest="test"))


def same_bits(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return one.tobytes() == other.tobytes()


def rows_of(state: State, rows: NDArray[np.int64]) -> State:
    return tuple(np.ascontiguousarray(tensor[rows]) for tensor in state)


def test_graph_is_static_and_its_batch_is_free(bundle: Bundle) -> None:
    """Operator set 20 or later, neither control flow nor CumSum, and one free axis: the batch."""
    operators = check_operators(bundle.model_path)
    assert not FORBIDDEN & operators.keys()
    graph = onnx.load(bundle.model_path)
    assert max(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")) >= 20
    for value in (*graph.graph.input, *graph.graph.output):
        first, *rest = value.type.tensor_type.shape.dim
        assert first.dim_param == "batch"
        assert all(axis.dim_value > 0 for axis in rest)


def test_graph_says_nothing_of_the_machine(bundle: Bundle) -> None:
    """The exporter's stack traces, with the paths of whoever exported, are not in the file."""
    content = bundle.model_path.read_bytes()
    assert str(ROOT).encode() not in content
    assert b".py" not in content


@pytest.mark.parametrize("operator", sorted(FORBIDDEN))
def test_forbidden_operator_is_refused(operator: str, tmp_path: Path) -> None:
    """A graph that holds one is refused by name."""
    path = tmp_path / "model.onnx"
    onnx.save(graph_with(operator), path)
    with pytest.raises(BundleError, match=operator):
        check_operators(path)


def graph_with(operator: str) -> onnx.ModelProto:
    """The smallest valid graph with that operator."""

    def floats(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def scalar(name: str, kind: int, value: float) -> onnx.TensorProto:
        return helper.make_tensor(name, kind, [], [value])

    same = helper.make_node("Identity", ["inner"], ["inner_out"])
    constants = [
        scalar("count", TensorProto.INT64, 1),
        scalar("go", TensorProto.BOOL, 1),
        scalar("axis", TensorProto.INT64, 0),
    ]
    if operator == "CumSum":
        node = helper.make_node("CumSum", ["x", "axis"], ["y"])
    elif operator == "If":
        branch = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "branch", [], [floats("b", 2)])
        node = helper.make_node("If", ["go"], ["y"], then_branch=branch, else_branch=branch)
    elif operator == "Scan":
        body = helper.make_graph([same], "body", [floats("inner")], [floats("inner_out")])
        node = helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)
    else:
        turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
        go_in, go_out = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go_in", "go_out"))
        nodes = [same, helper.make_node("Identity", ["go_in"], ["go_out"])]
        body = helper.make_graph(nodes, "body", [turn, go_in, floats("inner", 2)], [go_out, floats("inner_out", 2)])
        node = helper.make_node("Loop", ["count", "go", "x"], ["y"], body=body)
    graph = helper.make_graph([node], "g", [floats("x", 2)], [floats("y", 2)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_graph_is_the_network_at_every_batch_size(model: Picker, stepper: OnnxStepper, rows: int) -> None:
    """Checkpoint to bundle to engine: quiet, events, rails, gaps, NaN and resets give what PyTorch gives."""
    stream = synthetic_stream(rows, 30.0, CHUNK, seed=rows)
    expected, (found, _) = through_network(model, stream), steps(stepper, stream)
    distance = np.abs(expected - found)
    assert expected[:, :2].max() > 0.35
    assert distance.max() < CLOSE
    assert np.percentile(distance, 99.9) < CLOSE / 10


@pytest.mark.parametrize("first_valid", [0, 17, 63])
def test_first_sample_of_a_fresh_station_is_finite(stepper: OnnxStepper, first_valid: int) -> None:
    """Nothing has been seen yet, so every running scale is zero: no 0 / 0, on valid samples and before them."""
    chunk = np.zeros((2, 3, CHUNK), np.float32)
    chunk[1] = np.random.default_rng(0).standard_normal((3, CHUNK)) * 1e-9
    valid = np.zeros((2, 3, CHUNK), np.bool_)
    valid[..., first_valid:] = True
    probabilities, state = stepper.step(chunk, valid, np.zeros(2, np.bool_), stepper.fresh_state(2))
    assert np.isfinite(probabilities).all()
    assert np.abs(probabilities.sum(1) - 1).max() < 1e-5
    assert all(np.isfinite(tensor).all() for tensor in state)


def test_station_without_any_sample_is_finite(stepper: OnnxStepper) -> None:
    """A minute of gap from the first sample on, and data after it."""
    stream = synthetic_stream(1, 90.0, CHUNK)
    stream.valid[..., :6016] = False
    probabilities, _ = steps(stepper, stream)
    assert np.isfinite(probabilities).all()


def test_forget_gate_that_is_shut_forgets_and_stays_finite(tmp_path: Path) -> None:
    """A gate far below zero: float32 log(sigmoid(x)), as the exporter would write it, is -inf there and then NaN."""
    model = untrained(SINGLE)
    for block in model.unet.blocks():
        block.project.bias.data[-block.heads :] = -40.0
    stream = synthetic_stream(2, 30.0, CHUNK)
    found, _ = steps(opened(model, tmp_path), stream)
    assert np.isfinite(found).all()
    assert np.abs(through_network(model, stream) - found).max() < CLOSE


@torch.no_grad()
def test_input_gate_that_is_all_but_shut_keeps_its_digits(tmp_path: Path) -> None:
    """What little it writes is right to float32: the norm after the memory would make any error large."""
    model = untrained(SINGLE)
    for block in model.unet.blocks():
        block.project.bias.data[-2 * block.heads : -block.heads] = -16.0
    stepper = opened(model, tmp_path)
    chunk, valid, reset = at(synthetic_stream(1, 1.0, CHUNK), 0)
    _, state = stepper.step(chunk, valid, reset, stepper.fresh_state(1))
    _, expected = model.probabilities(*(torch.from_numpy(part) for part in (chunk, valid, reset)), None)
    name, written = next((name, tensor.numpy()) for name, tensor in named(expected) if name.endswith("memory"))
    memory = state[[tensor.name for tensor in stepper.spec.state].index(name)]
    assert 0 < np.abs(written).max() < 1e-5
    assert np.abs(memory - written).max() < 1e-5 * np.abs(written).max()


def test_constants_of_the_running_means_are_right_to_float32(tmp_path: Path) -> None:
    """A power of a decay that was rounded first is wrong by the rounding times the power."""
    write_onnx(untrained(SINGLE), tmp_path / "model.onnx")
    constants = [onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "model.onnx").graph.initializer]
    for decay in RunningNormalizer(CHUNK).decays:
        rise = decay ** np.arange(1, CHUNK + 1)
        closest = min(np.abs(array / rise - 1).max() for array in constants if array.shape == (CHUNK,))
        assert closest < 1e-7


def test_exponential_gate_exports_too(tmp_path: Path) -> None:
    """The other input gate has two more tensors of state a block, and is the same function."""
    model = untrained(replace(SINGLE, gate="exponential"))
    stream = synthetic_stream(3, 30.0, CHUNK)
    found, _ = steps(opened(model, tmp_path), stream)
    assert np.abs(through_network(model, stream) - found).max() < CLOSE


def test_loud_station_leaves_the_others_bit_identical(stepper: OnnxStepper) -> None:
    """Rows share nothing: one that is 100 times as loud changes itself only."""
    stream = synthetic_stream(4, 30.0, CHUNK)
    louder = stream._replace(samples=stream.samples.copy())
    louder.samples[1] *= 100
    (one, _), (other, _) = steps(stepper, stream), steps(stepper, louder)
    assert not same_bits(one[1], other[1])
    assert same_bits(one[[0, 2, 3]], other[[0, 2, 3]])


def test_values_that_are_not_finite_never_reach_the_state(stepper: OnnxStepper) -> None:
    """NaN and infinity count as missing: that row is as if they had been flagged, the others are bit-identical."""
    stream = synthetic_stream(3, 30.0, CHUNK, seed=5)
    broken = stream._replace(samples=stream.samples.copy())
    broken.samples[1, 0, 700:720] = np.nan
    broken.samples[1, 2, 900] = np.inf
    broken.samples[1, 1, 901] = -np.inf
    flagged = stream._replace(valid=stream.valid & np.isfinite(broken.samples))
    (one, after), (other, after_flagged) = steps(stepper, broken), steps(stepper, flagged)
    assert same_bits(one, other)
    assert all(same_bits(a, b) for a, b in zip(after, after_flagged, strict=True))
    assert np.isfinite(one).all()
    assert same_bits(one[[0, 2]], steps(stepper, stream)[0][[0, 2]])


def test_reset_gives_a_fresh_station_whatever_was_there(stepper: OnnxStepper) -> None:
    """A reset row gives what a fresh station gives, even where its state was NaN; the others do not notice."""
    stream = synthetic_stream(3, 30.0, CHUNK, seed=6)
    _, state = steps(stepper, stream)
    poisoned = rows_of(state, np.arange(3))
    for tensor in poisoned:
        tensor[1] = np.nan
    chunk, valid, _ = at(stream, 3)
    expected, _ = stepper.step(chunk, valid, np.zeros(3, np.bool_), state)
    fresh, _ = stepper.step(chunk, valid, np.zeros(3, np.bool_), stepper.fresh_state(3))
    found, after = stepper.step(chunk, valid, np.array([False, True, False]), poisoned)
    assert same_bits(found[1], fresh[1])
    assert not same_bits(fresh[1], expected[1])
    assert same_bits(found[[0, 2]], expected[[0, 2]])
    assert all(np.isfinite(tensor).all() for tensor in after)


def test_stations_join_and_leave_bit_for_bit(stepper: OnnxStepper) -> None:
    """Batches of any size in any order, states carried along, give each station the bits of its own stream."""
    stream = synthetic_stream(7, 30.0, CHUNK, seed=7)
    expected, expected_state = steps(stepper, stream)
    assert_alone_is_together(stepper, stream, expected)
    random, state, found = np.random.default_rng(0), stepper.fresh_state(7), np.empty_like(expected)
    for k in range(stream.reset.shape[1]):
        chunk, valid, reset = at(stream, k)
        for rows in np.array_split(random.permutation(7), random.integers(1, 5)):
            part = (np.ascontiguousarray(values[rows]) for values in (chunk, valid, reset))
            found[rows, :, k * CHUNK : (k + 1) * CHUNK], after = stepper.step(*part, rows_of(state, rows))
            for tensor, values in zip(state, after, strict=True):
                tensor[rows] = values
    assert same_bits(found, expected)
    assert all(same_bits(a, b) for a, b in zip(state, expected_state, strict=True))


def assert_alone_is_together(stepper: OnnxStepper, stream: Stream, expected: NDArray[np.float32]) -> None:
    """Row 2 alone in its batch gives the bits it gives among others."""
    alone, _ = steps(stepper, Stream(*(part[2:3] for part in stream)))
    assert same_bits(alone[0], expected[2])


def test_small_preset_exports_within_its_sizes(tmp_path: Path) -> None:
    """The preset that ships: 1.0-1.6 M parameters, at most 20 M multiply-adds a station-second, 0.25 MB of state."""
    model = untrained(PRESETS["small"])
    stepper = opened(model, tmp_path)
    assert 1.0e6 <= parameters(model) <= 1.6e6
    assert 1e6 < multiply_adds(model) <= 20e6
    assert stepper.spec.state_bytes <= 0.25e6
    stream = synthetic_stream(3, 30.0, CHUNK)
    found, _ = steps(stepper, stream)
    assert np.abs(through_network(model, stream) - found).max() < CLOSE
    assert_alone_is_together(stepper, stream, found)
