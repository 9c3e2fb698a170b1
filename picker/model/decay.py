"""Exponentially decaying running sums without a loop over time.

y_t = decay * y_{t-1} + x_t, as a product with a lower-triangular matrix inside a chunk and with a second one over
chunks. There is no cumulative sum in it: `CumSum` is wrong in TensorRT from 10.8.
"""

from __future__ import annotations

import torch
from torch import Tensor


def powers(decay: float, length: int, like: Tensor) -> Tensor:
    """(length, length) matrix whose entry (i, j) is decay ** (i - j) for j <= i and zero elsewhere."""
    steps = torch.arange(length, device=like.device, dtype=torch.float64)
    exponent = steps[:, None] - steps[None, :]
    return torch.where(exponent >= 0, _raised(decay, exponent.clamp(min=0)), 0.0).to(like.dtype)


def _raised(decay: float, exponent: Tensor) -> Tensor:
    """decay ** exponent in float64, also after an export, which rounds every number in the graph to float32.

    So the base is a number that float32 holds exactly, and the small rest, of which the rounding takes 2**-45 at most.
    """
    exact = round(decay * 2**20) / 2**20
    return (torch.full_like(exponent, exact) + (decay - exact)) ** exponent


def decayed_sum(x: Tensor, decay: float, carry: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Running sum of ``x`` (..., T) from ``carry`` (...,): y (..., T) and the carry after the last sample.

    T must be a multiple of ``chunk``. The rounding of the two levels differs between one chunk and many by a few units
    in the last place, no more.
    """
    count = x.shape[-1] // chunk
    rise = _raised(decay, torch.arange(1, chunk + 1, device=x.device, dtype=torch.float64)).to(x.dtype)
    if count == 1:  # serving: the same sum without a second level
        y = x @ powers(decay, chunk, x).T + carry[..., None] * rise
        return y, y[..., -1]
    local = x.unflatten(-1, (count, chunk)) @ powers(decay, chunk, x).T
    first = torch.cat([carry[..., None], local[..., :-1, -1]], dim=-1)
    start = first @ powers(decay**chunk, count, x).T
    y = (local + start[..., None] * rise).flatten(-2)
    return y, y[..., -1]
