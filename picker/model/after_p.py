"""The odds of an S, by how lately there was a P.

An S follows a P. Seconds after a P a faint S is likely one; with no P before it, the same wiggle is mostly noise. The
network sees this only as far as a few hundred labelled earthquakes have taught it, so it is told: the odds of S are
multiplied by exp(WEIGHT (recent - USUAL)), where ``recent`` is the highest probability of P until GAP_SAMPLES before
the instant, halved every HALF_LIFE_SAMPLES since. It is Bayes' rule with a prior that a P raises and time lowers again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picker.model.causal import Delay, TailState

HALF_LIFE_SAMPLES = 2000
"""S trails P by 20 s at about 160 km."""
FADING = math.log(2) / HALF_LIFE_SAMPLES
WEIGHT, USUAL = 1.0, 0.25
"""Right after a sure P the odds of S are twice as high as the network says, far from any 0.8 times."""
GAP_SAMPLES = 30
"""The network sometimes takes an S for a P: that shall not speak for the S itself."""


class AfterPState(NamedTuple):
    """``highest`` (B, 1, 1) is the fading maximum of P up to the last sample; what is delayed of it (B, 1, D)."""

    highest: Tensor
    delay: TailState


class AfterP(nn.Module):
    """Probabilities of P and S (B, 1, T each), S ``later_samples`` later than P, to those of S, of the same shape."""

    def __init__(self, later_samples: int) -> None:
        super().__init__()
        self.delay = Delay(1, later_samples + GAP_SAMPLES)

    def initial_state(self, batch: int, like: Tensor) -> AfterPState:
        """No P before the first sample."""
        return AfterPState(like.new_zeros(batch, 1, 1), self.delay.initial_state(batch, like))

    def forward(self, p: Tensor, s: Tensor, state: AfterPState) -> tuple[Tensor, AfterPState]:
        """The same in chunks of any length as at once."""
        highest = self._fading_maximum(p, state.highest.to(p.dtype))
        recent, delay = self.delay(highest, state.delay)
        odds = torch.exp(WEIGHT * (recent - USUAL))
        return s * odds / (1 + s * (odds - 1)), AfterPState(highest[..., -1:], delay)

    @staticmethod
    def _fading_maximum(p: Tensor, before: Tensor) -> Tensor:
        """At each sample the maximum of what came up to it, each halved with the time since; in log2(T) steps."""
        samples, reach = p.shape[-1], 1
        while reach < samples:
            p = torch.maximum(p, F.pad(p[..., :-reach], (reach, 0)) * math.exp(-FADING * reach))
            reach *= 2
        since = torch.arange(1, samples + 1, dtype=p.dtype, device=p.device)
        return torch.maximum(p, before * torch.exp(-FADING * since))
