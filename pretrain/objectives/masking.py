"""Span masking of frames, on the device and without a loop over rows.

Each place where a span may start gets a random key, and a frame the smallest key of the spans that would cover it. The
spans of the smallest keys are laid, so the mask is where the frame's own key is at most a threshold: of the n-th frame
(``share``) or of the k-th span (``fairseq``).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from pretrain.objectives import draws


class MaskSettings(BaseModel):
    """How frames are masked.

    Two meanings of the same number are in use. ``share``: the share of a row's frames that end up masked, exact to one
    span. ``fairseq``: the expected share *before* spans overlap, as ``mask_prob`` of wav2vec 2.0 (arXiv 2006.11477) in
    fairseq: 0.65 masks about 49 % of 1,024 frames with spans of 10, not 65 % (and is no probability of a start:
    that of the paper is 0.065).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["share", "fairseq"] = Field(default="share", description="what `share` means: see the class")
    share: float = Field(default=0.65, gt=0, lt=1, description="share of the frames; the tuning guide says 0.6 to 0.8")
    length: int = Field(default=10, ge=1, description="frames a span (0.04 s each); the tuning guide says 5 to 20")


def most_masked(frames: int, settings: MaskSettings) -> int:
    """Masked frames that no row of ``frames`` exceeds."""
    if settings.kind == "share":
        return min(frames, math.ceil(settings.share * frames) + settings.length)
    return min(frames, (int(settings.share * frames / settings.length) + 1) * settings.length)


def span_mask(frames: Tensor, settings: MaskSettings, generator: torch.Generator) -> Tensor:
    """Which frames to mask, (B, T) bool, each row for itself, among the ``frames`` (B, T) that have data."""
    length = min(settings.length, frames.shape[1])
    starts = frames.shape[1] - length + 1
    keys = draws.uniform(generator, len(frames), starts, like=frames, dtype=torch.float64)
    keys = keys.masked_fill(~frames.unfold(1, length, 1).any(-1), torch.inf)
    cover = F.pad(keys, (length - 1, length - 1), value=torch.inf).unfold(1, length, 1).amin(-1)
    cover = cover.masked_fill(~frames, torch.inf)
    count = frames.sum(1, keepdim=True)
    if settings.kind == "share":
        threshold = _by_frames(cover, (settings.share * count).round().long())
    else:
        extra = draws.uniform(generator, len(frames), 1, like=frames, dtype=torch.float64)
        threshold = _smallest(keys, (settings.share * count / length + extra).long())
    return (cover <= threshold) & cover.isfinite()


def _smallest(keys: Tensor, count: Tensor) -> Tensor:
    """The ``count``-th (B, 1) smallest key of each row; below all of them where the count is zero."""
    threshold = keys.sort(1).values.gather(1, (count - 1).clamp(0, keys.shape[1] - 1))
    return torch.where(count > 0, threshold, -1.0)


def _by_frames(cover: Tensor, wanted: Tensor) -> Tensor:
    """Threshold with which the masked frames come nearest to ``wanted`` (B, 1): with or without the last span."""
    threshold = _smallest(cover, wanted)
    within, without = (cover <= threshold).sum(1, keepdim=True), (cover < threshold).sum(1, keepdim=True)
    before = cover.masked_fill(cover >= threshold, -1.0).amax(1, keepdim=True)
    return torch.where(wanted - without < within - wanted, before, threshold)
