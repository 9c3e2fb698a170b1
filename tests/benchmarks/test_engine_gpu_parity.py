"""The comparison of GPU and processor is whole: on a processor, told that it is a trial, it finds no difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from picker.runtime import onnxruntime

ROOT = Path(__file__).parents[2]
BUNDLE = ["--bundle", str(ROOT / "models" / "small")]


def test_streams_that_were_written_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two files become one, cut to the shorter; every way through the slots gives the processor's picks."""
    from engine_gpu_parity import main

    from export.signals import synthetic_stream

    for number, seconds in enumerate((70.0, 60.0)):
        stream = synthetic_stream(2, seconds, 64, seed=number)
        np.savez(tmp_path / f"{number}.npz", samples=stream.samples, valid=stream.valid, reset=stream.reset)
    kept = tmp_path / "kept.npz"
    files = [str(tmp_path / f"{number}.npz") for number in range(2)]
    assert main(["--write", str(kept), *files, *BUNDLE]) == 0
    with np.load(kept) as held:
        assert held["samples"].shape == held["valid"].shape == (4, 3, 64 * held["reset"].shape[1])
    options = ["--quick", "--rows", "3", "--synthetic-seconds", "60", *BUNDLE]
    assert main([str(kept), *options, "--recorded-on", "TF32", "fp32, CUDA graph"]) == 0
    said = capsys.readouterr().out
    assert "engine_parity: holds" in said
    for title in ("TF32, CUDA graph, synthetic", "TF32, recorded", "fp32, CUDA graph, recorded"):
        assert f"## {title}" in said


def test_without_files_there_is_nothing_to_write(tmp_path: Path) -> None:
    """It says so."""
    from engine_gpu_parity import main

    with pytest.raises(SystemExit, match="no files"):
        main(["--write", str(tmp_path / "kept.npz"), *BUNDLE])


def test_products_are_rounded_as_tf32_rounds_them() -> None:
    """To 11 bits, half to even, before the product and not after it; what is no product is left alone."""
    from onnx import TensorProto, helper
    from tf32 import round_products

    def value(name: str, *shape: int) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [helper.make_node("MatMul", ["x", "y"], ["z"]), helper.make_node("Add", ["x", "x"], ["twice"])]
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, 2), value("y", 2, 1)], [value("z", 1, 1), value("twice", 1, 2)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    round_products(model)
    x = np.array([[1 + 2**-12, 3 * (1 + 2**-10)]], np.float32)
    session = onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    z, twice = session.run(None, {"x": x, "y": np.array([[1 + 2**-9], [1]], np.float32)})
    assert float(z[0, 0]) == (1 + 2**-9) + 3 + 2**-8, "3 + 3/1024 has 12 bits: half to even"
    np.testing.assert_array_equal(twice, 2 * x)


def test_emulated_tf32_moves_probabilities_a_little(capsys: pytest.CaptureFixture[str]) -> None:
    """The bundle that is shipped, on three synthetic stations; of two equal peaks it may choose the other."""
    from engine_gpu_parity import main

    status = main(["--emulated", "--rows", "3", "--synthetic-seconds", "60", *BUNDLE])
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert status == (said["picks_unmatched_TF32_emulated_synthetic"] != "0")
    assert 1e-5 < float(said["largest_difference_TF32_emulated_synthetic"]) < 0.02
