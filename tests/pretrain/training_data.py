"""Traces, windows and a pack of plain pulses, and a model small enough to train within a test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from picker.model.config import LevelConfig, ModelConfig
from pretrain.bank import UNSEEN, Bank, Windows
from pretrain.data.pack import pack_trace, save_pack
from pretrain.data.trace import Label, Trace

CPU = torch.device("cpu")
# Tensors of a few kilobytes are slower on several threads than on one.
torch.set_num_threads(1)
TINY = ModelConfig(
    name="tiny",
    levels=tuple(LevelConfig(width=16, heads=1, down_blocks=1, up_blocks=1) for _ in range(2)),
    encoder_features=16,
    head_features=16,
    key_size=16,
    value_size=16,
)


def generator(seed: int = 0) -> torch.Generator:
    """A random stream of its own."""
    return torch.Generator().manual_seed(seed)


def trace(
    samples: int = 2000,
    labels: Sequence[tuple[str, float]] = (),
    *,
    name: str = "a",
    weight: float = 1.0,
    **more: object,
) -> Trace:
    """Unit noise, valid throughout, with labels of one weight."""
    seed = sum(map(ord, name))
    values: dict[str, object] = {
        "waveform": np.random.default_rng(seed).standard_normal((3, samples)).astype(np.float32),
        "valid": np.ones((3, samples), bool),
        "kind": "labelled" if labels else "noise",
        "status": "manual" if labels else "noise",
    }
    arrivals = tuple(Label(phase=phase, sample=sample, weight=weight) for phase, sample in labels)
    return Trace(name=name, labels=arrivals, **(values | more))  # type: ignore[arg-type]


def quake(p: int, s: int, samples: int = 2000, name: str = "q", **more: object) -> Trace:
    """A decaying 5 Hz pulse on Z at ``p`` and a stronger 2.5 Hz one on N and E at ``s``, on quiet noise."""
    record = trace(samples, [("P", p), ("S", s)], name=name, **more)
    time = np.arange(samples)
    for component, onset, rate, height in ((0, p, 5, 30), (1, s, 2.5, 60), (2, s, 2.5, 60)):
        since = np.maximum(0, time - onset)
        record.waveform[component] += (height * np.sin(2 * np.pi * rate * since / 100) * np.exp(-since / 80)).astype(
            "f4"
        )
    return record


def windows(batch: int = 8, samples: int = 512, labels: Sequence[tuple[int, float]] = (), seed: int = 0) -> Windows:
    """Noise windows, each with the same labels of (phase 0 or 1, position)."""
    known = list(labels) or [(0, UNSEEN)]
    return Windows(
        waveform=torch.randn(batch, 3, samples, generator=generator(seed)),
        valid=torch.ones(batch, 3, samples, dtype=torch.bool),
        positions=torch.tensor([[position for _, position in known]] * batch),
        phases=torch.tensor([[phase for phase, _ in known]] * batch),
        trust=torch.ones(batch, samples),
    )


def bank(*traces: Trace, shares: dict[str, float] | None = None) -> Bank:
    """A bank on the CPU that draws noise and everything else alike."""
    return Bank(traces, shares or {"manual": 0.5, "noise": 0.5}, CPU)


def quakes(count: int = 4, **more: object) -> list[Trace]:
    """Quakes whose P and S lie elsewhere in each."""
    return [quake(500 + 170 * k, 820 + 210 * k, name=f"q{k}", **more) for k in range(count)]


def write_pack(path: Path, traces: Iterable[Trace]) -> str:
    """The path, as the command line takes it."""
    save_pack(path, map(pack_trace, traces))
    return str(path)
