"""The averaged weights of a model in training: what is validated and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Averaged:
    """Exponential moving average of a model's weights, with a warm-up so that early averages are not stale."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the weights of ``model``."""
        self.count += 1
        share = 1 - min(self.decay, (1 + self.count) / (10 + self.count))
        mine = list(self.weights.values())
        torch._foreach_lerp_(mine, [value.detach() for value in model.state_dict().values()], share)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The averaged weights in ``model`` for the length of a block."""
        kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(kept)
