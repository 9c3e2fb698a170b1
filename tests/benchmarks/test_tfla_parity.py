"""The benchmark script of the kernels runs without a GPU when told that it is a trial."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPT = BENCHMARKS / "tfla_parity.py"


def run_script(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{BENCHMARKS}", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(script), "--presets", "small", "--batch", "1", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_tries_every_level_and_reports_it(tmp_path: Path) -> None:
    """On a processor both sides are the plain cell, so h is equal; without --quick it says that a GPU is missing."""
    out = tmp_path / "results" / "report.md"
    done = run_script(SCRIPT, "--samples", "1024", "--out", str(out), "--quick")
    assert done.returncode == 0, done.stderr
    rows = [line for line in out.read_text().splitlines() if line.startswith("| small, ")]
    assert [row.split(" | ")[1] for row in rows] == ["sigmoid"] * 3 + ["exponential"] * 3
    assert done.stderr.count("running small, ") == 6
    assert "worst_error_h_sigmoid_bfloat16: 0.00e+00" in done.stdout
    refused = run_script(SCRIPT)
    assert refused.returncode == 1
    assert "no CUDA device" in refused.stderr


def test_failed_case_is_a_row_and_the_others_are_measured(tmp_path: Path) -> None:
    """Windows of 32 samples leave no token for the coarsest level; --gates leaves out what is not asked for."""
    out = tmp_path / "report.md"
    done = run_script(SCRIPT, "--samples", "32", "--gates", "sigmoid", "--out", str(out), "--quick")
    assert done.returncode == 1, done.stderr
    rows = [line for line in out.read_text().splitlines() if line.startswith("| small, ")]
    assert [("failed: " in row) for row in rows] == [False, False, True]
    assert "failed_cases_sigmoid_bfloat16: 1" in done.stdout
    assert "exponential" not in done.stdout


def test_dead_process_is_a_row(tmp_path: Path) -> None:
    """A process that ends without a word costs the case that it was at, and each further case gets its own."""
    script = tmp_path / "dying.py"
    script.write_text(
        "import os, sys, tfla_parity\n"
        "def die(*_):\n    os._exit(3)\n"
        "if __name__ == '__main__':\n    tfla_parity._measure = die\n    sys.exit(tfla_parity.main())\n"
    )
    done = run_script(script, "--gates", "sigmoid", "--out", str(tmp_path / "report.md"), "--quick")
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("failed: the process ended with exit status 3") == 2 * 3
