"""Where the negatives of a masked frame come from: four strategies by name.

All of them draw among masked frames only (a bank: of earlier batches), never the frame itself, and none whose code is
that of the positive: compared by code number, since equal vectors of floats are no proof. Similarities come from one
product of all frames with all candidates, of which each frame gathers its own: no B x M x K x D.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pretrain.objectives import draws
from pretrain.objectives.infonce import Candidates
from pretrain.objectives.similarity import Similarity, paired


class NegativeSettings(BaseModel):
    """Where negatives come from and how many.

    ``same_recording``: the row's own masked frames, with replacement. ``across_recordings``: masked frames of the whole
    batch. ``hard``: of the row's own, those most similar to the prediction. ``memory_bank``: targets of earlier batches
    (those of this batch until there are any).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["same_recording", "across_recordings", "hard", "memory_bank"] = "same_recording"
    count: int = Field(default=100, ge=1, description="negatives a frame, K; the tuning guide says 50 to 1,000")
    pool: int = Field(
        default=1024, ge=1, description="frames that all of a batch draw from, unless from the same recording"
    )
    bank: int = Field(default=8192, ge=1, description="memory_bank: frames kept on each rank")


class Targets(NamedTuple):
    """Vectors (B, M, D), joint codes (B, M), and which frames are ``present`` (B, M); they come first in a row."""

    vectors: Tensor
    codes: Tensor
    present: Tensor


class Pool(NamedTuple):
    """Candidates for all rows: vectors (S, D), codes (S,), the flat frame that each is (B M: of no row), present."""

    vectors: Tensor
    codes: Tensor
    origin: Tensor
    present: Tensor


