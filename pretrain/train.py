"""Supervised training of a picker on a pack: one plain loop, on a GPU or on a CPU, and the command ``pretrain train``.

A run is a folder: ``settings.json`` (what was asked), ``log.jsonl`` (one line each ``log_every`` steps and each
validation), ``last.pt`` (to go on from; written beside and renamed) and ``picker.safetensors`` (averaged weights of
the best validation: what `python -m export build` takes).
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from picker.errors import ConfigError
from picker.model.checkpoint import save_picker
from picker.model.config import PRESETS
from pretrain.bank import Bank
from pretrain.data import Trace, load_pack
from pretrain.data.folds import label_fraction
from pretrain.data.trace import LABELLED, NOISE, PSEUDO, SIMULATED, TRAIN, TUNE
from pretrain.selfsupervised.monitor.journal import finite, forget_after
from pretrain.settings import AUGMENTATIONS, SHARES, TrainSettings
from pretrain.trainer import Trainer
from pretrain.validate import summary, validate

REHEARSED_STEPS = 3

DESCRIPTION = """\
Train a picker on a pack and keep the averaged weights of its best validation. Needs PyTorch (pip install
'onset[train]'). RUN is a folder:

  settings.json       what was asked
  log.jsonl           loss, gradient norm and, at each validation, F1 on the fold tune, one JSON object a line
  last.pt             everything needed to go on; written at each validation and when stopped
  picker.safetensors  the best weights so far: python -m export build RUN BUNDLE

