"""The pick head: tokens at 25 Hz back to 100 Hz, where onsets are placed to one sample.

The output at sample t speaks of sample t - lookahead. Tokens at t know what came after the onset; the normalised input
is delayed so that the convolution sees it centred on t - lookahead.

An S stands in the coda of its P, and what follows tells them apart better than what has just begun. So S can be given a
second look, ``second_look_samples`` later: from the tokens that first judged the instant, from those of now, and from
the input around it. P is not held up by it. In training S is judged at the first look, too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picker.model.causal import CausalConv1d, Delay, TailState
from picker.model.config import ModelConfig
from picker.model.normalizer import FEATURES

FINE_KERNEL, MIX_KERNEL = 15, 7


class HeadState(NamedTuple):
    """The delayed input and the tails of the two convolutions; then the same and the delayed tokens of the second look,
    all empty where there is none."""

    delay: TailState
    fine: TailState
    mix: TailState
    tokens: TailState
    second_delay: TailState
    second_fine: TailState
    second_mix: TailState


class PickHead(nn.Module):
    """Tokens (B, T / 4, F) and normalised input (B, 9, T) to logits (B, phases, T) and those of S at the second look.

    The latter (B, 1, T) are of S against everything else; None where there is no second look.
    """

    def __init__(self, config: ModelConfig, phases: int = 3) -> None:
        super().__init__()
        width, features, later = config.levels[0].width, config.head_features, config.second_look_samples
        centre = FINE_KERNEL // 2 + MIX_KERNEL // 2
        self.stride = config.stride
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, config.stride * features)
        self.delay = Delay(FEATURES, max(0, config.lookahead_samples - centre))
        self.fine = CausalConv1d(FEATURES, features, FINE_KERNEL)
        self.mix = CausalConv1d(features, features, MIX_KERNEL)
        self.logits = nn.Conv1d(features, phases, 1)
        delay = max(0, config.lookahead_samples + later - centre)
        self.second: SecondLook | None = SecondLook(config, delay) if later else None

    def initial_state(self, batch: int, like: Tensor) -> HeadState:
        """Silence before the first sample."""
        first = [layer.initial_state(batch, like) for layer in (self.delay, self.fine, self.mix)]
        nothing = [TailState(like.new_zeros(batch, 0, 0))] * 4
        return HeadState(*first, *(self.second.initial_state(batch, like) if self.second is not None else nothing))

    def forward(self, tokens: Tensor, features: Tensor, state: HeadState) -> tuple[Tensor, Tensor | None, HeadState]:
        """Both inputs cover the same time."""
        tokens = self.norm(tokens)
        context = spread(self.expand(tokens), self.stride)
        late, delay = self.delay(features, state.delay)
        onset, fine = self.fine(late, state.fine)
        x = F.gelu(context + onset, approximate="tanh")
        mixed, mix = self.mix(x, state.mix)
        x = x + F.gelu(mixed, approximate="tanh")
        logits = self.logits(x)
        if self.second is None:
            return logits, None, HeadState(delay, fine, mix, *state[3:])
        later, after = self.second(tokens, features, state)
        return logits, later, HeadState(delay, fine, mix, *after)


class SecondLook(nn.Module):
    """S judged again: normalised tokens (B, T / 4, F) and input (B, 9, T) to logits (B, 1, T)."""

    def __init__(self, config: ModelConfig, delay_samples: int) -> None:
        super().__init__()
        width, features = config.levels[0].width, config.head_features
        self.stride = config.stride
        self.tokens = Delay(width, config.second_look_samples // config.stride)
        self.expand = nn.Linear(2 * width, config.stride * features)
        self.delay = Delay(FEATURES, delay_samples)
        self.fine = CausalConv1d(FEATURES, features, FINE_KERNEL)
        self.mix = CausalConv1d(features, features, MIX_KERNEL)
        self.logits = nn.Conv1d(features, 1, 1)

    def initial_state(self, batch: int, like: Tensor) -> tuple[TailState, ...]:
        """Silence before the first sample, in the order of ``HeadState``."""
        return tuple(layer.initial_state(batch, like) for layer in (self.tokens, self.delay, self.fine, self.mix))

    def forward(self, tokens: Tensor, features: Tensor, state: HeadState) -> tuple[Tensor, tuple[TailState, ...]]:
        """The states in the order of ``HeadState``."""
        then, delayed = self.tokens(tokens.transpose(1, 2), state.tokens)
        context = spread(self.expand(torch.cat([then.transpose(1, 2), tokens], -1)), self.stride)
        late, delay = self.delay(features, state.second_delay)
        onset, fine = self.fine(late, state.second_fine)
        x = F.gelu(context + onset, approximate="tanh")
        mixed, mix = self.mix(x, state.second_mix)
        return self.logits(x + F.gelu(mixed, approximate="tanh")), (delayed, delay, fine, mix)


def spread(tokens: Tensor, stride: int) -> Tensor:
    """(B, T / stride, stride x F) to (B, F, T)."""
    out: Tensor = tokens.unflatten(-1, (stride, -1)).flatten(1, 2).transpose(1, 2)
    return out