def draw_others(count: Tensor, own: Tensor, negatives: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers below ``count`` (..., 1), never ``own`` (..., M): (..., M, K) with replacement, and which are any.

    Where ``own`` is not below ``count``, nothing is left out. Where nothing remains, none is any.
    """
    drawn = draws.uniform(generator, *own.shape, negatives, like=own)
    inside = own < count
    others = (count - inside.long())[..., None].expand(*own.shape, negatives)
    number = (drawn * others).long().minimum(others - 1).clamp(min=0)
    return number + (inside[..., None] & (number >= own[..., None])), others > 0


def draw_pool(targets: Targets, size: int, generator: torch.Generator) -> Pool:
    """``size`` different present frames of the batch, or as many as there are; the present ones come first."""
    keys = draws.uniform(generator, *targets.present.shape, like=targets.vectors)
    keys = keys.masked_fill(~targets.present, -1.0).flatten()
    origin = keys.topk(min(size, len(keys))).indices
    present = targets.present.flatten()[origin]
    return Pool(targets.vectors.flatten(0, 1)[origin], targets.codes.flatten()[origin], origin, present)


class Strategy(nn.Module, ABC):
    """Predictions (B, M, D) and their targets to similarities with the positive and with K negatives."""

    def __init__(self, settings: NegativeSettings, size: int, similarity: Similarity) -> None:
        super().__init__()
        self.settings, self.size, self.similarity = settings, size, similarity

    @abstractmethod
    def forward(self, predictions: Tensor, targets: Targets, generator: torch.Generator) -> Candidates:
        """Frames that are not present have no negatives kept."""

    def after_step(self) -> None:
        """To be called once after each optimizer step; most have nothing to do then."""


class SameRecording(Strategy):
    """Uniformly among the other masked frames of the row."""

    def forward(self, predictions: Tensor, targets: Targets, generator: torch.Generator) -> Candidates:
        """As Strategy."""
        codes, present = targets.codes, targets.present
        own = torch.arange(codes.shape[1], device=codes.device).expand_as(codes)
        count = present.sum(1, keepdim=True)
        index, kept = draw_others(count, own, self.settings.count, generator)
        index = index.clamp(max=codes.shape[1] - 1)
        matrix = self.similarity(predictions, targets.vectors)
        drawn = codes[:, None].expand(-1, codes.shape[1], -1).gather(2, index)
        kept = kept & (drawn != codes[..., None]) & present[..., None]
        return Candidates(matrix.diagonal(dim1=1, dim2=2), matrix.gather(2, index), kept)


class Hard(Strategy):
    """The most similar to the prediction among the other masked frames of the row with another code."""

    def forward(self, predictions: Tensor, targets: Targets, generator: torch.Generator) -> Candidates:
        """As Strategy; draws nothing."""
        codes, present = targets.codes, targets.present
        matrix = self.similarity(predictions, targets.vectors)
        allowed = (codes[:, None] != codes[..., None]) & present[:, None] & present[..., None]
        count = min(self.settings.count, codes.shape[1])
        index = matrix.detach().masked_fill(~allowed, -torch.inf).topk(count, dim=2).indices
        return Candidates(matrix.diagonal(dim1=1, dim2=2), matrix.gather(2, index), allowed.gather(2, index))


class AcrossRecordings(Strategy):
    """Uniformly among masked frames of the whole batch, by way of a pool that all rows draw from."""

    def forward(self, predictions: Tensor, targets: Targets, generator: torch.Generator) -> Candidates:
        """As Strategy."""
        return self._from(draw_pool(targets, self.settings.pool, generator), predictions, targets, generator)

    def _from(self, pool: Pool, predictions: Tensor, targets: Targets, generator: torch.Generator) -> Candidates:
        count = pool.present.sum()[None]
        number = torch.arange(len(pool.origin), device=count.device)
        # Where a frame of the batch stands in the pool; beyond its end if it is not in it.
        place = number.new_full((targets.codes.numel() + 1,), len(number)).scatter(0, pool.origin, number)
        own = place[:-1].view_as(targets.codes)
        index, kept = draw_others(count.expand(len(own), 1), own, self.settings.count, generator)
        index = index.clamp(max=len(number) - 1)
        matrix = self.similarity(predictions.flatten(0, 1), pool.vectors)
        kept = kept & (pool.codes[index] != targets.codes[..., None]) & targets.present[..., None]
        negatives = matrix.gather(1, index.flatten(0, 1)).view(index.shape)
        return Candidates(paired(self.similarity, predictions, targets.vectors), negatives, kept)


class MemoryBank(AcrossRecordings):
    """Uniformly among targets of earlier batches of this rank (MoCo, arXiv 1911.05722), by way of a pool.

    A random pool of each batch in training joins the bank, the oldest leaving, once the step is done. The bank is part
    of the state of its rank: buffers must not be broadcast between ranks.
    """

    vectors: Tensor
    codes: Tensor
    filled: Tensor
    cursor: Tensor

    def __init__(self, settings: NegativeSettings, size: int, similarity: Similarity) -> None:
        super().__init__(settings, size, similarity)
        self.register_buffer("vectors", torch.zeros(settings.bank, size))
        self.register_buffer("codes", torch.zeros(settings.bank, dtype=torch.long))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.long))
        self.waiting: list[Pool] = []

    def forward(self, predictions: Tensor, targets: Targets, generator: torch.Generator) -> Candidates:
        """As Strategy; the first batch, for want of earlier ones, draws from itself."""
        recent = draw_pool(targets, self.settings.pool, generator)
        if self.training:
            self.waiting.append(Pool(*(part.detach() for part in recent)))
        slot = draws.uniform(generator, len(recent.origin), like=recent.vectors) * self.filled
        slot = slot.long().minimum(self.filled - 1).clamp(min=0)
        old = self.filled > 0
        pool = Pool(
            torch.where(old, self.vectors[slot].to(recent.vectors), recent.vectors),
            torch.where(old, self.codes[slot], recent.codes),
            # The place of no frame of the batch.
            torch.where(old, torch.full_like(recent.origin, targets.codes.numel()), recent.origin),
            recent.present | old,
        )
        return self._from(pool, predictions, targets, generator)

    @torch.no_grad()
    def after_step(self) -> None:
        """Take in what waits."""
        for pool in self.waiting:
            # Frames that are not present come last in a pool: they are written, and then written over.
            size = min(len(pool.origin), self.settings.bank)
            place = (self.cursor + torch.arange(size, device=self.cursor.device)) % self.settings.bank
            # A step whose loss was not finite changes no weight; its vectors must not stay here either.
            keep = pool.present[:size] & pool.vectors.isfinite().all()
            self.vectors[place] = torch.where(keep[:, None], pool.vectors[:size].to(self.vectors), self.vectors[place])
            self.codes[place] = torch.where(keep, pool.codes[:size], self.codes[place])
            self.cursor.copy_((self.cursor + keep.sum()) % self.settings.bank)
            self.filled.copy_((self.filled + keep.sum()).clamp(max=self.settings.bank))
        self.waiting.clear()


STRATEGIES: dict[str, type[Strategy]] = {
    "same_recording": SameRecording,
    "across_recordings": AcrossRecordings,
    "hard": Hard,
    "memory_bank": MemoryBank,
}
