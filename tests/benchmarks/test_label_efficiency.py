"""The label-efficiency study trains, judges and reports what it says, and goes on where it was ended."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jobs import Job, python, run_jobs
from label_report import Found, bars, markdown

from picker.model.config import preset
from pretrain.data.pack import pack_trace, save_pack
from pretrain.objectives.backbone import Backbone
from pretrain.objectives.backbone_file import save_backbone

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(ROOT / "tests" / "pretrain"))
from training_data import quakes, trace  # noqa: E402


def study(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Two cells of two steps on one thread each."""
    command = [sys.executable, str(BENCHMARKS / "label_efficiency.py"), "pack.npz", "dev.npz"]
    command += ["--pretrained", "backbone.safetensors", "--keep", "runs", "--out", "report.md", "--seeds", "0"]
    command += ["--fractions", "1", "--steps", "2", "--batch", "2", "--window", "512", "--at-once", "2", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_study_trains_judges_and_goes_on(tmp_path: Path) -> None:
    """A cell that fails is named, with where it says why; the rest of a study is not run again."""
    seen = [*quakes(4), trace(name="n"), *(replace(t, fold="tune", name=t.name + "t") for t in quakes(2))]
    save_pack(tmp_path / "pack.npz", map(pack_trace, seen))
    save_pack(tmp_path / "dev.npz", map(pack_trace, (replace(t, split="dev") for t in quakes(3))))
    broken = study(tmp_path)
    assert broken.returncode == 1
    assert f"pretrained_1_0: exit 2, see {Path('runs/pretrained_1_0/output.txt')}" in broken.stderr
    assert "backbone.safetensors" in (tmp_path / "runs/pretrained_1_0/output.txt").read_text()
    assert "from-scratch_1_0: done" in broken.stderr
    assert "1 of 2 trainings: the study is not whole" in broken.stdout
    save_backbone(tmp_path / "backbone.safetensors", Backbone(preset("small")), {}, torch.float32)
    done = study(tmp_path)
    assert done.returncode == 0, done.stderr + (tmp_path / "runs/pretrained_1_0/output.txt").read_text()
    assert "1 of 2 trainings are there" in done.stderr
    assert "from-scratch_1_0: done" not in done.stderr
    rows = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| 100% ")]
    assert [row.split(" | ")[1:3] for row in rows] == [["pretrained", "1"], ["from scratch", "1"]]
    assert (tmp_path / "report.png").stat().st_size > 10_000
    assert "pretrained_less_scratch: not run" in done.stdout, "the bar compares 10 with 50 %"
    elsewhere = study(tmp_path, "--keep", "none", "--found", "report.json")
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert "2 of 2 trainings are there" in elsewhere.stderr, "taken from the earlier report, nothing runs again"


def found(start: str, fraction: float, *means: float) -> list[Found]:
    """Seeds whose four figures lie 0.1 and 0.2 above and below their mean."""
    off = {"P_0.5s": 0.2, "P_0.1s": 0.1, "S_0.5s": -0.1, "S_0.1s": -0.2}
    return [
        Found(start=start, fraction=fraction, seed=seed, f1={key: middle + more for key, more in off.items()})
        for seed, middle in enumerate(means)
    ]


def test_bars_compare_few_labels_with_many() -> None:
    """The difference of the means, and the standard error of it over the seeds."""
    few, many = found("pretrained", 0.1, 0.5, 0.6, 0.7), found("from scratch", 0.5, 0.58, 0.58, 0.61)
    lines = bars([*few, *many, *found("from scratch", 0.1, 0.2)], "pretrained", "from scratch")
    assert lines["f1_pretrained_10_percent"] == "0.600 ± 0.100"
    assert lines["f1_from_scratch_50_percent"] == "0.590 ± 0.017"
    assert lines["pretrained_less_scratch"] == "+0.010 ± 0.059"
    table = markdown([*few, *many], [], 6)
    assert "| 10% | pretrained | 3 | 0.800 ± 0.100 | 0.700 ± 0.100 | 0.500 ± 0.100 | 0.400 ± 0.100 |" in table
    assert "not whole" not in table


def test_a_chain_ends_with_its_first_failure(tmp_path: Path) -> None:
    """What follows is not begun; other chains go on; time that is up ends what still runs."""

    def job(name: str, *codes: str) -> Job:
        return Job(name=name, folder=tmp_path / name, commands=[python("-c", code) for code in codes])

    bad = job("bad", "print('first')", "import sys; sys.exit(3)", "print('third')")
    good = job("good", "print('only')")
    ended = {one.name: status for one, status in run_jobs([bad, good], at_once=2)}
    assert ended == {"bad": 3, "good": 0}
    assert (tmp_path / "bad" / "output.txt").read_text() == "first\n"
    assert list(run_jobs([job("slow", "import time; time.sleep(60)")], at_once=1, seconds=0.1)) == []


@pytest.mark.parametrize("script", ["label_efficiency.py", "cell_ablation.py"])
def test_help_says_what_it_takes(script: str) -> None:
    """Both start trainings, through the same runner."""
    done = subprocess.run(python(BENCHMARKS / script, "--help"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PACK" in done.stdout
