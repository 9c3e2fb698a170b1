"""A run of two ranks outlives the death of one of them under torchrun, and goes on with another number of ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pretraining_run import CPU, program, toml, trainer, write_pack
from safetensors.torch import load_file

from pretrain.selfsupervised.checkpoint import read_checkpoint, resume
from pretrain.selfsupervised.settings import load
from pretrain.selfsupervised.source import open_source

ROOT = Path(__file__).parents[3]
# As docs/pretraining.md says: else ranks that are started again may read addresses of those before them, and hang.
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
ENVIRONMENT = {**os.environ, **OWN_STORE, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
BY_THE_CLOCK = ("seconds", "windows_per_s", "data_wait_share")
BANK = {"kind": "memory_bank", "count": 10, "pool": 16, "bank": 64}
STEPS = 64


@contextmanager
def launched(ranks: int, command: list[str], restarts: int = 0) -> Iterator[subprocess.Popen[str]]:
    """torchrun with a port of its own; nothing of it is left behind."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    launch.append(f"--max-restarts={restarts}")
    process = subprocess.Popen(
        [*launch, *command], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        # Ranks are in sessions of their own: torchrun ends them.
        process.terminate()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    """What it printed, once it has ended well."""
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, output + errors
    return output


def whole_run(ranks: int, command: list[str]) -> str:
    """The same from its start."""
    with launched(ranks, command) as process:
        return ended(process)


def command(config: Path, folder: Path, *more: str) -> list[str]:
    """What each rank runs."""
    return [*program(["run", str(config), str(folder), "--device", "cpu"])[1:], *more]


def saved_step(folder: Path) -> int:
    """Of the last checkpoint."""
    try:
        index = json.loads((folder / "last" / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return int(index["counters"]["step"])


def process_of(rank: int, launcher: int) -> int:
    """The process that torchrun has made this rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "environ").read_bytes().split(b"\0") if parent == launcher else []
        except OSError:
            continue
        if f"RANK={rank}".encode() in words:
            return int(folder.name)
    raise AssertionError(f"torchrun {launcher} has no rank {rank}")


def log(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Entries of one kind without what depends on the clock."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry for entry in map(json.loads, lines) if entry["kind"] == kind]
    return [{k: v for k, v in entry.items() if k not in BY_THE_CLOCK} for entry in entries]


def notes(folder: Path) -> list[str]:
    """What happened to a run."""
    return [entry["text"] for entry in log(folder, "event")]


def state(folder: Path) -> dict[str, Any]:
    """Weights, moments and what belongs to each rank."""
    files = sorted((folder / "last").glob("*.safetensors"))
    return {f"{file.stem} {name}": value for file in files for name, value in load_file(file).items()}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings with dropout, a bank of negatives for each rank and a revival of codes: everything with a memory."""
    folder = tmp_path_factory.mktemp("ranks")
    objective = {"negatives": BANK, "revive_every": 7}
    return toml(folder / "run.toml", write_pack(folder / "pack.npz"), objective=objective, training={"steps": STEPS})


@pytest.fixture(scope="module")
def whole(config: Path) -> Path:
    """The run of two ranks, never interrupted."""
    whole_run(2, command(config, config.parent / "whole"))
    return config.parent / "whole"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are found through /proc")
def test_a_killed_rank_is_started_again(config: Path, whole: Path, tmp_path: Path) -> None:
    """kill -9 of the rank that writes (of the other: tests/benchmarks): all start again from the last checkpoint.

    Each step is in the log once, and log, weights, moments and what each rank keeps equal, to the last bit, those of
    the run that was never interrupted.
    """
    folder = tmp_path / "run"
    with launched(2, command(config, folder), restarts=3) as process:
        while saved_step(folder) < 10:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        os.kill(process_of(0, process.pid), signal.SIGKILL)
        output = ended(process)
    said = [note for note in notes(folder) if note.startswith("going on")]
    assert len(said) == 1
    assert said[0] in output
    assert 10 <= int(said[0].rpartition(" ")[2]) < STEPS
    for kind, every in (("train", 4), ("validation", 8)):
        assert [entry["step"] for entry in log(folder, kind)] == list(range(every, STEPS + 1, every))
        assert log(folder, kind) == log(whole, kind)
    mine, theirs = state(folder), state(whole)
    assert mine.keys() == theirs.keys()
    assert any(name.startswith("rank-1 buffer/negatives") for name in mine)
    assert [name for name in mine if not mine[name].equal(theirs[name])] == []


def test_on_one_rank_and_back(config: Path, whole: Path, tmp_path: Path) -> None:
    """Stopped on two ranks, stopped on one, ended on two: each takes up what the one before left, and says so.

    Every step is in the log once, and up to the first stop the log is that of the run that stayed on two.
    """
    folder = tmp_path / "run"
    said = []
    for ranks, stops in ((2, True), (1, True), (2, False)):
        until = saved_step(folder) + 5
        with launched(ranks, command(config, folder)) as process:
            while stops and saved_step(folder) < until:
                assert process.poll() is None, process.communicate()
                time.sleep(0.005)
            if stops:
                os.kill(process_of(0, process.pid), signal.SIGTERM)
            said.append((ended(process), saved_step(folder)))
    (_, first), (second, middle), (third, last) = said
    assert 5 <= first < middle < last == STEPS
    assert f"going on from step {first}" in second
    assert "it was written by 2 ranks, and these are 1" in second
    assert f"going on from step {middle}" in third
    assert "it was written by 1 ranks, and these are 2" in third
    mine, theirs = log(folder, "train"), log(whole, "train")
    assert [entry["step"] for entry in mine] == list(range(4, STEPS + 1, 4))
    assert mine[: first // 4] == theirs[: first // 4]
    assert mine[-1] != theirs[-1]


def test_one_rank_takes_up_all_that_two_had_alike(config: Path, whole: Path) -> None:
    """Weights, moments, counters and rates to the last bit; the draws are those of one rank with this micro-batch."""
    saved, asked = read_checkpoint(whole), load(config)
    assert saved is not None
    source = open_source(asked.data, batch=asked.training.windows(1), seed=0, rank=0, device=CPU)
    made = trainer(asked, source)
    resume(saved, made)
    assert made.counters.step == STEPS
    moments = made.optimizer.adam.state
    for name, weight in made.objective.named_parameters():
        assert torch.equal(weight, saved.tensors[f"weight/{name}"]), name
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(moments[weight][key], saved.tensors[f"{key}/{name}"]), (name, key)
    assert made.share == 1
    two = open_source(asked.data, batch=asked.training.windows(2), seed=0, rank=0, device=CPU).batch(STEPS)
    assert not torch.equal(source.batch(STEPS).waveform[: len(two.waveform)], two.waveform)
