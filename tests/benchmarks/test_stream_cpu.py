"""The benchmark script runs, writes its report and prints its figures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tiny_bundle import write_tiny_bundle

ROOT = Path(__file__).parents[2]


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "benchmarks" / "stream_cpu.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, script, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_measures_ours_alone_and_reports_it(tmp_path: Path) -> None:
    """With tiny settings it writes a report whose figures are those on stdout, and no ratio without a peer."""
    bundle, out = write_tiny_bundle(tmp_path / "tiny"), tmp_path / "results" / "report.md"
    settings = ("--batches", "1", "3", "--rounds", "2", "--budget-s", "0", "--calls", "3")
    done = run_script(str(bundle), "--ours-only", *settings, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("round ") == 4
    report = out.read_text()
    assert "bundle: tiny-" in report
    assert "PhaseNet: not measured" in report
    figures = dict(line.split(": ") for line in done.stdout.splitlines()[-2:])
    assert list(figures) == ["stations_tiny_one_core", "stations_tiny_engine_one_core"]
    assert all(int(value) > 0 for value in figures.values())
    assert all(f"{key}: {value}" in report for key, value in figures.items())
    assert "ratio:" not in report


def test_names_what_is_missing(tmp_path: Path) -> None:
    """A bundle or a PhaseNet file that is not there is one line that names it, and exit status 2."""
    absent = tmp_path / "absent"
    done = run_script(str(absent), "--ours-only")
    assert done.returncode == 2
    assert str(absent) in done.stderr
    assert "Traceback" not in done.stderr
    done = run_script(str(write_tiny_bundle(tmp_path / "tiny")), "--phasenet", str(tmp_path / "absent.onnx"))
    assert done.returncode == 2
    assert "absent.onnx: no such file" in done.stderr
    assert "Traceback" not in done.stderr
