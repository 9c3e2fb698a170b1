"""Networks and ground motion for the tests of the model: untrained, but with gates and weights that do something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from picker.model.config import Gate, LevelConfig, ModelConfig
from picker.model.picker import Picker, PickerState

CHUNK = 64

MINIATURE = ModelConfig(
    name="miniature",
    levels=(
        LevelConfig(width=24, heads=1, down_blocks=1, up_blocks=1),
        LevelConfig(width=32, heads=2, down_blocks=1, up_blocks=0),
    ),
    encoder_features=16,
    head_features=8,
    key_size=16,
    value_size=16,
    second_look_samples=48,
)
"""Two levels, in which every kind of layer occurs, small enough for hypothesis and for a quick export."""


def network(config: ModelConfig = MINIATURE, seed: int = 0) -> Picker:
    """A network in evaluation mode whose gates, zero after the build, follow the data as trained ones do."""
    torch.manual_seed(seed)
    model = Picker(config).eval()
    with torch.no_grad():
        for block in model.unet.blocks():
            block.project.weight[-2 * block.heads :].normal_(std=0.05)
    return model


def with_gate(config: ModelConfig, gate: Gate) -> ModelConfig:
    """The same network with the other input gate."""
    return replace(config, gate=gate)


def motion(rows: int, chunks: int, seed: int = 0) -> Tensor:
    """Ground motion (B, 3, chunks * 64) float32: noise, microseism, and in the middle an event 100 times as large."""
    random = np.random.default_rng(seed)
    count = chunks * CHUNK
    time = np.arange(count) / 100
    data = random.standard_normal((rows, 3, count)) + 4 * np.sin(2 * np.pi * 0.2 * time + random.random((rows, 3, 1)))
    onset = count // 2
    coda = np.exp(-time[: count - onset] / 5.0)
    data[..., onset:] += 100 * coda * random.standard_normal((rows, 3, count - onset))
    return torch.from_numpy(data.astype(np.float32))


def everywhere(x: Tensor) -> Tensor:
    """Valid flags that are all true."""
    return torch.ones_like(x, dtype=torch.bool)


@torch.no_grad()
def whole(model: Picker, x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Logits (B, 3, T), or (B, 4, T) with those of the second look, of one call from a fresh state."""
    return together(*model(x, everywhere(x) if valid is None else valid)[:2])


def together(logits: Tensor, later: Tensor | None) -> Tensor:
    """All that a network says of a sample."""
    return logits if later is None else torch.cat([logits, later], 1)


@torch.no_grad()
def streamed(
    model: Picker, x: Tensor, chunks: Sequence[int], valid: Tensor | None = None, state: PickerState | None = None
) -> tuple[Tensor, PickerState | None]:
    """Logits as of ``whole``, of one call for each of ``chunks`` (its length in chunks), and the last state."""
    valid = everywhere(x) if valid is None else valid
    out, at = [], 0
    for count in chunks:
        here = slice(at * CHUNK, (at + count) * CHUNK)
        logits, later, state = model(x[..., here], valid[..., here], None, state)
        out.append(together(logits, later))
        at += count
    return torch.cat(out, dim=-1), state
