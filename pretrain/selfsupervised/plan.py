"""The command ``pretrain plan``: what a run would take, found out on a CPU in seconds.

Parameters are counted and the data opened; multiply-adds, activations and masked frames come from one real step over
windows of noise, in the precision of the run. Time follows from a given or measured speed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from picker.errors import ConfigError
from pretrain.data.trace import RATE_HZ, TRAIN, TUNE
from pretrain.objectives.objective import Batch, Objective, Progress
from pretrain.selfsupervised.launch import ready_objective
from pretrain.selfsupervised.settings import RunSettings, load
from pretrain.selfsupervised.source import open_store

MIB, GIB = 2**20, 2**30
CPU = torch.device("cpu")
H200_MULTIPLY_ADDS_PER_S = {True: 4.6e13, False: 2.6e13}
"""With torch.compile and without, as `base` in batches of 1,024 was measured
(benchmarks/results/pretrain_gpu_nvidia-h200_2026-11-24.md): small batches are slower."""
DESCRIPTION = """\
Say what a pretraining run would take before it is started: parameters by part, tokens and masked frames, multiply-adds,
memory, time, and the data it would learn from. Needs no GPU.

Time is that of H200s in large batches, unless the speed of a short run is given: small batches take longer.

Activations are those that the plain PyTorch form keeps for the way back; the Triton kernels keep less."""
EXAMPLES = """\
examples:
  pretrain plan configs/pretrain/base.toml
  on two GPUs, at a speed that a short run showed (windows_per_s of its log):
    pretrain plan configs/pretrain/base.toml --ranks 2 --windows-per-s 3000"""


@dataclass(frozen=True)
class Step:
    """What one window takes: ``multiply_adds`` there and back, bytes of ``activations``, ``frames`` masked."""

    multiply_adds: float
    activation_bytes: float
    frames: float


def parts(objective: Objective) -> dict[str, int]:
    """Parameters of each part; those that are thrown away after training are named so."""
    found: dict[str, int] = {}
    for name, parameter in objective.named_parameters():
        first, second, *_ = [*name.split("."), ""]
        part = f"backbone: {second}" if first == "backbone" else "objective (not kept)"
        found[part] = found.get(part, 0) + parameter.numel()
    return found


def measure(settings: RunSettings) -> Step:
    """One window's share of a step, from real steps over one and two windows of noise on the CPU."""
    plain = settings.model.model_copy(update={"compile": False, "tfla_kernels": False})
    objective, _ = ready_objective(settings.model_copy(update={"model": plain}), CPU)
    objective = objective.to(torch.float64 if settings.training.precision == "64-true" else torch.float32)
    (_, one, few), (operations, two, many) = (_step(objective, settings, windows) for windows in (1, 2))
    # Two operations are one multiply-add; what is kept whatever the number of windows is not the window's.
    return Step(multiply_adds=operations / 2 / 2, activation_bytes=max(0.0, two - one), frames=(few + many) / 3)


def _step(objective: Objective, settings: RunSettings, windows: int) -> tuple[float, float, float]:
    """Operations, bytes kept for the way back, and masked frames of a step over some windows."""
    dtype = next(objective.parameters()).dtype
    generator = torch.Generator().manual_seed(0)
    waveform = torch.randn(windows, 3, settings.data.window_samples, generator=generator, dtype=dtype)
    batch = Batch(waveform, torch.ones_like(waveform, dtype=torch.bool))
    mixed = settings.training.precision == "bf16-mixed"
    with FlopCounterMode(display=False) as operations:
        with _kept_bytes(objective) as kept, torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            outcome = objective(batch, Progress(), generator)
        outcome.total.backward()
    return float(operations.get_total_flops()), float(sum(kept.values())), float(outcome.count)


