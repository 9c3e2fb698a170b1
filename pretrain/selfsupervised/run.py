"""A pretraining run from its first step, or from where it was left, to its last.

A run is a folder: ``settings.json`` (what was asked), ``log.jsonl`` and ``tensorboard/`` (what happened), ``last/`` (to
go on from), ``backbone.safetensors`` (what fine-tuning starts from) and ``figures/``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from picker.errors import ConfigError, OnsetError
from picker.version import installed_version
from pretrain.objectives.backbone_file import BACKBONE, save_backbone
from pretrain.objectives.objective import Batch
from pretrain.objectives.objective import Progress as Share
from pretrain.selfsupervised.checkpoint import Form, Saved, read_checkpoint, resume, save_checkpoint
from pretrain.selfsupervised.launch import Fabric, ready_objective, restart_advice
from pretrain.selfsupervised.records import Records
from pretrain.selfsupervised.settings import RunSettings, plain
from pretrain.selfsupervised.source import LabelledBatch, open_held_out, open_source
from pretrain.selfsupervised.trainer import Trainer

REHEARSED_STEPS = 2
_SHOWN = (("loss", "loss", 3), ("accuracy", "accuracy", 3), ("windows_per_s", "windows/s", 0))
Stop = Callable[[], bool]


class Run:
    """A trainer and what is kept of its work. Every rank has one; the first writes, unless nothing is to be written."""

    def __init__(self, settings: RunSettings, folder: Path, fabric: Fabric, form: Form, writes: bool = True) -> None:
        self.settings, self.folder, self.fabric, self.form, self.writes = settings, folder, fabric, form, writes
        self.console = Console(quiet=fabric.global_rank > 0)
        windows, seed = settings.training.windows(fabric.world_size), settings.training.seed
        objective, line = ready_objective(settings, fabric.device)
        source = open_source(settings.data, batch=windows, seed=seed, rank=fabric.global_rank, device=fabric.device)
        self.trainer = Trainer(objective, source, fabric, settings)
        self.first = fabric.global_rank == 0
        batches = open_held_out(settings.data, batch=windows, seed=seed, device=fabric.device) if self.first else []
        dtype = next(objective.parameters()).dtype
        self.held_out = [_precise(batch, dtype) for batch in batches]
        self.records = Records(settings, folder if writes and self.first else None, objective)
        self.validation: dict[str, float] = {}
        self.bar = _Bar(self.console, settings.training.steps)
        self.say(f"{settings.model.preset}: {sum(p.numel() for p in objective.parameters()):,} parameters; {line}")
        self.say(
            f"{fabric.world_size} x {fabric.device.type}, {settings.training.precision}, {windows} windows at once"
        )
        if (advice := restart_advice()) is not None:
            self.say(f"[bold yellow]{advice}[/]")

    def say(self, text: str) -> None:
        """A line on the terminal of the first rank."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def take_up(self, saved: Saved | None) -> None:
        """Go on from a checkpoint, and open the records of the run at its step."""
        notes = resume(saved, self.trainer) if saved is not None else []
        self.records.open(self.trainer.counters.step)
        for note in notes:
            self.say(note)
            self.records.event(self.trainer.counters.step, note)
        if self.records.folder is not None:
            text = json.dumps(plain(self.settings), indent=2) + "\n"
            (self.records.folder / "settings.json").write_text(text, encoding="utf-8")

    def learn(self, stop: Stop) -> None:
        """Train until the run is over, or until some rank's ``stop()`` says so: it is saved either way."""
        trainer, monitoring = self.trainer, self.settings.monitoring
        saved_at, over = time.monotonic(), trainer.share >= 1
        if over:
            self.say(f"this run is over, at step {trainer.counters.step}; more training.steps or minutes continue it")
            return
        with self.bar:
            while not over and not trainer.asked_to_stop:
                late = (time.monotonic() - saved_at) / 60 > (monitoring.checkpoint_minutes or float("inf"))
                trainer.step(stop=stop(), save=late and self.first)
                step, over = trainer.counters.step, trainer.share >= 1
                self.bar.at(step)
                if over or step % monitoring.log_every == 0:
                    self.log()
                if over or step % monitoring.validate_every == 0:
                    self.validate()
                if over or trainer.asked_to_save or step % monitoring.checkpoint_every == 0:
                    self.save()
                    saved_at = time.monotonic()
        if not over:
            self.save()
            self.say(f"stopped at step {trainer.counters.step} and saved; the same command goes on from there")

    def log(self) -> None:
        """What the steps since the last log came to, and what is alarming about it."""
        step, values = self.trainer.counters.step, self.trainer.figures()
        self.bar.describe(values)
        alarms, reason = self.records.train(step, values, self.trainer.counters.in_a_row)
        for alarm in alarms:
            self.say(f"[bold yellow]step {step}:[/] {alarm}")
        if reason is not None:
            self.save()
            raise OnsetError(f"{self.folder}: ended at step {step}: {reason}")

    def validate(self) -> None:
        """Judge the held-out windows on the first rank, while the others wait."""
        trainer = self.trainer
        if self.first:
            progress = Share(trainer.counters.step, trainer.share)
            # Compiled code would be compiled anew for every size of a last batch.
            with self.fabric.autocast(), torch.compiler.set_stance("force_eager"):
                self.validation = self.records.validation(trainer.objective, self.held_out, progress)
            shown = ("loss", "accuracy", "hard_perplexity")
            words = [
                f"{name} {self.validation[f'all/{name}']:.3f}" for name in shown if f"all/{name}" in self.validation
            ]
            self.say(f"step {trainer.counters.step}: held out {', '.join(words)}")
        self.fabric.barrier()
        trainer.restart_clock()

    def save(self) -> None:
        """The checkpoint, and the backbone by itself."""
        if self.writes:
            save_checkpoint(self.folder, self.trainer, self.form)
            if self.first:
                dtype = torch.float16 if self.form.sixteen_bit else torch.float32
                save_backbone(self.folder / BACKBONE, self.trainer.objective.backbone, self._provenance(), dtype)
        self.trainer.asked_to_save = False
        self.trainer.restart_clock()

    def _provenance(self) -> dict[str, Any]:
        asked = plain(self.settings)
        asked["data"]["pack"] = Path(asked["data"]["pack"]).name
        figures = {name: value for name, value in self.validation.items() if name.startswith("all/")}
        device = self.fabric.device
        versions = {"onset": installed_version(), "torch": torch.__version__}
        versions["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return {"settings": asked, "step": self.trainer.counters.step, "held_out": figures, "versions": versions}


class _Bar:
    """A progress bar of steps, drawn by the first rank."""

    def __init__(self, console: Console, steps: int) -> None:
        columns = TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")
        self.bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=console.quiet)
        self.task = self.bar.add_task("", total=steps)

    def __enter__(self) -> None:
        self.bar.start()

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def at(self, step: int) -> None:
        """So far."""
        self.bar.update(self.task, completed=step)

    def describe(self, values: Mapping[str, float]) -> None:
        """The loss and the speed, beside the bar."""
        words = [f"{word} {values[name]:.{digits}f}" for name, word, digits in _SHOWN if name in values]
        self.bar.update(self.task, description=", ".join(words))


