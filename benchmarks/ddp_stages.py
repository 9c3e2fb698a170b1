"""The four questions of `ddp_gpu.py`, each asked of ranks under torchrun."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ddp_launch import Launch
from ddp_rank import gradients_file
from ddp_report import Bar, table
from torch import Tensor

from pretrain.data.pack import save_pack
from pretrain.selfsupervised.monitor.journal import EVENT, TRAIN, VALIDATION, read_journal
from pretrain.simulate.crew import PACK, make_all
from pretrain.simulate.settings import SimulationSettings

EFFICIENCY = {2: 0.93, 4: None, 8: 0.90}
"""Least windows/s a GPU, over those of one GPU alone."""
DIFFERENCE = {"32-true": 1e-5, "bf16-mixed": 5e-2}
"""Largest norm of the difference of all gradients, over their norm.

In bfloat16 a kernel rounds otherwise for another batch, and here and there another code is then the likeliest; a mean
of the means of two ranks would be off by four times as much (a test says so).
"""
DIFFERENCE_ON_GPU = {**DIFFERENCE, "32-true": 1e-3}
"""There products may be rounded to tf32, and sums go in another order."""
LOST = 0.25
"""Largest share of what a run had learnt that it may lose by going on elsewhere; a run begun anew loses all of it."""
RANKS = 2
"""Of everything but the scaling."""


@dataclass(frozen=True)
class Size:
    """What is trained: windows of ``samples``, ``batch`` of them a rank in the scaling, and so on."""

    preset: str
    samples: int
    batch: int
    warm: int
    steps: int
    rounds: int
    precision: str
    compared: int
    """Windows of the one step whose gradients are compared."""
    run_batch: int
    run_steps: int
    rate: float
    records: int


TRIAL = Size("tiny", 1024, 8, 2, 4, 3, "32-true", 8, 8, 120, 3e-3, 64)
FULL = Size("base", 4096, 1024, 10, 20, 5, "bf16-mixed", 32, 128, 600, 1e-3, 1000)


class Bench:
    """What is measured so far, in a ``folder`` that may be thrown away."""

    def __init__(self, folder: Path, backend: str, ranks: Sequence[int], preset: str, batch: int | None) -> None:
        self.folder, self.ranks, self.gloo = folder, list(ranks), backend == "gloo"
        self.size = TRIAL if self.gloo else replace(FULL, preset=preset)
        self.size = replace(self.size, batch=batch or self.size.batch)
        self.sections: list[str] = []
        self.facts: list[str] = []
        self.values: dict[str, float] = {}
        self._number = 0
        self._whole: Path | None = None
        self.pack = folder / "pack.npz"
        settings = SimulationSettings(held_out_share=0.1)
        made = make_all(settings, PACK, self.size.records, workers=1)
        save_pack(self.pack, (one.packed for one in made if one.packed is not None))

    def settings(self, **tables: dict[str, Any]) -> dict[str, Any]:
        """Settings of a run, with ``tables`` on top."""
        size = self.size
        found: dict[str, dict[str, Any]] = {
            "model": {"preset": size.preset, "compile": False},
            "objective": {},
            "data": {"pack": str(self.pack), "window_samples": size.samples, "held_out_windows": 64},
            "training": {"precision": size.precision},
            "monitoring": {"tensorboard": False, "figures": "none"},
        }
        for name, values in tables.items():
            found[name] |= values
        return found

    def launch(self, do: str, ranks: int, settings: dict[str, Any], restarts: int = 0, **more: Any) -> Launch:
        """Start a job on some ranks."""
        self._number += 1
        say(f"{do} on {ranks} {'gloo rank' if self.gloo else 'GPU'}{'s' * (ranks > 1)}")
        job = {"do": do, "device": "cpu" if self.gloo else "cuda", "settings": settings, **more}
        return Launch(self.folder / f"job-{self._number:02d}", ranks, job, restarts)

    def whole(self) -> Path:
        """The folder of a run on two ranks that nothing interrupted."""
        if self._whole is None:
            self._whole = self.folder / "whole"
            self.part(self._whole, RANKS, self.size.run_steps)
        return self._whole

    def part(self, run: Path, ranks: int, steps: int) -> None:
        """``steps`` more of a run."""
        self.launch("train", ranks, self.run_settings(), run=str(run), part=steps).finish()

    def run_settings(self) -> dict[str, Any]:
        """Next-frame prediction: its loss falls from the first step on, so what a run has learnt can be read off it."""
        size, each = self.size, self.size.run_steps // 12
        training = {"steps": size.run_steps, "batch": size.run_batch, "rate": size.rate}
        every = {f"{name}_every": each for name in ("log", "validate", "checkpoint")}
        return self.settings(objective={"name": "autoregressive"}, training=training, monitoring=every)

    def bars(self, stages: Sequence[str]) -> list[Bar]:
        """Every bar, measured or not; those that ask nothing of a figure too."""
        found = []
        for ranks, least in EFFICIENCY.items():
            value, reason = self._measured("speed", f"speed {ranks}", ranks, False, stages)
            found.append(Bar(f"efficiency_{ranks}_gpus", least, True, value, reason))
        for gloo, where in ((False, "gpu"), (True, "gloo")):
            limits = DIFFERENCE if gloo else DIFFERENCE_ON_GPU
            most = {
                f"gradient_difference_2_{where}_ranks_float32": ("gradients", "gradients 32-true", limits["32-true"]),
                f"gradient_difference_2_{where}_ranks_bf16": (
                    "gradients",
                    "gradients bf16-mixed",
                    limits["bf16-mixed"],
                ),
                f"resume_lost_share_2_1_2_{where}_ranks": ("resume", "resume", LOST),
                # On a processor the run that was killed is, to the last bit, the run that was not.
                f"restart_lost_share_2_{where}_ranks": ("restart", "restart", 0.0 if gloo else LOST),
            }
            for key, (stage, name, limit) in most.items():
                value, reason = self._measured(stage, name, RANKS, gloo, stages)
                found.append(Bar(key, limit, False, value, reason))
        return found

    def _measured(
        self, stage: str, name: str, ranks: int, gloo: bool, stages: Sequence[str]
    ) -> tuple[float | None, str]:
        """A figure of some ``ranks``, or none and why."""
        if gloo != self.gloo:
            return None, "needs --backend gloo" if gloo else f"needs {ranks} GPUs"
        if name in self.values:
            return self.values[name], ""
        if stage not in stages:
            return None, f"--stages leaves out {stage}"
        return None, f"--ranks leaves out {ranks}" if gloo else f"needs {ranks} GPUs"


def scaling(bench: Bench) -> None:
    """The same batch on each rank, ever more ranks."""
    size, rows, each = bench.size, [], dict[int, float]()
    for ranks in bench.ranks:
        training = {"batch": size.batch * ranks, "steps": 100_000}
        settings = bench.settings(model={"compile": not bench.gloo}, training=training, objective=_small(bench))
        more = {"warm": size.warm, "steps": size.steps, "rounds": size.rounds}
        found = bench.launch("speed", ranks, settings, **more).finish()
        speeds = [speed / ranks for speed in found["windows_per_s"]]
        each[ranks] = median(speeds)
        efficiency = bench.values[f"speed {ranks}"] = each[ranks] / each[1]
        rows.append(
            [
                str(ranks),
                f"{each[ranks]:.1f} ({min(speeds):.1f} to {max(speeds):.1f})",
                f"{each[ranks] * ranks:.1f}",
                f"{efficiency:.3f}",
                f"{found['data_wait_share']:.1%}",
                f"{found['peak_memory_gib']:.1f}",
                f"{found['warm_s']:.0f}",
            ]
        )
    bench.facts.append(f"- scaling: `{size.preset}`, 3 x {size.samples} samples, {size.precision}; {found['line']}")
    kind = "rank" if bench.gloo else "GPU"
    header = [
        f"{kind}s",
        f"windows/s a {kind}",
        "windows/s",
        "efficiency",
        "waiting for data",
        "peak GiB",
        "warm-up, s",
    ]
    note = (
        f"{size.batch} windows a {kind}; medians of {size.rounds} rounds of {size.steps} steps, the range in brackets. "
        "Efficiency is windows/s a rank over those of one rank alone, which has no DDP."
    )
    if bench.gloo:
        note += " Speed here means nothing: ranks share the cores of one processor, and the network is tiny."
    bench.sections += ["## Weak scaling", note, table(header, rows)]


def gradients(bench: Bench) -> None:
    """One step over the same global batch on one rank and on two, in both precisions."""
    if RANKS not in bench.ranks:
        return
    limits = DIFFERENCE if bench.gloo else DIFFERENCE_ON_GPU
    model, objective = {"compile": False, "dropout": 0.0}, {"dropout": 0.0, **_small(bench)}
    settings = bench.settings(model=model, objective=objective, training={"batch": bench.size.compared, "clip": 1e9})
    rows, found, frames = [], dict[tuple[str, int], dict[str, Tensor]](), []
    for ranks in (1, RANKS):
        job = bench.launch("gradients", ranks, settings, precisions=list(limits))
        frames = job.finish()["frames"]
        for precision in limits:
            found[precision, ranks] = torch.load(job.folder / gradients_file(precision), weights_only=True)
    for precision, limit in limits.items():
        apart = bench.values[f"gradients {precision}"] = difference(found[precision, RANKS], found[precision, 1])
        rows.append([f"{RANKS} ranks and 1, {precision}", f"{apart:.2e}", f"<= {limit:g}"])
    apart = difference(found["bf16-mixed", 1], found["32-true", 1])
    rows.append(["1 rank, bf16-mixed and 32-true: what bfloat16 itself costs", f"{apart:.2e}", ""])
    note = (
        f"One step of the contrastive objective over {bench.size.compared} windows, dropout off, every row with the "
        f"same numbers on one rank and on two; masked frames of the two: {', '.join(f'{n:.0f}' for n in frames)}. The "
        "norm of the difference of all gradients, over their norm."
    )
    bench.sections += ["## Gradients", note, table(["", "difference", "tolerance"], rows)]


def resume(bench: Bench) -> None:
    """A third of a run on two ranks, a third on one, the rest on two; beside the run that stayed on two."""
    if RANKS not in bench.ranks:
        return
    run, third = bench.folder / "moved", bench.size.run_steps // 3
    for ranks in (RANKS, 1, RANKS):
        bench.part(run, ranks, third)
    _compare(bench, "resume", "Going on with another number of ranks", run, bench.whole(), (third, 2 * third))


def restart(bench: Bench) -> None:
    """kill -9 of the second rank after a third of a run; torchrun starts both again."""
    if RANKS not in bench.ranks:
        return
    run, third, whole = bench.folder / "killed", bench.size.run_steps // 3, bench.whole()
    more = {"run": str(run), "part": bench.size.run_steps}
    job = bench.launch("train", RANKS, bench.run_settings(), restarts=3, **more)
    job.kill_rank(1, run, third)
    job.finish()
    _compare(bench, "restart", "After kill -9 of one rank", run, whole, _taken_up(run))


def _compare(bench: Bench, key: str, title: str, run: Path, whole: Path, switches: Sequence[int]) -> None:
    """Held-out loss of two runs, step by step, from the first of the ``switches`` on."""
    losses, expected = held_out(run), held_out(whole)
    first, complete = min(expected), bool(switches) and losses.keys() == expected.keys() == _logged(run)
    shares = {
        step: abs(losses[step] - expected[step]) / (expected[first] - expected[step])
        for step in sorted(expected.keys() & losses.keys())
        if complete and step > switches[0]
    }
    # A run that logged a step twice or not at all, or was never taken up, did not go on.
    bench.values[key] = max(shares.values()) if shares else float("nan")
    rows = [
        [str(step), f"{expected[step]:.6f}", f"{losses.get(step, float('nan')):.6f}", f"{shares.get(step, 0.0):.4f}"]
        for step in expected
    ]
    note = (
        f"Taken up at step {' and '.join(map(str, switches)) or '(never)'}. Lost share: how far its held-out loss is "
        "from that of the uninterrupted run, over what that one had learnt since its first validation."
    )
    header = ["step", "loss, uninterrupted", "loss, this run", "lost share"]
    bench.sections += [f"## {title}", note, table(header, rows)]


def held_out(run: Path) -> dict[int, float]:
    """Held-out loss by step."""
    return {entry["step"]: entry["all/loss"] for entry in read_journal(run) if entry["kind"] == VALIDATION}


def _logged(run: Path) -> set[int]:
    """Steps of the training log, none where one is there twice."""
    steps = [entry["step"] for entry in read_journal(run) if entry["kind"] == TRAIN]
    return set(steps) if all(a < b for a, b in pairwise(steps)) else set()


def _taken_up(run: Path) -> tuple[int, ...]:
    """Steps from which a run went on."""
    texts = [entry["text"] for entry in read_journal(run) if entry["kind"] == EVENT]
    return tuple(int(text.rpartition(" ")[2]) for text in texts if text.startswith("going on from step "))


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Norm of the difference of all gradients over their norm; not a number where a gradient is missing."""
    if not expected or found.keys() != expected.keys():
        return float("nan")
    apart = torch.stack([(found[name] - expected[name]).norm() for name in expected]).norm()
    return float(apart / torch.stack([value.norm() for value in expected.values()]).norm())


def _small(bench: Bench) -> dict[str, Any]:
    """The objective of a trial."""
    quantizer = {"groups": 2, "codes": 32, "size": 32}
    return {"quantizer": quantizer, "negatives": {"count": 20}, "projection": 32} if bench.gloo else {}


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


STAGES: dict[str, Callable[[Bench], None]] = {
    "speed": scaling,
    "gradients": gradients,
    "resume": resume,
    "restart": restart,
}