@contextmanager
def _kept_bytes(model: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes by storage of what is kept for the way back, weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            # Else another tensor could come to lie where this one was.
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept


def rows(settings: RunSettings, ranks: int, windows_per_s: float | None) -> Iterator[tuple[str, str]]:
    """What to print, label and value."""
    training, config = settings.training, settings.model.config()
    windows = training.windows(ranks)
    objective = settings.make()
    counts = parts(objective)
    for part, number in counts.items():
        yield f"parameters, {part}", f"{number:,}"
    total = sum(counts.values())
    yield "parameters, all", f"{total:,}"
    step, samples = measure(settings), settings.data.window_samples
    tokens = [samples // (config.stride * config.pooling**depth) for depth in range(len(config.levels))]
    yield "tokens a window", f"{' + '.join(map(str, tokens))} ({samples} samples, {samples / RATE_HZ:.2f} s)"
    micro = f"{ranks} ranks x {training.accumulate} micro-batches x {windows}"
    yield "windows a step", f"{training.batch} ({micro})"
    yield "masked frames a step", f"{step.frames * training.batch:,.0f} ({step.frames:.0f} a window)"
    yield "multiply-adds a step, there and back", f"{step.multiply_adds * training.batch / 1e9:,.1f} G"
    size = 8 if training.precision == "64-true" else 4
    fixed, activations = 4 * size * total, step.activation_bytes * windows
    yield "memory: weights, gradients, moments", f"{fixed / MIB:,.0f} MiB"
    each = f"{step.activation_bytes / MIB:,.1f} MiB a window"
    yield "memory: activations", f"{activations / MIB:,.0f} MiB ({each}, {windows} at once)"
    yield "memory a GPU, data aside", f"about {(fixed + activations) / GIB:.2f} GiB"
    yield from _time(settings, step, ranks, windows_per_s)
    yield from _data(settings)


def _time(settings: RunSettings, step: Step, ranks: int, windows_per_s: float | None) -> Iterator[tuple[str, str]]:
    training = settings.training
    limit = "" if training.minutes is None else f", but ends after {training.minutes:g} min"
    yield "steps", f"{training.steps:,} ({training.steps * training.batch:,} windows{limit})"
    speed = windows_per_s
    if speed is None:
        speed = ranks * H200_MULTIPLY_ADDS_PER_S[settings.model.compile] / step.multiply_adds
    hours = training.steps * training.batch / speed / 3600
    each = f"{training.batch / speed:.3g} s a step"
    if windows_per_s is None:
        said = (
            f"at least {hours:.2g} h on {ranks} x H200, {each}; give --windows-per-s of a short run for more than that"
        )
        yield "time", said
    else:
        yield "time", f"{hours:.2f} h at {windows_per_s:,.0f} windows/s, {each}"


def _data(settings: RunSettings) -> Iterator[tuple[str, str]]:
    if not Path(settings.data.pack).exists():
        yield "data", f"{settings.data.pack} is not there yet: write it with `pretrain pack`"
        return
    for fold in (TRAIN, TUNE):
        store = open_store(settings.data, fold)
        samples = int(store.catalogue.samples.sum())
        windows = samples / settings.data.window_samples
        value = f"{len(store.catalogue):,} traces, {samples / RATE_HZ / 3600:.2f} h, {windows:,.0f} windows"
        if fold == TRAIN and windows:
            passes = settings.training.steps * settings.training.batch / windows
            value += f", {passes:,.0f} passes; {store.size_bytes / MIB:,.0f} MiB as {store.dtype}"
        yield f"data, fold {fold}", value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments, description and examples of ``pretrain plan``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG.toml", help="settings of the run")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting: training.batch=128")
    add("--ranks", type=int, default=1, help="GPUs that the run would have, all machines together (%(default)s)")
    add("--windows-per-s", type=float, help="speed of the whole run, for the time that it would take")


def run(options: argparse.Namespace) -> int:
    """Run ``pretrain plan``."""
    for name, value in (("--ranks", options.ranks), ("--windows-per-s", options.windows_per_s)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value}; it must be positive")
    table = Table.grid(padding=(0, 2))
    for label, value in rows(load(options.config, options.set), options.ranks, options.windows_per_s):
        table.add_row(label, value)
    console = Console()
    (console if console.is_terminal else Console(width=max(console.width, 120))).print(table, highlight=False)
    return 0
