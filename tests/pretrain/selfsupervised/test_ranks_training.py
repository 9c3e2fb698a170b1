"""Two ranks make the step that one rank with the whole batch makes, and agree about everything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from one_training_rank import PLAIN
from pretraining_run import Rows, gradients, program, settings, toml, trainer, write_pack

from pretrain.objectives import draws
from pretrain.selfsupervised.checkpoint import read_checkpoint, resume

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(autouse=True)
def _own_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "uniform", draws.uniform)


def torchrun(*arguments: str) -> str:
    """Two processes; what they printed."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*LAUNCH, *arguments], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of a run of two ranks, and what each saw."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun(str(HERE / "one_training_rank.py"), str(folder))
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_ranks_step_as_one(two: tuple[Path, list[dict[str, Any]]]) -> None:
    """Gradients to 1e-6 in float64 with unequal masks, diversity included; the figures logged are those of all."""
    made = trainer(settings(**PLAIN), Rows(1))
    made.step()
    expected, figures = gradients(made), made.figures()
    for found in two[1]:
        torch.testing.assert_close(found["gradients"], expected, rtol=1e-6, atol=1e-9)
        for name in ("loss", "accuracy", "frames", "gradient_norm", "hard_perplexity", "diversity"):
            assert found["figures"][name] == pytest.approx(figures[name], rel=1e-6), name


def test_what_one_rank_meets_all_know(two: tuple[Path, list[dict[str, Any]]]) -> None:
    """A gradient that is not finite on one rank is skipped on both; so with the wish to stop and to save."""
    first, second = two[1]
    assert first["skipped"] == second["skipped"] == 1
    assert first["asked"] == second["asked"] == (True, True)
    shared = [name for name in first["weights"] if name != "quantizer.usage"]
    assert [name for name in shared if not torch.equal(first["weights"][name], second["weights"][name])] == []


def test_masks_differ_between_ranks(two: tuple[Path, list[dict[str, Any]]]) -> None:
    """And between steps."""
    seen = [mask.numpy().tobytes() for found in two[1] for mask in found["masks"]]
    assert len(seen) == 4
    assert len(set(seen)) == 4


def test_another_number_of_ranks_goes_on(two: tuple[Path, list[dict[str, Any]]]) -> None:
    """With a note; weights and moments are there, and what each rank kept for itself begins anew."""
    saved = read_checkpoint(two[0] / "run")
    assert saved is not None
    usage = [own["buffer/quantizer.usage"] for own in saved.ranks]
    assert not torch.equal(usage[0], usage[1])
    made = trainer(settings(**PLAIN), Rows(1))
    notes = resume(saved, made)
    assert "written by 2 ranks, and these are 1" in notes[-1]
    assert made.counters.step == 3
    assert torch.equal(made.objective.state_dict()["mask_embedding"], two[1][0]["weights"]["mask_embedding"])
    assert made.objective.state_dict()["quantizer.usage"].sum() == 0


def test_a_run_of_two_ranks(tmp_path: Path) -> None:
    """The program under torchrun: one log, one validation, and the same command goes on."""
    config = toml(tmp_path / "run.toml", write_pack(tmp_path / "pack.npz"), training={"steps": 6})
    command = [*program(["run", str(config), str(tmp_path / "run"), "--device", "cpu"])[1:]]
    torchrun(*command, "--set", "training.steps=4")
    assert "going on from step 4" in torchrun(*command)
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["kind"] == "train"] == [4, 6]
    assert [entry["step"] for entry in entries if entry["kind"] == "validation"] == [4, 6]
