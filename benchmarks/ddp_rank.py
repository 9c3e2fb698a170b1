"""One rank of `ddp_gpu.py`, started by torchrun: ``ddp_rank.py JOB.json``.

A job says what to do, with which settings, on which device, and the folder where rank 0 leaves what it found. All three
jobs are the trainer of `pretrain run`: its steps timed, the gradients of one step, or the whole run.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from picker.model.config import PRESETS, LevelConfig, ModelConfig
from pretrain.objectives import draws
from pretrain.objectives.objective import Batch
from pretrain.selfsupervised.checkpoint import Form
from pretrain.selfsupervised.launch import Fabric, open_fabric, ready_objective
from pretrain.selfsupervised.run import pretrain
from pretrain.selfsupervised.settings import RunSettings
from pretrain.selfsupervised.source import Source, open_source
from pretrain.selfsupervised.trainer import Trainer
from pretrain.train import stopped_by_signal

FOUND, PIDS = "found.json", "pids"
TINY = ModelConfig(
    name="tiny",
    levels=tuple(LevelConfig(width=16, heads=1, down_blocks=1, up_blocks=1) for _ in range(2)),
    encoder_features=16,
    head_features=16,
    key_size=16,
    value_size=16,
)
"""For a trial on a processor."""


class Rows:
    """The rows of this rank of one batch that all ranks know whole; the first half of it holds ever less data.

    So ranks have unequal numbers of masked frames, where a mean of the means of ranks would be wrong.
    """

    def __init__(self, settings: RunSettings, fabric: Fabric) -> None:
        batch = settings.training.batch
        size, self.waited_s = batch // fabric.world_size, 0.0
        self.rows = slice(fabric.global_rank * size, (fabric.global_rank + 1) * size)
        seed = settings.training.seed
        whole = open_source(settings.data, batch=batch, seed=seed, rank=0, device=fabric.device).batch(0)
        samples = settings.data.window_samples
        ends = torch.full((batch,), samples, device=fabric.device)
        ends[: batch // 2] = torch.linspace(0.8, 0.2, batch // 2, device=fabric.device).mul(samples).long()
        there = whole.valid & (torch.arange(samples, device=fabric.device) < ends[:, None, None])
        self.whole = Batch(whole.waveform * there, there)

    def batch(self, index: int) -> Batch:
        """The same windows at every step."""
        return Batch(self.whole.waveform[self.rows], self.whole.valid[self.rows])


def numbers_of_rows(rows: slice, batch: int) -> Callable[..., Tensor]:
    """Stands in for ``draws.uniform``: each row gets the numbers that it would get in the whole ``batch``.

    In a run the draws follow from seed, rank and micro-batch, so two ranks never draw what one draws; only so can their
    gradients be compared.
    """
    calls: Iterator[int] = count()

    def uniform(_: torch.Generator, *shape: int, like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        call = torch.Generator().manual_seed(next(calls))
        if shape == (1,):
            return torch.rand(1, generator=call).to(like.device, dtype)
        return torch.rand(batch, *shape[1:], generator=call)[rows].to(like.device, dtype)

    return uniform


def made(settings: RunSettings, fabric: Fabric, source: Source) -> tuple[Trainer, str]:
    """A trainer as ``pretrain run`` makes it, and the line that says which mLSTM runs."""
    objective, line = ready_objective(settings, fabric.device)
    return Trainer(objective, source, fabric, settings), line


def speed(job: dict[str, Any], settings: RunSettings, fabric: Fabric) -> dict[str, Any]:
    """Windows/s of all ranks together in each of some rounds, by the trainer's own count; compiling is left out."""
    windows, seed = settings.training.windows(fabric.world_size), settings.training.seed
    source = open_source(settings.data, batch=windows, seed=seed, rank=fabric.global_rank, device=fabric.device)
    trainer, line = made(settings, fabric, source)
    began = time.perf_counter()
    for _ in range(job["warm"]):
        trainer.step()
    trainer.figures()
    warm_s, rounds = time.perf_counter() - began, []
    for _ in range(job["rounds"]):
        fabric.barrier()
        trainer.restart_clock()
        for _ in range(job["steps"]):
            trainer.step()
        rounds.append(trainer.figures())
    return {
        "windows_per_s": [figures["windows_per_s"] for figures in rounds],
        "data_wait_share": max(figures["data_wait_share"] for figures in rounds),
        "peak_memory_gib": max(figures.get("peak_memory_gib", 0.0) for figures in rounds),
        "skipped": trainer.counters.skipped,
        "warm_s": warm_s,
        "line": line,
    }


def gradients(job: dict[str, Any], settings: RunSettings, fabric: Fabric) -> dict[str, Any]:
    """Every gradient after one step over the rows of this rank, in each precision; masked frames of each rank."""
    found: dict[str, Any] = {}
    for precision in job["precisions"]:
        training = settings.training.model_copy(update={"precision": precision})
        asked = settings.model_copy(update={"training": training})
        fabric = open_fabric(asked, job["device"])
        source = Rows(asked, fabric)
        trainer, _ = made(asked, fabric, source)
        draws.uniform = numbers_of_rows(source.rows, training.batch)
        trainer.step()
        frames: list[Any] = [float(_own_statistics(trainer)["count"])]
        if fabric.world_size > 1:
            mine, frames = frames[0], [None] * fabric.world_size
            distributed.all_gather_object(frames, mine)
        found["frames"] = frames
        if fabric.global_rank == 0:
            named = {name: p.grad for name, p in trainer.objective.named_parameters() if p.grad is not None}
            path = Path(job["folder"]) / gradients_file(precision)
            torch.save({name: gradient.float().cpu() for name, gradient in named.items()}, path)
    return found


def gradients_file(precision: str) -> str:
    """Name of the file that rank 0 leaves."""
    return f"gradients-{precision}.pt"


def _own_statistics(trainer: Trainer) -> dict[str, Tensor]:
    """Those of the last step on this rank alone."""
    assert trainer.sums.vector is not None
    sizes = [torch.Size(shape).numel() for shape in trainer.sums.shapes.values()]
    return dict(zip(trainer.sums.shapes, trainer.sums.vector.split(sizes), strict=True))


def train(job: dict[str, Any], settings: RunSettings, fabric: Fabric) -> dict[str, Any]:
    """A run, or a part of it: it ends, saved, after ``job["part"]`` steps."""
    pids = Path(job["folder"]) / PIDS
    pids.mkdir(exist_ok=True)
    (pids / str(fabric.global_rank)).write_text(str(os.getpid()))
    steps = count(1)
    with stopped_by_signal() as stop:
        pretrain(settings, Path(job["run"]), fabric, lambda: next(steps) >= job["part"] or stop(), Form())
    return {}


JOBS = {"speed": speed, "gradients": gradients, "train": train}


def main(path: Path) -> int:
    """Do a job."""
    warnings.simplefilter("ignore")
    PRESETS["tiny"] = TINY
    job = json.loads(path.read_text(encoding="utf-8"))
    settings = RunSettings.model_validate(job["settings"])
    fabric = open_fabric(settings, job["device"])
    found = JOBS[job["do"]](job, settings, fabric)
    if fabric.global_rank == 0:
        (Path(job["folder"]) / FOUND).write_text(json.dumps(found), encoding="utf-8")
    fabric.barrier()
    if distributed.is_initialized():
        distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
