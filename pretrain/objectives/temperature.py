"""The temperature that similarities are divided by.

A low one sharpens: where the loss explodes, raise it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

LEAST, MOST = 0.01, 2.0
"""Bounds of a learned temperature: at the lower one cosines differ by up to 200."""


class TemperatureSettings(BaseModel):
    """``fixed`` stays at ``start``, ``annealed`` falls linearly from ``warm`` to ``sharp``, ``learned`` is a weight."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["fixed", "annealed", "learned"] = "fixed"
    start: float = Field(default=0.1, gt=0, description="fixed: the temperature; learned: where it starts")
    warm: float = Field(default=0.5, gt=0, description="annealed: at the start of training")
    sharp: float = Field(default=0.05, gt=0, description="annealed: at its end")


class Temperature(nn.Module):
    """The temperature at a share of training."""

    def __init__(self, settings: TemperatureSettings) -> None:
        super().__init__()
        self.settings = settings
        self.logarithm: nn.Parameter | None = None
        if settings.kind == "learned":
            self.logarithm = nn.Parameter(torch.tensor(math.log(settings.start)))

    def forward(self, share: float) -> Tensor | float:
        """``share`` of training that is over, 0 to 1."""
        settings = self.settings
        if self.logarithm is not None:
            return self.logarithm.exp()
        if settings.kind == "annealed":
            return settings.warm - (settings.warm - settings.sharp) * min(max(share, 0.0), 1.0)
        return settings.start

    @torch.no_grad()
    def bound(self) -> None:
        """Bring a learned temperature back between ``LEAST`` and ``MOST``; to be called after each step."""
        if self.logarithm is not None:
            self.logarithm.clamp_(math.log(LEAST), math.log(MOST))
