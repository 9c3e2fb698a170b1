"""The step graph behind its specification, and a record driven through it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import CHUNK, motion
from tiny_bundle import write_tiny_bundle

from picker.bundle import load_bundle
from picker.drive import aligned, of_samples, stream
from picker.errors import BundleError
from picker.offset import first_valid, remove_offset
from picker.stepper import OnnxStepper, Stepper


@pytest.fixture
def tiny(tmp_path: Path) -> OnnxStepper:
    """The bundle whose answers can be computed by hand."""
    return OnnxStepper(load_bundle(write_tiny_bundle(tmp_path / "tiny")))


def respecify(folder: Path, **changes: Any) -> None:
    """Replace keys of spec.json."""
    path = folder / "spec.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def regraph(folder: Path, change: Callable[[onnx.GraphProto], None]) -> None:
    """Change the graph in place."""
    model = onnx.load(folder / "model.onnx")
    change(model.graph)
    onnx.save(model, folder / "model.onnx")


TAIL = {"name": "tail", "shape": [3, 64], "dtype": "float32"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"chunk_samples": 32}, "chunk"),
        ({"components": "Z"}, "chunk"),
        ({"phases": ["P", "S"]}, "probabilities"),
        ({"state": []}, r"state\.tail.*absent in spec"),
        ({"state": [{**TAIL, "name": "head"}]}, r"state\.head.*absent in the graph"),
        ({"state": [{**TAIL, "shape": [3, 32]}]}, r"state\.tail"),
        ({"state": [{**TAIL, "dtype": "float16"}]}, r"state\.tail.*float16"),
        ({"state": [{**TAIL, "dtype": "colour"}]}, r"state\.tail.*colour"),
        ({"state": [TAIL, {**TAIL, "name": "extra"}]}, "extra"),
    ],
)
def test_a_specification_that_contradicts_the_graph(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    """Refused when the bundle is opened, with the tensor's name and both sides."""
    folder = write_tiny_bundle(tmp_path / "b")
    respecify(folder, **changes)
    with pytest.raises(BundleError, match=says) as error:
        OnnxStepper(load_bundle(folder))
    assert "model.onnx" in str(error.value)


def test_a_graph_with_another_output(tmp_path: Path) -> None:
    """An output that the specification does not know is a contradiction too."""
    folder = write_tiny_bundle(tmp_path / "b")

    def more(graph: onnx.GraphProto) -> None:
        graph.output.append(onnx.helper.make_tensor_value_info("cut", onnx.TensorProto.FLOAT, ["B", 3, 64]))

    regraph(folder, more)
    with pytest.raises(BundleError, match="output 'cut'"):
        OnnxStepper(load_bundle(folder))


def test_a_damaged_graph(tmp_path: Path) -> None:
    """Bytes that are no graph: the file is named."""
    folder = write_tiny_bundle(tmp_path / "b")
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"model\.onnx: ONNX Runtime cannot open it"):
        OnnxStepper(load_bundle(folder))


def test_any_number_of_rows(tiny: OnnxStepper) -> None:
    """The batch axis is free from step to step."""
    for rows in (1, 5, 2):
        chunk = np.full((rows, 3, CHUNK), 0.5, np.float32)
        valid, reset = np.ones(chunk.shape, np.bool_), np.zeros(rows, np.bool_)
        first, state = tiny.step(chunk, valid, reset, tiny.fresh_state(rows))
        second, _ = tiny.step(chunk, valid, reset, state)
        assert first.shape == (rows, 3, CHUNK)
        assert (first[:, :2] == 0).all()
        assert (second[:, :2] == 0.5).all()


@pytest.mark.parametrize("samples", [2, 63, 64, 65, 500])
def test_stream_is_aligned_by_the_lookahead(tiny: OnnxStepper, samples: int) -> None:
    """An impulse at sample n of the input is the probability at sample n of the output, to the last sample."""
    x = np.zeros((2, 3, samples), np.float32)
    x[0, 0, samples - 1] = x[1, 1, samples // 2] = 0.75
    valid = np.ones(x.shape, np.bool_)
    out = stream(tiny, x, valid)
    assert out.shape == x.shape
    np.testing.assert_array_equal(out[:, :2], np.clip(x[:, :2], 0, 1))


def by_hand(stepper: Stepper, x: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Chunks cut, offset removed and look-ahead taken off as the daemon does it."""
    spec, count = stepper.spec, x.shape[-1]
    late, longest = spec.lookahead_samples, spec.longest_lookahead_samples
    total = -(-(count + longest) // CHUNK) * CHUNK
    clean = np.where(valid, remove_offset(x, first_valid(x, valid)), 0).astype(np.float32)
    state, out = stepper.fresh_state(len(x)), []
    for at in range(0, total, CHUNK):
        chunk, flags = np.zeros((len(x), 3, CHUNK), np.float32), np.zeros((len(x), 3, CHUNK), np.bool_)
        have = max(0, min(CHUNK, count - at))
        chunk[..., :have], flags[..., :have] = clean[..., at : at + have], valid[..., at : at + have]
        probabilities, state = stepper.step(chunk, flags, np.zeros(len(x), np.bool_), state)
        out.append(probabilities)
    found = np.concatenate(out, -1)[..., late : longest + count]
    found[:, [0, 2], count:] = 0  # only S has a second look
    return found


def test_stream_is_the_manual_loop(stepper: OnnxStepper) -> None:
    """A record of counts on an offset with a gap, through the exported network: the same bits."""
    x = (1000 * motion(2, 6).numpy()[..., :333]).astype(np.int32) + 7_000_000
    valid = np.ones(x.shape, np.bool_)
    valid[0, :, 100:150] = False
    valid[1, 2] = False
    found = stream(stepper, x, valid)
    assert np.array_equal(found, by_hand(stepper, x, valid))
    assert found.shape[-1] == 333 + stepper.spec.second_look_samples["S"]
    rows = aligned(stepper.spec, found)
    assert rows.shape == x.shape
    assert np.array_equal(rows[:, 1], found[:, 1, stepper.spec.second_look_samples["S"] :])
    assert np.array_equal(of_samples(stepper.spec, found, 300)[:, 0, :300], found[:, 0, :300])
    assert not of_samples(stepper.spec, found, 300)[:, 0, 300:].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_stream_takes_what_is_no_number_as_missing(stepper: OnnxStepper, value: float) -> None:
    """Found by itself where no flags are given; also what only float64 can hold."""
    x = motion(1, 5).numpy().astype(np.float64)
    x[0, 1, 70] = value
    missing = np.ones(x.shape, np.bool_)
    missing[0, 1, 70] = False
    out = stream(stepper, x)
    assert np.isfinite(out).all()
    assert np.array_equal(out, stream(stepper, x, missing))
