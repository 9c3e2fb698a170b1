"""The benchmark of several GPUs asks its questions of ranks on a processor, and sees what it should see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPT = BENCHMARKS / "ddp_gpu.py"


def run_script(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = f"{ROOT}{os.pathsep}{BENCHMARKS}"
    environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def figures_of(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What stands between the last fences."""
    return dict(line.split(": ", 1) for line in done.stdout.split("```")[-2].split("\n") if line)


def test_speed_and_gradients_of_two_ranks(tmp_path: Path) -> None:
    """Gradients of two ranks with unequal masks are those of one; bars of GPUs are not run, and no speed is one."""
    out = tmp_path / "results" / "report.md"
    done = run_script(
        SCRIPT, "--backend", "gloo", "--ranks", "1", "2", "--stages", "speed", "gradients", "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    report, figures = out.read_text(), figures_of(done)
    assert report.strip() in done.stdout
    assert 0 < float(figures.pop("gradient_difference_2_gloo_ranks_float32")) < 1e-5
    assert 1e-5 < float(figures.pop("gradient_difference_2_gloo_ranks_bf16")) < 5e-2
    assert [int(n) for n in report.partition("masked frames of the two: ")[2].partition(".")[0].split(", ")] == [
        323,
        637,
    ]
    assert figures.pop("efficiency_8_gpus") == "not run: needs 8 GPUs"
    assert figures.pop("restart_lost_share_2_gloo_ranks") == "not run: --stages leaves out restart"
    assert all(value.startswith("not run: ") for value in figures.values())
    assert len(figures) == 7
    assert "Speed here means nothing" in report


def test_a_killed_rank_loses_nothing(tmp_path: Path) -> None:
    """torchrun starts both again, and the curve is, to the last bit, that of the run that was left alone."""
    out = tmp_path / "report.md"
    done = run_script(SCRIPT, "--backend", "gloo", "--stages", "restart", "--out", str(out))
    assert done.returncode == 0, done.stderr + done.stdout
    assert figures_of(done)["restart_lost_share_2_gloo_ranks"] == "0"
    assert "Taken up at step " in out.read_text()
    assert "(never)" not in out.read_text()


def test_several_gpus_that_are_not_there() -> None:
    """Without a GPU it says how to try it, and measures nothing."""
    done = run_script(SCRIPT)
    assert done.returncode == 1
    assert done.stderr.strip() == "no CUDA device: --backend gloo --ranks 1 2 tries the script on a processor"


MEANS = """
import sys
from pathlib import Path

import ddp_rank
from ddp_stages import DIFFERENCE, Bench, _small, difference
from pretrain.selfsupervised.launch import open_fabric
from pretrain.selfsupervised.settings import RunSettings

ddp_rank.PRESETS["tiny"] = ddp_rank.TINY
bench = Bench(Path(sys.argv[1]), "gloo", [1, 2], "base", None)
objective = {"dropout": 0.0, **_small(bench)}
plain = {"model": {"dropout": 0.0}, "training": {"batch": 8, "clip": 1e9}}
settings = RunSettings.model_validate(bench.settings(objective=objective, **plain))
fabric = open_fabric(settings, "cpu")


def of(first, last):
    source = ddp_rank.Rows(settings, fabric)
    source.rows = slice(first, last)
    trainer, _ = ddp_rank.made(settings, fabric, source)
    ddp_rank.draws.uniform = ddp_rank.numbers_of_rows(source.rows, 8)
    trainer.step()
    frames = float(ddp_rank._own_statistics(trainer)["count"])
    return {name: p.grad.clone() for name, p in trainer.objective.named_parameters()}, frames


(whole, all_frames), (a, m), (b, n) = of(0, 8), of(0, 4), of(4, 8)
assert m + n == all_frames
wrong = difference({name: (a[name] + b[name]) / 2 for name in whole}, whole)
right = difference({name: (a[name] * m + b[name] * n) / (m + n) for name in whole}, whole)
assert difference({}, whole) != difference({}, whole)
print(wrong, right, DIFFERENCE["bf16-mixed"])
"""


def test_a_mean_of_means_misses_the_bar(tmp_path: Path) -> None:
    """What DDP does by itself is wrong where ranks have unequal masks, and by far more than bfloat16 may be."""
    script = tmp_path / "means.py"
    script.write_text(MEANS)
    done = run_script(script, str(tmp_path))
    assert done.returncode == 0, done.stderr
    wrong, right, tolerance = map(float, done.stdout.split("\n")[-2].split())
    assert wrong > 3 * tolerance
    assert right < 1e-3


CURVES = """
import json, math, sys
from pathlib import Path
from types import SimpleNamespace

from ddp_report import Bar
from ddp_stages import LOST, _compare


def run(name, losses, steps=None):
    folder = Path(sys.argv[1]) / name
    folder.mkdir()
    lines = [{"kind": "validation", "step": 10 * n, "all/loss": loss} for n, loss in enumerate(losses, 1)]
    lines += [{"kind": "train", "step": step} for step in steps or range(10, 10 * len(losses) + 1, 10)]
    (folder / "log.jsonl").write_text("\\n".join(json.dumps({"seconds": 0.0, **line}) for line in lines))
    return folder


def lost(folder, switches):
    bench = SimpleNamespace(values={}, sections=[])
    _compare(bench, "it", "title", folder, whole, switches)
    return Bar("it", LOST, False, bench.values["it"]).met


whole = run("whole", [4.0, 3.0, 2.5, 2.2])
print(lost(run("same", [4.0, 3.0, 2.5, 2.2]), (20,)))
print(lost(run("near", [4.0, 3.0, 2.6, 2.3]), (20,)))
print(lost(run("anew", [4.0, 3.0, 4.0, 3.0]), (20,)))
print(lost(run("never", [4.0, 3.0, 2.5, 2.2]), ()))
print(lost(run("short", [4.0, 3.0, 2.5]), (20,)))
print(lost(run("twice", [4.0, 3.0, 2.5, 2.2], [10, 20, 20, 30, 40]), (20,)))
print(Bar("it", LOST, False, math.nan).met, Bar("it", LOST, False, None, "needs 2 GPUs").met)
"""


def test_a_run_begun_anew_misses_the_bar(tmp_path: Path) -> None:
    """So does one that was never taken up, ended early or logged a step twice; what was not run is no pass."""
    script = tmp_path / "curves.py"
    script.write_text(CURVES)
    done = run_script(script, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "False", "False", "False", "False", "False", "None"]
