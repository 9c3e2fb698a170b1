"""An mLSTM block around a kernel that does everything between its two projections; see ``step_triton.py``.

Shapes: B rows, T tokens a chunk, H heads, K, V key and value features of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picker.model.block import MLSTMBlock
from picker.model.cell import CellState, SigmoidState


class ResetMemory(NamedTuple):
    """A memory (B, H, K, V) and the rows (B,) that start afresh: the kernel makes them zero as it loads them."""

    memory: Tensor
    reset: Tensor


CellStep = Callable[[Tensor, Tensor, ResetMemory, int], tuple[Tensor, Tensor]]
"""Projected (B, T, 2 H K + 2 H V), gates (B, T, 2 H), memory and heads to what goes into the output projection
(B, T, H V), and the next memory."""


class KernelBlock(nn.Module):
    """An MLSTMBlock whose cell, head norm and output gate are one ``step``, a kernel; products in ``dtype``."""

    def __init__(self, block: MLSTMBlock, dtype: torch.dtype, step: CellStep) -> None:
        super().__init__()
        self.step = step
        wide = sum(block.sizes[:4])
        self.block, self.heads, self.wide, self.dtype = block, block.heads, wide, dtype
        weight, bias = block.project.weight.detach(), block.project.bias.detach()
        self.weight, self.bias = (nn.Parameter(t[:wide].to(dtype), requires_grad=False) for t in (weight, bias))
        self.gate_weight, self.gate_bias = (nn.Parameter(t[wide:].float(), requires_grad=False) for t in (weight, bias))

    def initial_state(self, batch: int, like: Tensor) -> CellState:
        """See MLSTMBlock."""
        return self.block.initial_state(batch, like)

    def forward(self, x: Tensor, state: ResetMemory) -> tuple[Tensor, SigmoidState]:
        """x (B, T, F)."""
        block, normed = self.block, self.block.norm(x)
        with torch.autocast(x.device.type, enabled=False):
            projected = F.linear(normed.to(self.dtype), self.weight, self.bias)
            i, f = F.linear(normed.float(), self.gate_weight, self.gate_bias).chunk(2, dim=-1)
            gates = torch.cat([i, block.faded(f)], dim=-1)
        h, memory = self.step(projected, gates, state, self.heads)
        x = x + block.out(h)
        hidden = F.gelu(block.feedforward_in(block.feedforward_norm(x)), approximate="tanh")
        return cast(Tensor, x + block.feedforward_out(hidden)), SigmoidState(memory)
