"""A network, windows and random numbers small enough to compute an objective by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from picker.model.config import LevelConfig, ModelConfig
from pretrain.objectives.contrastive import Contrastive, ContrastiveSettings
from pretrain.objectives.negatives import Targets
from pretrain.objectives.objective import Batch

torch.set_num_threads(1)
TINY = ModelConfig(
    name="tiny",
    levels=tuple(LevelConfig(width=16, heads=1, down_blocks=1, up_blocks=1) for _ in range(2)),
    encoder_features=16,
    head_features=16,
    key_size=16,
    value_size=16,
)
ROWS = 8
SMALL: dict[str, Any] = {
    "quantizer": {"groups": 2, "codes": 8, "size": 16},
    "negatives": {"count": 10, "pool": 32, "bank": 64},
    "projection": 12,
    "dropout": 0.0,
}


def generator(seed: int = 0) -> torch.Generator:
    """A random stream of its own."""
    return torch.Generator().manual_seed(seed)


def windows(rows: int = 4, samples: int = 512, seed: int = 0) -> Batch:
    """Noise, valid throughout."""
    waveform = torch.randn(rows, 3, samples, generator=generator(seed))
    return Batch(waveform, torch.ones(rows, 3, samples, dtype=torch.bool))


def uneven() -> Batch:
    """Eight float64 windows, of which the first four have data for ever shorter times."""
    batch = windows(ROWS)
    for row in range(4):
        batch.valid[row, :, 400 - 90 * row :] = False
    return Batch(batch.waveform.double(), batch.valid)


def rows_of(batch: Batch, rows: slice) -> Batch:
    """Some windows of a batch."""
    return Batch(batch.waveform[rows], batch.valid[rows])


def contrastive(**changes: Any) -> Contrastive:
    """A small contrastive objective with fixed weights, in training."""
    torch.manual_seed(0)
    return Contrastive(TINY, ContrastiveSettings.model_validate(SMALL | changes))


def tape(rows: slice) -> Callable[..., Tensor]:
    """Stands in for ``draws.uniform``: rows of a batch get the numbers that they would get in a batch of eight."""
    calls = iter(range(100))

    def uniform(_: torch.Generator, *shape: int, like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        call = generator(next(calls))
        if shape == (1,):
            return torch.rand(1, generator=call, dtype=torch.float64).to(dtype)
        return torch.rand(ROWS, *shape[1:], generator=call, dtype=torch.float64).to(dtype)[rows]

    return uniform


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    """Every gradient by name; a missing one fails."""
    found = {}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.clone()
    return found


def targets(counts: tuple[int, ...] = (9, 4, 1, 0), most: int = 9, size: int = 6, codes: int = 5) -> Targets:
    """Random targets, of which each row has as many as ``counts`` says."""
    shape = len(counts), most
    return Targets(
        torch.randn(*shape, size, generator=generator(1)),
        torch.randint(codes, shape, generator=generator(2)),
        torch.arange(most) < torch.tensor(counts)[:, None],
    )
