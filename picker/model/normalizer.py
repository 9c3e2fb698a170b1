"""Causal running normalisation, inside the graph, shared by training, evaluation and serving.

Two bands of each component are made and divided by a running scale of their own:

- broad: the signal less its running mean (time constant 10 s), over one scale for all components, so that the
  relative size of Z, N and E (polarisation) survives;
- sharp: a two-pole high-pass at 2 Hz, over one scale a component, so that a small local event on top of microseism is
  seen and a single noisy component does not drown the others.

The scale is the square of the running mean of sqrt|x| (time constant 20 s): unlike a running standard deviation it
forgets a magnitude 6 within a minute or two. sign(z) log(1 + |z|) then compresses what remains. All running means are
bias-corrected (they divide by the running sum of the valid flags), so the first seconds after a reset are usable and
a gap neither pulls a mean nor dilutes it. Everything here is float32 (float64 in tests), whatever autocast says.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from picker.model.decay import decayed_sum

MEAN_S, HIGHPASS_S, SCALE_S = 10.0, 1 / (2 * math.pi * 2.0), 20.0
LARGEST = 1e15
"""A sample larger than this is no ground motion in any unit: it is treated as missing, like NaN."""
TINY = 1e-20
ROUNDING = 1e-6
"""The scale never falls below this share of the running mean: what float32 loses there must not look like motion."""
FEATURES = 9
"""Broad Z N E, sharp Z N E, valid Z N E."""


class NormalizerState(NamedTuple):
    """Running sums (B, 8, C): flags, signal (10 s); flags, first and second pole (2 Hz); flags, broad, sharp (20 s)."""

    sums: Tensor


class RunningNormalizer(nn.Module):
    """Samples (B, C, T) and valid flags (B, C, T) to features (B, 9, T)."""

    def __init__(self, chunk_samples: int, sampling_rate_hz: float = 100.0) -> None:
        super().__init__()
        self.chunk_samples = chunk_samples
        self.decays = tuple(math.exp(-1 / (tau * sampling_rate_hz)) for tau in (MEAN_S, HIGHPASS_S, SCALE_S))

    def initial_state(self, batch: int, like: Tensor) -> NormalizerState:
        """Nothing seen yet."""
        return NormalizerState(like.new_zeros(batch, 8, 3))

    def forward(self, x: Tensor, valid: Tensor, state: NormalizerState) -> tuple[Tensor, NormalizerState]:
        """Features (B, 9, T) and the next state. A sample that is not finite or absurdly large counts as not valid."""
        with torch.autocast(x.device.type, enabled=False):
            valid = valid & (x.abs() <= LARGEST)
            x = x.masked_fill(~valid, 0.0)
            mean, highpass, scale = self.decays
            flags = valid.to(x.dtype)
            carries = state.sums.flatten(1).split([6, 6, 3, 9], dim=1)
            (weight, total), means = self._run([flags, x], mean, carries[0])
            level = total / weight.clamp(min=TINY)
            broad = flags * (x - level)
            floor = ROUNDING * level.abs()
            (weight, total), first = self._run([flags, broad], highpass, carries[1])
            reciprocal = 1 / weight.clamp(min=TINY)
            sharp = flags * (broad - total * reciprocal)
            (total,), second = self._run([sharp], highpass, carries[2])
            sharp = flags * (sharp - total * reciprocal)
            roots = [flags, broad.abs().sqrt(), sharp.abs().sqrt()]
            (weight, broad_root, sharp_root), scales = self._run(roots, scale, carries[3])
            shared = broad_root.sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=TINY)
            own = sharp_root / weight.clamp(min=TINY)
            features = torch.cat(
                [_compress(broad, shared, floor.amax(1, keepdim=True)), _compress(sharp, own, floor), flags], dim=1
            )
            return features, NormalizerState(torch.cat([means, first, second, scales], dim=1).view_as(state.sums))

    def _run(self, series: list[Tensor], decay: float, carry: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Several decayed sums of one time constant in one product: each (B, C, T), and their carries (B, n C)."""
        y, carry = decayed_sum(torch.cat(series, 1), decay, carry, self.chunk_samples)
        return y.chunk(len(series), dim=1), carry


def _compress(x: Tensor, root: Tensor, floor: Tensor) -> Tensor:
    # A clamp and not a sum: graph optimisers drop the addition of a number this small.
    z = x / torch.maximum(root * root, floor).clamp(min=TINY)
    return z.sign() * torch.log1p(z.abs())