def pretrain(settings: RunSettings, folder: Path, fabric: Fabric, stop: Stop, form: Form) -> None:
    """Train into ``folder``; a run found there goes on.

    Raises ConfigError where data, folder or memory do not fit, OnsetError where training diverges.
    """
    with _memory_named(settings):
        run = Run(settings, folder, fabric, form)
        run.take_up(read_checkpoint(folder))
        try:
            run.learn(stop)
        except OnsetError as error:
            run.records.event(run.trainer.counters.step, str(error))
            raise
        finally:
            run.records.close()


def rehearse(settings: RunSettings, fabric: Fabric) -> None:
    """Two steps and a validation that leave nothing behind: does it all work, and how fast is it?"""
    with _memory_named(settings):
        run = Run(settings, Path(), fabric, Form(), writes=False)
        run.take_up(None)
        for _ in range(REHEARSED_STEPS):
            run.trainer.step()
            run.trainer.take_news(everything=True)
            values = run.trainer.figures()
            run.say(f"step {run.trainer.counters.step}: {_words(values)}")
        run.validate()
        run.say("fast dev run: nothing was written")


def _words(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items() if not name.startswith("rate/"))


def _precise(labelled: LabelledBatch, dtype: torch.dtype) -> LabelledBatch:
    """Held-out windows in the precision of the weights."""
    batch = labelled.batch
    return replace(labelled, batch=Batch(batch.waveform.to(dtype), batch.valid))


@contextmanager
def _memory_named(settings: RunSettings) -> Iterator[None]:
    """Turns a GPU's lack of memory into an error that says what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        training = settings.training
        raise ConfigError(
            f"the GPU has too little memory ({str(error).partition('. ')[0]}): raise training.accumulate (is "
            f"{training.accumulate}; the steps stay the same), lower training.batch (is {training.batch}), or set "
            "model.checkpointing = true; where the data alone are too large for it, hold them in 16 bits (data.hold = "
            "'int16') or read them from disk (data.on_device = false and a folder of shards)"
        ) from error
