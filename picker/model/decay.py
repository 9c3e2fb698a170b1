"""Exponentially decaying running sums without a loop over time.

y_t = decay * y_{t-1} + x_t, as a product with a lower-triangular matrix inside a chunk and with a second one over
chunks. There is no cumulative sum in it: `CumSum` is wrong in TensorRT from 10.8.

A step of one chunk is what GPUs serve in TF32, which rounds both operands of a product to 11 bits: too few for the
difference of a signal and its running mean. So its operands are split into a high part that TF32 leaves as it is and
a low one (Ootomo and Yokota 2022, arXiv 2203.03341), and of the four products all but low times low are taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

SPLITTER = 2.0**13 + 1
"""Dekker's factor: of the 24 bits of a float32, c - (c - x) with c = SPLITTER x keeps the first 11, rounded."""


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
        y = _product(x, powers(decay, chunk, x).T) + carry[..., None] * rise
        return y, y[..., -1]
    local = x.unflatten(-1, (count, chunk)) @ powers(decay, chunk, x).T
    first = torch.cat([carry[..., None], local[..., :-1, -1]], dim=-1)
    start = first @ powers(decay**chunk, count, x).T
    y = (local + start[..., None] * rise).flatten(-2)
    return y, y[..., -1]


def _product(x: Tensor, matrix: Tensor) -> Tensor:
    """``x`` (..., K) times ``matrix`` (K, N), to some 21 bits also where operands are rounded to TF32."""
    x_high, x_low = _halves(x)
    high, low = _halves(matrix)
    return torch.cat([x_high, x_high, x_low], dim=-1) @ torch.cat([high, low, high])


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The first 11 bits of ``x`` and the rest, whose sum is ``x``."""
    wide = x * SPLITTER
    high = wide - (wide - x)
    return high, x - high
