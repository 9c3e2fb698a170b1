"""The matched filter on the probability of S at its second look.

Soft labels are Gaussians, so an S that is certain in time has a peak as high as it is probable, and one that is certain
but hard to place a low and broad one. Averaged over a Gaussian as wide as the labels of S, both are judged by what lies
around the peak, noise of single samples is averaged away, and flat tops become round (Turin 1960, IRE Trans. Inf.
Theory 6, 311). An ideal peak comes out as 0.7.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picker.model.causal import TailState

REACH_SAMPLES = 32
"""Half the length of the filter, which is three standard deviations; its output is so much late."""


class MatchedFilter(nn.Module):
    """Probabilities (B, 1, T) to their weighted means of the same shape, REACH_SAMPLES late."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        time = torch.arange(-REACH_SAMPLES, REACH_SAMPLES + 1, dtype=torch.float64) * 3 / REACH_SAMPLES
        bell = torch.exp(-0.5 * time**2)
        self.register_buffer("kernel", (bell / bell.sum()).view(1, 1, -1), persistent=False)

    def initial_state(self, batch: int, like: Tensor) -> TailState:
        """No S before the first sample."""
        return TailState(like.new_zeros(batch, 1, 2 * REACH_SAMPLES))

    def forward(self, x: Tensor, state: TailState) -> tuple[Tensor, TailState]:
        """x (B, 1, T), T at least as long as the filter less one."""
        x = torch.cat([state.tail.to(x.dtype), x], dim=-1)
        return F.conv1d(x, self.kernel.to(x.dtype)), TailState(x[..., -2 * REACH_SAMPLES :])
