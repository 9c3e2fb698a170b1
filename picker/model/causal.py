"""Causal convolution and delay with explicit state."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class TailState(NamedTuple):
    """The last inputs (B, F, tail) that the next call still needs; zeros before the first."""

    tail: Tensor


class CausalConv1d(nn.Module):
    """Convolution (B, in, T) to (B, out, T / stride): output j sees inputs up to (j + 1) * stride - 1, no later."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.inputs, self.tail = inputs, kernel - stride
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride)

    def initial_state(self, batch: int, like: Tensor) -> TailState:
        """Zeros, as if silence had gone before."""
        return TailState(like.new_zeros(batch, self.inputs, self.tail))

    def forward(self, x: Tensor, state: TailState) -> tuple[Tensor, TailState]:
        """x (B, in, T), T a multiple of the stride."""
        x = torch.cat([state.tail.to(x.dtype), x], dim=-1)
        return self.conv(x), TailState(x[..., x.shape[-1] - self.tail :])


class Delay(nn.Module):
    """Delays (B, F, T) by ``steps``; the state holds what is still to come out."""

    def __init__(self, features: int, steps: int) -> None:
        super().__init__()
        self.features, self.steps = features, steps

    def initial_state(self, batch: int, like: Tensor) -> TailState:
        """Zeros come out first."""
        return TailState(like.new_zeros(batch, self.features, self.steps))

    def forward(self, x: Tensor, state: TailState) -> tuple[Tensor, TailState]:
        """x (B, F, T) to the same shape, ``steps`` later."""
        x = torch.cat([state.tail.to(x.dtype), x], dim=-1)
        length = x.shape[-1] - self.steps
        return x[..., :length], TailState(x[..., length:])
