"""Gumbel-softmax product quantizer (wav2vec 2.0, arXiv 2006.11477): a frame becomes one code of each group.

The choice is hard forward and soft backward (straight-through): codebook rows that were chosen learn from the loss
directly, and the logits through the softmax. Nothing of size frames x G x V x D is made.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.objectives import draws, ranks
from pretrain.objectives.diversity import perplexity

COLLAPSED = 0.075
"""A group whose perplexity lies at less than this share of the way from one code to all has collapsed: 25 of 320."""


class QuantizerSettings(BaseModel):
    """Sizes of the codebook and the schedule of the Gumbel temperature.

    ``geometric`` falls by equal factors up to the share ``until`` of training, ``decay`` by ``factor`` each step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: int = Field(default=2, ge=1)
    codes: int = Field(default=320, ge=2, description="codes a group")
    size: int = Field(default=256, ge=1, description="size of a code vector, all groups together")
    schedule: Literal["geometric", "decay"] = "geometric"
    warm: float = Field(default=2.0, gt=0, description="Gumbel temperature at the start")
    sharp: float = Field(default=0.5, gt=0, description="Gumbel temperature at the end")
    until: float = Field(default=1.0, gt=0, le=1, description="geometric: share of training at which it is `sharp`")
    factor: float = Field(default=0.999995, gt=0, lt=1, description="decay: factor a step")

    @model_validator(mode="after")
    def _divides(self) -> QuantizerSettings:
        if self.size % self.groups:
            raise ValueError(f"size is {self.size}; it must be a multiple of groups ({self.groups})")
        return self

    def temperature(self, step: int, share: float) -> float:
        """Gumbel temperature at a step and a share of training."""
        if self.schedule == "decay":
            return float(max(self.warm * self.factor**step, self.sharp))
        return float(self.warm * (self.sharp / self.warm) ** min(max(share / self.until, 0.0), 1.0))


class Quantized(NamedTuple):
    """``vectors`` (B, M, size) and joint ``codes`` (B, M) that name all groups at once.

    ``soft`` (G, V): sum over the present frames of the probabilities without noise, with gradient; ``hard`` (G, V): how
    often each code is the likeliest of them, without.
    """

    vectors: Tensor
    codes: Tensor
    soft: Tensor
    hard: Tensor


class Quantizer(nn.Module):
    """Features (B, M, F) to code vectors. ``usage`` (G, V) counts choices in training since the last revival."""

    usage: Tensor

    def __init__(self, features: int, settings: QuantizerSettings) -> None:
        super().__init__()
        self.settings = settings
        self.logits = nn.Linear(features, settings.groups * settings.codes)
        self.codebook = nn.Parameter(torch.empty(settings.groups, settings.codes, settings.size // settings.groups))
        self.register_buffer("usage", torch.zeros(settings.groups, settings.codes))
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        nn.init.uniform_(self.codebook, -1, 1)

    def forward(self, features: Tensor, present: Tensor, temperature: float, generator: torch.Generator) -> Quantized:
        """Frames that are not ``present`` (B, M) are quantized too, but count nowhere. No noise in evaluation."""
        drawn = None
        if self.training:  # ahead of everything else, which can then be compiled in one piece
            precise = torch.promote_types(features.dtype, torch.float32)
            drawn = draws.uniform(generator, *present.shape, *self.usage.shape, like=features, dtype=precise)
        return self._quantized(features, present, temperature, drawn)

    def _quantized(self, features: Tensor, present: Tensor, temperature: float, drawn: Tensor | None) -> Quantized:
        with torch.autocast(features.device.type, enabled=False):
            features = ranks.precise(features)
            logits = self.logits(features).unflatten(-1, self.usage.shape)
            flags = present.flatten().to(logits.dtype)
            soft = (flags @ logits.softmax(-1).flatten(2).flatten(0, 1)).view_as(self.usage)
            likeliest = logits.detach().argmax(-1)
            hard = self._counted(likeliest, flags)
            if drawn is None:
                return Quantized(self._rows(likeliest), self.joint(likeliest), soft, hard)
            self.usage += hard
            weights = ((logits + draws.to_gumbel(drawn)) / temperature).softmax(-1)
            chosen = weights.detach().argmax(-1)
            through = torch.einsum("bmgv,gvd->bmgd", weights, self.codebook.detach()).flatten(-2)
            return Quantized(self._rows(chosen) + (through - through.detach()), self.joint(chosen), soft, hard)

    def codes(self, features: Tensor) -> Tensor:
        """The likeliest code of each group, (B, M, G)."""
        with torch.autocast(features.device.type, enabled=False):
            likeliest: Tensor = self.logits(ranks.precise(features)).unflatten(-1, self.usage.shape).argmax(-1)
            return likeliest

    def joint(self, codes: Tensor) -> Tensor:
        """One number (B, M) for the codes (B, M, G) of all groups."""
        number = codes[..., 0]
        for group in range(1, self.settings.groups):
            number = number * self.settings.codes + codes[..., group]
        return number

    def _flat(self, codes: Tensor) -> Tensor:
        return codes + torch.arange(self.settings.groups, device=codes.device) * self.settings.codes

    def _rows(self, codes: Tensor) -> Tensor:
        return F.embedding(self._flat(codes), self.codebook.flatten(0, 1)).flatten(-2)

    def _counted(self, codes: Tensor, flags: Tensor) -> Tensor:
        counts = flags.new_zeros(self.usage.numel())
        each = flags[:, None].expand(-1, self.settings.groups).flatten()
        return counts.index_add_(0, self._flat(codes).flatten(), each).view_as(self.usage)

    @torch.no_grad()
    def revive(self, seed: int) -> Tensor:
        """Draw dead codes anew, uniformly: those that no rank has used since the last call.

        Of a group that has collapsed (``COLLAPSED``) the codes in use are drawn anew too: what wins everywhere would
        go on winning. A fresh code gets a code vector, logit weights and the mean bias of the codes that stay, so that
        it can win again. Returns which (G, V). Every rank must call it with the same ``seed``.
        """
        usage = ranks.summed(self.usage)
        found = perplexity(usage / usage.sum(1, keepdim=True).clamp(min=1))
        dead = (usage == 0) | (found < 1 + COLLAPSED * (self.settings.codes - 1))[:, None]
        generator = torch.Generator().manual_seed(seed)
        weight = self.logits.weight.view(*self.usage.shape, -1)
        bias = self.logits.bias.view_as(self.usage)
        rows = torch.rand(self.codebook.shape, generator=generator) * 2 - 1
        fresh = torch.randn(weight.shape, generator=generator)
        level = (bias * ~dead).sum(1, keepdim=True) / (~dead).sum(1, keepdim=True)
        self.codebook.copy_(torch.where(dead[..., None], rows.to(self.codebook), self.codebook))
        weight.copy_(torch.where(dead[..., None], fresh.to(weight), weight))
        bias.copy_(torch.where(dead, level.nan_to_num(0.0).expand_as(bias), bias))
        self.usage.zero_()
        return dead