Ctrl-C or SIGTERM finishes the step, saves and exits; the same command then goes on as if nothing had happened (on
a CPU to the last bit). --steps, --minutes and --validate-every may change between the parts of a run; whatever else
shapes the weights may not."""

EXAMPLES = """\
examples:
  see that it runs and how long it will take, and write nothing:
    pretrain train train.npz runs/first --dry-run
  one GPU (found by itself), with faster steps after a slow start:
    pretrain train train.npz runs/first --batch 64 --steps 6000 --compile
  a CPU, an hour: fewer and shorter windows; the learning rate follows the clock
    pretrain train train.npz runs/cpu --device cpu --batch 16 --window-samples 3072 --minutes 60
  go on after an interruption, or make a run longer:
    pretrain train train.npz runs/first --batch 64 --steps 9000 --compile"""


def folds_of(settings: TrainSettings) -> tuple[list[Trace], list[Trace]]:
    """Traces to learn from and traces to judge by; raises ConfigError where the packs lack labels in either fold."""
    packs = (settings.pack, *settings.more)
    traces = [t for pack in packs for t in load_pack(pack, folds=(TRAIN, TUNE), kinds=(LABELLED, PSEUDO, NOISE))]
    learn = [trace for trace in traces if trace.fold == TRAIN]
    if settings.label_fraction < 1:
        learn = label_fraction(learn, settings.label_fraction, settings.seed)
    # Picks of doubtful quality serve as weak labels, but do not judge; nor do simulated ones where there are others.
    judge = [trace for trace in traces if trace.fold == TUNE and trace.status != "manual_lowq"]
    if any(trace.labels and trace.status != SIMULATED for trace in judge):
        judge = [trace for trace in judge if trace.status != SIMULATED]
    for fold, chosen in ((TRAIN, learn), (TUNE, judge)):
        if not any(trace.labels for trace in chosen):
            raise ConfigError(
                f"{settings.pack}: no labelled trace in fold {fold}; pack more events, or another --tune-share, "
                "with `pretrain pack`"
            )
    return learn, judge


def train(
    settings: TrainSettings, folder: Path, device: torch.device, stop: Callable[[], bool] = lambda: False
) -> dict[str, float]:
    """Train until ``steps`` or ``minutes`` are over or ``stop()`` says so; a run found in ``folder`` goes on.

    Returns the summary of the last validation, empty where there was none. Raises ConfigError where the pack or the
    folder does not fit, OnsetError where training diverges.
    """
    learn, judge = folds_of(settings)
    trainer = Trainer(settings, folder, device)
    if (folder / "last.pt").is_file():
        trainer.resume()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")
    forget_after(folder / "log.jsonl", trainer.step)
    bank, figures = Bank(learn, settings.drawn, device), {}
    began = time.monotonic() - trainer.spent_s
    with _bar() as bar, (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        task = bar.add_task("", total=settings.steps, completed=trainer.step)
        _say(bar.console, trainer.kernels)
        while not trainer.over and not stop():
            loss, norm = trainer.train_step(bank)
            trainer.spent_s = time.monotonic() - began
            bar.update(task, completed=trainer.step)
            entry: dict[str, Any] = {}
            if trainer.step % settings.log_every == 0:
                entry = {"loss": loss.item(), "gradient_norm": norm.item(), "skipped_steps": trainer.skipped}
                bar.update(task, description=f"loss {entry['loss']:.4f}")
            if trainer.step % settings.validate_every == 0 or trainer.over:
                figures = _validated(trainer, judge)
                entry |= figures
                trainer.save()
                _say(bar.console, f"step {trainer.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
            if entry:
                when = {"step": trainer.step, "seconds": round(trainer.spent_s, 1)}
                print(json.dumps(finite(when | entry)), file=log, flush=True)
    if not trainer.over:
        trainer.save()
        so_far = f"stopped at step {trainer.step} of {settings.steps} and saved"
        _say(bar.console, f"{so_far}; the same command goes on from {folder / 'last.pt'}")
    elif not figures:
        _say(bar.console, f"{folder}: this run is over, at step {trainer.step}; more --steps or --minutes continue it")
    return figures


def _bar() -> Progress:
    columns = TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}")
    return Progress(*columns, TimeRemainingColumn())


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)


def _validated(trainer: Trainer, judge: list[Trace]) -> dict[str, float]:
    """Score the averaged weights on the tune fold; the best become ``picker.safetensors``."""
    # Compiled parts would be compiled anew for every length of record.
    with trainer.averaged.applied(trainer.model), torch.compiler.set_stance("force_eager"):
        figures = summary(validate(trainer.model, judge, trainer.device))
        trainer.stale += 1
        if figures["f1"] > trainer.best:
            trainer.best, trainer.stale = figures["f1"], 0
            asked = asdict(trainer.settings)
            asked |= {key: Path(asked[key]).name for key in ("pack", "initial") if asked[key] is not None}
            asked["more"] = [Path(pack).name for pack in asked["more"]]
            provenance = {"settings": asked, "step": trainer.step, "tune": finite(figures)}
            save_picker(trainer.folder / "picker.safetensors", trainer.model, provenance)
    return figures


def rehearse(settings: TrainSettings, device: torch.device) -> None:
    """A few steps and a validation that leave nothing behind, and what they say about the run."""
    learn, judge = folds_of(settings)
    trainer, console = Trainer(settings, Path(), device), Console()
    bank = Bank(learn, settings.drawn, device)
    times_s = [time.monotonic()]
    for _ in range(REHEARSED_STEPS):
        loss, _ = trainer.train_step(bank)
        times_s.append(time.monotonic())
    with torch.compiler.set_stance("force_eager"):
        validate(trainer.model, judge, device)
    validation_s = time.monotonic() - times_s[-1]
    # The first step is slower than all that follow: memory is taken and kernels are made.
    step_s = (times_s[-1] - times_s[1]) / (REHEARSED_STEPS - 1)
    validations = math.ceil(settings.steps / settings.validate_every)
    total_s = settings.steps * step_s + validations * validation_s
    parameters = sum(p.numel() for p in trainer.model.parameters())
    window_s = settings.window_samples / 100
    _say(console, f"{settings.preset}: {parameters:,} parameters, look-ahead {settings.lookahead_samples} samples")
    _say(console, f"{len(learn)} traces to learn from, {len(judge)} to judge by")
    _say(console, f"{1 / step_s:.2f} steps/s of {settings.batch} windows of {window_s:.1f} s on {device}")
    _say(console, f"loss {loss.item():.3f} after {REHEARSED_STEPS} steps; a validation takes {validation_s:.1f} s")
    limit = "" if settings.minutes is None else f", but ends after {settings.minutes:g}"
    _say(console, f"{settings.steps} steps with {validations} validations take about {total_s / 60:.1f} min{limit}")
    _say(console, "dry run: nothing was written")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments, description and examples of ``pretrain train``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    default = TrainSettings(pack="")
    add = parser.add_argument
    add("pack", metavar="PACK.npz", help="training pack made by `pretrain pack`")
    add("run_folder", type=Path, metavar="RUN", help="folder of the run; an interrupted run in it goes on")
    add("--preset", choices=sorted(PRESETS), default=default.preset, help="size of the model (%(default)s)")
    add("--more", metavar="PACK.npz", action="append", default=[], help="a further pack; may be given again")
    add(
        "--share",
        metavar="KIND=SHARE",
        action="append",
        default=[],
        help=f"how often a kind of trace is drawn: {', '.join(f'{kind} {share}' for kind, share in SHARES.items())}",
    )
    add("--label-fraction", type=float, default=1.0, help="share of the analysts' events to learn from (%(default)s)")
    add("--augmentation", choices=sorted(AUGMENTATIONS), default="live", help="plain is for ablations (%(default)s)")
    add("--initial", metavar="CHECKPOINT", help="start from the weights of a picker or of a pretrained backbone")
    add("--gate", choices=("sigmoid", "exponential"), default=default.gate, help="input gate (%(default)s)")
    add("--pooling", type=int, default=default.pooling, help="tokens a token of the next coarser level (%(default)s)")
    add("--lookahead-samples", type=int, default=default.lookahead_samples, help="multiple of 4 (%(default)s)")
    add(
        "--second-look-samples",
        type=int,
        default=default.second_look_samples,
        help="S is judged so much later than P; multiple of 4 (%(default)s)",
    )
    add("--steps", type=int, default=default.steps, help="optimizer steps (%(default)s)")
    add("--minutes", type=float, help="stop after this long; the learning rate follows")
    add("--batch", type=int, default=default.batch, help="windows a step (%(default)s)")
    add("--window-samples", type=int, default=default.window_samples, help="multiple of 64 (%(default)s)")
    add("--windows", type=int, default=default.windows, help="windows in a row with a carried state (%(default)s)")
    add(
        "--whole", action="store_true", help="a row's windows in one pass: as many times the memory, all on the kernels"
    )
    add("--rate", type=float, default=default.rate, help="peak learning rate (%(default)s)")
    add("--freeze-steps", type=int, default=default.freeze_steps, help="first steps for the head alone (%(default)s)")
    add("--head-rate", type=float, default=default.head_rate, help="learning rate meanwhile (%(default)s)")
    add("--layer-decay", type=float, default=default.layer_decay, help="rate of a layer over the next (%(default)s)")
    add("--weight-p", type=float, default=default.weight_p, help="factor of the loss at P onsets (%(default)s)")
    add("--weight-s", type=float, default=default.weight_s, help="factor of the loss at S onsets (%(default)s)")
    add("--dropout", type=float, default=default.dropout, help="(%(default)s)")
    add("--weight-decay", type=float, default=default.weight_decay, help="(%(default)s)")
    add("--seed", type=int, default=default.seed, help="seed of weights and batches (%(default)s)")
    add("--compile", action="store_true", help="torch.compile the model: slow start, faster steps")
    add("--validate-every", type=int, default=default.validate_every, help="steps between validations (%(default)s)")
    add("--patience", type=int, default=0, help="end after so many validations without a better one (never)")
    add("--no-tfla-kernels", dest="tfla_kernels", action="store_false", help="plain PyTorch on a GPU, too")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(here: %(default)s)")
    add("--dry-run", action="store_true", help=f"{REHEARSED_STEPS} steps and a validation: how long it will take")


def shares_of(words: Sequence[str]) -> dict[str, float]:
    """``KIND=SHARE`` words as numbers; raises ConfigError that names the one that is none."""
    shares = {}
    for word in words:
        kind, _, share = word.partition("=")
        try:
            shares[kind] = float(share)
        except ValueError as error:
            raise ConfigError(f"--share {word}: write it as KIND=NUMBER, for example pseudo=0.2") from error
    return shares


def device_of(name: str) -> torch.device:
    """The device of that name; raises ConfigError where this machine has none."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"--device {name}: not usable here ({reason}); try --device cpu") from error
    return device


@contextmanager
def stopped_by_signal() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT has come, in place of what they else do; a second one does what it always did."""
    asked: list[int] = []
    before = {int(number): signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(arguments: argparse.Namespace) -> int:
    """Run ``pretrain train``."""
    names = TrainSettings.__dataclass_fields__.keys()
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    settings = TrainSettings(**given | {"more": tuple(arguments.more), "shares": shares_of(arguments.share)})
    device = device_of(arguments.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    if arguments.dry_run:
        rehearse(settings, device)
        return 0
    with stopped_by_signal() as stop:
        train(settings, arguments.run_folder, device, stop)
    return 0
