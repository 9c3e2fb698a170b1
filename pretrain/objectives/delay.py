"""How far after a masked frame its prediction is read.

Under a causal network masked prediction is near-forecasting. Reading the prediction of frame t at frame t + L lets the
context see L frames beyond t, as the picker does with its look-ahead; L is drawn anew for each batch, so that the
network is good at every delay up to that of the picker and not at one alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from picker.errors import ConfigError
from picker.model.config import ModelConfig
from pretrain.objectives import draws

DELAYS = (0, 4, 8, 16)
"""Tokens of 0.04 s."""


def allowed_delays(delays: tuple[int, ...], config: ModelConfig) -> tuple[int, ...]:
    """Those that the look-ahead of the picker covers; raises ConfigError where none is left."""
    most = config.lookahead_samples // config.stride
    kept = tuple(delay for delay in delays if 0 <= delay <= most)
    if not kept:
        raise ConfigError(
            f"delays are {list(delays)} tokens; the look-ahead of {config.lookahead_samples} samples allows 0 to {most}"
        )
    return kept


def draw_delay(delays: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """One of ``delays`` (1,) at random, on the device of ``like``: nothing waits for it."""
    place = (draws.uniform(generator, 1, like=like) * len(delays)).long().clamp(max=len(delays) - 1)
    # Not out of a tensor of the delays: the host would wait until it is copied to the device.
    return torch.stack([(place == number) * delay for number, delay in enumerate(delays)]).sum(0)
