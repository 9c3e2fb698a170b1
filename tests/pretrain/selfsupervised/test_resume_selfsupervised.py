"""A run that was killed, stopped or interrupted goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pretraining_run import program, toml, write_pack
from safetensors.torch import load_file
from source_data import trace, write_folder

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
BY_THE_CLOCK = ("seconds", "windows_per_s", "data_wait_share")
STEPS = 60


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of all runs here."""
    return write_pack(tmp_path_factory.mktemp("data") / "pack.npz")


@pytest.fixture
def config(tmp_path: Path, pack: Path) -> Path:
    """Settings with dropout, a bank of negatives and a revival of codes: everything that has a memory."""
    negatives = {"kind": "memory_bank", "count": 10, "pool": 16, "bank": 64}
    objective = {"negatives": negatives, "revive_every": 7}
    return toml(tmp_path / "run.toml", pack, objective=objective, training={"steps": STEPS, "accumulate": 2})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, pack: Path) -> Path:
    """The same run, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    negatives = {"kind": "memory_bank", "count": 10, "pool": 16, "bank": 64}
    objective = {"negatives": negatives, "revive_every": 7}
    settings = toml(folder / "run.toml", pack, objective=objective, training={"steps": STEPS, "accumulate": 2})
    finish(settings, folder / "run")
    return folder / "run"


def started(config: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    """A run in a process of its own."""
    arguments = program(["run", str(config), str(folder), "--device", "cpu", *more])
    return subprocess.Popen(
        arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(config: Path, folder: Path, *more: str) -> str:
    """Run to the end; what it printed."""
    process = started(config, folder, *more)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, output + errors
    return output


def logged(folder: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock, and without events, which say that the run went on."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [{k: v for k, v in e.items() if k not in BY_THE_CLOCK} for e in entries if e["kind"] != "event"]


def state(folder: Path) -> dict[str, Any]:
    """Weights, moments and what belongs to the rank."""
    found: dict[str, Any] = {}
    for file in sorted((folder / "last").glob("*.safetensors")):
        found |= load_file(file)
    return found


def steps_of(folder: Path) -> Iterator[int]:
    """Steps of checkpoints as they appear."""
    while True:
        try:
            yield json.loads((folder / "last" / "index.json").read_text(encoding="utf-8"))["counters"]["step"]
        except (OSError, ValueError):
            yield 0
        time.sleep(0.005)


def equal(folder: Path, whole: Path) -> None:
    """To the last bit."""
    assert logged(folder) == logged(whole)
    assert [entry["step"] for entry in logged(folder) if entry["kind"] == "train"] == list(range(4, 61, 4))
    mine, theirs = state(folder), state(whole)
    assert mine.keys() == theirs.keys()
    assert any(name.startswith("buffer/negatives") for name in mine)
    assert [name for name in mine if not mine[name].equal(theirs[name])] == []
    assert (folder / "backbone.safetensors").read_bytes()[-1000:] == (whole / "backbone.safetensors").read_bytes()[
        -1000:
    ]


def test_killed_and_taken_up_again(config: Path, tmp_path: Path, whole: Path) -> None:
    """kill -9 after a checkpoint; the same command; the log and all state equal those of the uninterrupted run."""
    folder = tmp_path / "run"
    process = started(config, folder)
    for step in steps_of(folder):
        if step >= 10:
            break
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    assert next(steps_of(folder)) < STEPS
    assert "going on from step" in finish(config, folder)
    equal(folder, whole)
    assert "this run is over, at step 60" in finish(config, folder)
    equal(folder, whole)


def test_a_signal_saves_and_exits(config: Path, tmp_path: Path, whole: Path) -> None:
    """At whatever step it comes, statistics half way to the next log included."""
    folder = tmp_path / "run"
    process = started(config, folder)
    for step in steps_of(folder):
        if step >= 5:
            break
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "the same command goes on from there" in output
    assert 5 <= next(steps_of(folder)) < STEPS
    finish(config, folder)
    equal(folder, whole)


def test_a_signal_to_all_processes(tmp_path: Path) -> None:
    """Ctrl-C in a terminal, and Slurm, reach the processes that read data too: the run is saved all the same."""
    traces = [trace(f"t{n}", 1500, [("P", 700.0)], fold="tune" if n > 5 else "train") for n in range(8)]
    pack = write_folder(tmp_path / "pack", [traces])
    data = {"on_device": False, "workers": 2}
    config = toml(tmp_path / "run.toml", pack, data=data, training={"steps": 10_000})
    process = started(config, tmp_path / "run")
    for step in steps_of(tmp_path / "run"):
        if step >= 5:
            break
        assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "the same command goes on from there" in output


def test_another_configuration_is_refused(config: Path, tmp_path: Path, pack: Path) -> None:
    """By the name of its key; a longer run is none."""
    folder = tmp_path / "run"
    finish(config, folder, "--set", "training.steps=2")
    process = started(config, folder, "--set", "training.rate=0.002", "--set", "objective.mask.share=0.5")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "objective.mask.share 0.65 (now 0.5), training.rate 0.001 (now 0.002); use another folder" in errors
    assert "going on from step 2" in finish(config, folder, "--set", "training.steps=3")


def test_a_rehearsal_writes_nothing(config: Path, tmp_path: Path) -> None:
    """Two steps and a validation; neither the folder of the run nor anything else appears."""
    before = sorted(tmp_path.rglob("*"))
    output = finish(config, tmp_path / "run", "--fast-dev-run")
    assert "step 2: loss" in output
    assert "held out loss" in output
    assert sorted(tmp_path.rglob("*")) == before
