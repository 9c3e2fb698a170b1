"""Weights in 16 bits: half the size, the same digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from untrained import untrained

from export.cli import main
from export.graph import write_onnx
from picker.model.checkpoint import load_picker, save_picker


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An untrained network on disk."""
    save_picker(tmp_path / "whole.safetensors", untrained(), {"step": 1})
    return tmp_path / "whole.safetensors"


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Every parameter."""
    return dict(load_picker(path)[0].named_parameters())


def test_rounding_keeps_vectors_and_halves_matrices(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Matrices are the nearest float16 values, vectors are untouched, the file is smaller, its history goes along."""
    out = checkpoint.with_name("half.safetensors")
    assert main(["round", str(checkpoint), str(out)]) == 0
    before, after = weights(checkpoint), weights(out)
    for name, value in before.items():
        expected = value.half().float() if value.ndim >= 2 else value
        assert torch.equal(after[name], expected), name
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert out.stat().st_size < 0.7 * checkpoint.stat().st_size
    assert load_picker(out)[1] == {"step": 1, "rounded": "float16"}
    assert "no matrix changed by more than" in capsys.readouterr().out


def test_a_rounded_network_is_stored_in_16_bits_and_computes_what_it_did(checkpoint: Path) -> None:
    """The graph of rounded weights is smaller and, once loaded, gives the same bits as one stored in 32 bits."""
    half = checkpoint.with_name("half.safetensors")
    main(["round", str(checkpoint), str(half)])
    model = load_picker(half)[0]
    small, large = half.with_name("small.onnx"), half.with_name("large.onnx")
    write_onnx(model, small)
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(small).graph.initializer}
    assert TensorProto.FLOAT16 in kinds.values()
    widened = onnx.load(small)
    for tensor in widened.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(widened, large)
    # The powers of the normaliser, which are no weights, are half of so small a graph.
    assert small.stat().st_size < 0.85 * large.stat().st_size
    random = np.random.default_rng(0)
    one, other = (onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (small, large))
    feed = {i.name: random.standard_normal([2, *i.shape[1:]]).astype(np.float32) for i in one.get_inputs()}
    feed |= {"valid": np.ones((2, 3, 64), np.bool_), "reset": np.zeros(2, np.bool_)}
    for mine, theirs in zip(one.run(None, feed), other.run(None, feed), strict=True):
        assert np.array_equal(mine, theirs)


def test_weights_that_are_no_float16_values_stay_as_they_are(checkpoint: Path) -> None:
    """Nothing is rounded in silence."""
    path = checkpoint.with_name("graph.onnx")
    write_onnx(load_picker(checkpoint)[0], path)
    sizes = dict.fromkeys((TensorProto.FLOAT, TensorProto.FLOAT16), 0)
    for tensor in onnx.load(path).graph.initializer:
        sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    # What is left are weights that begin as a quarter, in the pools of a network that was never trained.
    assert sizes[TensorProto.FLOAT16] < 0.05 * sizes[TensorProto.FLOAT]
