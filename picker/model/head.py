"""The pick head: tokens at 25 Hz back to 100 Hz, where onsets are placed to one sample.

The output at sample t speaks of sample t - lookahead. Tokens at t know what came after the onset; the normalised input
is delayed so that the convolution sees it centred on t - lookahead.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from picker.model.causal import CausalConv1d, Delay, TailState
from picker.model.config import ModelConfig
from picker.model.normalizer import FEATURES

FINE_KERNEL, MIX_KERNEL = 15, 7


class HeadState(NamedTuple):
    """The delayed input and the tails of the two convolutions."""

    delay: TailState
    fine: TailState
    mix: TailState


class PickHead(nn.Module):
    """Tokens (B, T / 4, F) and normalised input (B, 9, T) to logits (B, phases, T)."""

    def __init__(self, config: ModelConfig, phases: int = 3) -> None:
        super().__init__()
        width, features = config.levels[0].width, config.head_features
        centre = FINE_KERNEL // 2 + MIX_KERNEL // 2
        self.stride = config.stride
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, config.stride * features)
        self.delay = Delay(FEATURES, max(0, config.lookahead_samples - centre))
        self.fine = CausalConv1d(FEATURES, features, FINE_KERNEL)
        self.mix = CausalConv1d(features, features, MIX_KERNEL)
        self.logits = nn.Conv1d(features, phases, 1)

    def initial_state(self, batch: int, like: Tensor) -> HeadState:
        """Silence before the first sample."""
        return HeadState(*(layer.initial_state(batch, like) for layer in (self.delay, self.fine, self.mix)))

    def forward(self, tokens: Tensor, features: Tensor, state: HeadState) -> tuple[Tensor, HeadState]:
        """Both inputs cover the same time."""
        context = self.expand(self.norm(tokens)).unflatten(-1, (self.stride, -1)).flatten(1, 2).transpose(1, 2)
        late, delay = self.delay(features, state.delay)
        onset, fine = self.fine(late, state.fine)
        x = F.gelu(context + onset, approximate="tanh")
        mixed, mix = self.mix(x, state.mix)
        x = x + F.gelu(mixed, approximate="tanh")
        return self.logits(x), HeadState(delay, fine, mix)
