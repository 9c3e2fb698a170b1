"""Random numbers of the objectives: every draw but dropout's comes from a generator that is passed in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def rank_generator(seed: int, rank: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random stream of one rank: same seed, other rank, unrelated numbers."""
    state = int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0])
    return torch.Generator(device=device).manual_seed(state)


def uniform(generator: torch.Generator, *shape: int, like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers in [0, 1) on the device of ``like``; the first axis is the batch wherever there is one."""
    return torch.rand(*shape, generator=generator, device=like.device, dtype=dtype)


def gumbel(generator: torch.Generator, like: Tensor) -> Tensor:
    """Gumbel noise of the shape of ``like``; finite."""
    return to_gumbel(uniform(generator, *like.shape, like=like, dtype=like.dtype))


def to_gumbel(drawn: Tensor) -> Tensor:
    """Gumbel noise out of numbers of ``uniform``; finite."""
    return -torch.log(-torch.log(drawn.clamp(min=torch.finfo(drawn.dtype).tiny)))
