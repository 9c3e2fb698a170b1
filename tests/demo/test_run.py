"""The whole demo, with the shipped bundle, faster than a user runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_bundle import write_tiny_bundle

from demo.run import ROOT

SPEED = "30"


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "demo.run", "--out", str(out), "--speed", SPEED, *more]


def processes_of(out: Path) -> list[str]:
    """Command lines of the processes that know this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(out) in text:
            found.append(text)
    return found


def test_the_demo_meets_its_bar_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """At least six picks match, at most two are false, a picture is there, every process has ended."""
    done = subprocess.run(command(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed in" in done.stdout
    assert done.stderr == ""
    assert (tmp_path / "picks.png").stat().st_size > 100_000
    assert processes_of(tmp_path) == []


def test_a_daemon_that_refuses_to_start_is_one_clear_error(tmp_path: Path) -> None:
    """The name, the log's path and the daemon's own words; no traceback; exit status 2."""
    bundle = write_tiny_bundle(tmp_path / "bundle")
    (bundle / "model.onnx").write_bytes(b"not a graph")
    done = subprocess.run(
        command(tmp_path, "--bundle", str(bundle)), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "the daemon (streamer run) ended with status" in done.stdout
    assert str(tmp_path / "daemon.log") in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert processes_of(tmp_path) == []


def test_a_missing_bundle_is_one_clear_error(tmp_path: Path) -> None:
    """Before anything is started."""
    done = subprocess.run(
        command(tmp_path, "--bundle", str(tmp_path / "none")), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no such bundle folder" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_demo_that_is_stopped_takes_its_processes_with_it(tmp_path: Path, number: signal.Signals) -> None:
    """Exit status 130, no traceback, no process left."""
    bundle = write_tiny_bundle(tmp_path / "bundle")
    with subprocess.Popen(
        command(tmp_path, "--bundle", str(bundle)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        end_s = time.monotonic() + 30
        while not (tmp_path / "daemon.log").exists() and time.monotonic() < end_s:
            time.sleep(0.05)
        time.sleep(0.3)
        demo.send_signal(number)
        output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, output
    assert "Traceback" not in output
    assert processes_of(tmp_path) == []


def test_the_demo_brings_in_no_torch() -> None:
    """It runs in an environment without a deep-learning framework."""
    text = (
        "import sys, warnings; warnings.simplefilter('ignore'); import demo.run, demo.picture, demo.traces; "
        "sys.exit(str([name for name in sys.modules if name.split('.')[0] in ('torch', 'triton', 'lightning')]) "
        "if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
