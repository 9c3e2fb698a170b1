"""The benchmark of the step on a GPU is whole: on a processor, told that it is a trial, it runs to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def test_runs_to_the_end_and_reports_what_failed(tmp_path: Path) -> None:
    """A contender that works has figures, at the network's own probabilities; one that cannot run here is a row."""
    out = tmp_path / "results" / "report.md"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "benchmarks" / "step_gpu.py"), "--quick", "--presets", "small"]
    command += ["--only", "fp32, CUDA", "half of them ready", "bf16 products", "compile, CUDA", "--batches", "3"]
    done = subprocess.run([*command, "--out", str(out)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = table(out)
    assert "failed: RuntimeError: torch.compile is measured on a GPU only" in rows["torch.compile, CUDA graph"][3]
    for title, batch in (("ONNX Runtime, fp32", "3"), ("daemon's slots, fp32, half of them ready", "1")):
        row = rows[f"{title}, CUDA graph"]
        assert row[2] == batch
        assert float(row[7]) < 1e-4, "the difference to the network"
    assert "contenders_failed: 1" in done.stdout
    assert "engine_over_torch_cuda_graph_small_3: " in done.stdout


def table(report: Path) -> dict[str, list[str]]:
    """Rows of the table of all contenders, by title."""
    lines = report.read_text().partition("## Every contender")[2].partition("## Against")[0].splitlines()
    return {line.split(" | ")[1]: line.split(" | ") for line in lines if line.startswith("| small ")}


def test_what_the_budget_ends_is_reported_as_not_run(tmp_path: Path) -> None:
    """The report is written, no contender that had no turn counts as failed, and the run ends soon."""
    out = tmp_path / "report.md"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "benchmarks" / "step_gpu.py"), "--quick", "--presets", "small"]
    command += ["--batches", "1", "--budget", "0.01", "--only", "fp32, CUDA", "bf16", "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = table(out)
    assert set(rows) == {
        "torch, bf16 autocast, CUDA graph",
        "torch, bf16 products, CUDA graph",
        "ONNX Runtime, fp32, CUDA graph",
    }
    assert {row[3] for row in rows.values()} == {"not run"}
    assert "contenders_failed: 0" in done.stdout
    assert "contenders_not_run: 3" in done.stdout


def test_what_decides_comes_first() -> None:
    """A run that is cut short has torch's CUDA graph, the daemon's slots and torch.compile."""
    from step_gpu import jobs

    titles = list(dict.fromkeys(job.title for job in jobs(["small", "base"], (256,), {})))
    assert titles[0] == "torch, bf16 autocast, CUDA graph"
    assert all(title.startswith("daemon's slots") for title in titles[1:4])
    assert titles[4:6] == ["torch.compile, CUDA graph", "ONNX Runtime, fp32, CUDA graph"]
    assert len(titles) == len(set(titles)) == 5 + 3 + 6


def test_without_a_gpu_it_says_so() -> None:
    """Nothing is measured by accident."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "benchmarks" / "step_gpu.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr


def test_a_contender_that_dies_or_hangs_is_a_row() -> None:
    """Whatever a process does, every batch has its row and the next contender its turn."""
    from step_graphs import Graph
    from step_measure import Job, Measurement

    absent = Graph(Path("absent.onnx"), 0, 0)
    job = Job(title="ONNX Runtime, fp16", engine="ort", preset="small", batches=(1, 2), graph=absent)
    rows = Measurement(job, torch.device("cpu")).rows(120)
    assert [row.batch for row in rows] == [1, 2]
    assert "absent.onnx" in rows[0].failed
    assert rows[1].failed == "not reached"
    late = Measurement(job, torch.device("cpu")).rows(0)
    assert [row.failed for row in late] == ["took too long", "not reached"]


@pytest.mark.parametrize(("operators", "expected"), [("Reshape", 0), ("Neg", 2 * 3 * 4)])
def test_moved_bytes_leave_views_out(operators: str, expected: int) -> None:
    """What an operator reads and writes counts a row; a view moves nothing."""
    from onnx import TensorProto, helper
    from step_graphs import moved_bytes

    def value(name: str) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])

    graph = helper.make_graph([helper.make_node(operators, ["x"], ["y"])], "g", [value("x")], [value("y")])
    assert moved_bytes(helper.make_model(graph)) == expected
