"""Sums over the ranks of a distributed run; on one rank they do nothing."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def summed(x: Tensor) -> Tensor:
    """The sum of ``x`` over all ranks, without gradient. Every rank must call it equally often."""
    total = x.detach().clone()
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(total)
    return total


def precise(x: Tensor) -> Tensor:
    """``x`` in float32 at least: what losses, logits and probabilities are computed in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
