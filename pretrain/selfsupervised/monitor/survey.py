"""What the codes of a pretrained quantizer stand for, counted over held-out windows.

Shapes: B windows, T frames, F features, G groups, V codes a group, K kinds (noise, P, S).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrain.objectives.contrastive import Contrastive
from pretrain.selfsupervised.data_held_out import LabelledBatch
from pretrain.selfsupervised.monitor.kinds import KINDS, frame_kinds
from pretrain.selfsupervised.monitor.validation import evaluating

HALF_SAMPLES = 64
"""Samples shown before and after the middle of a frame."""
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Medoid:
    """A window whose frame in the middle is among the nearest of its code to the mean of the code's tokens."""

    waveform: NDArray[np.float32]
    """(3, 2 HALF_SAMPLES), Z, N, E."""
    trace: str
    data_set: str
    sample: int
    """Of the middle, from the start of the held-out window."""
    distance: float


@dataclass(frozen=True)
class Survey:
    """Counts over all frames that have data, and medoids by group and code.

    ``used`` (G, V); ``by_kind`` (K, G, V); ``together`` (V, V) of the first two groups (none where there is one);
    ``followed`` (G, V, V): by the next frame's code.
    """

    used: Counts
    by_kind: Counts
    together: Counts | None
    followed: Counts
    medoids: dict[tuple[int, int], list[Medoid]]

    @property
    def frames(self) -> int:
        """Frames counted."""
        return int(self.used[0].sum())

    def ranked(self, group: int, most: int) -> list[int]:
        """Codes of a group that are used, the most used first."""
        order = np.argsort(-self.used[group], kind="stable")[:most]
        return [int(code) for code in order if self.used[group, code]]

    def balanced(self, group: int, code: int) -> dict[str, float]:
        """How a code's use is shared out if noise, P and S were equally frequent; NaN where it is used in none."""
        totals = self.by_kind[:, group].sum(-1)
        rates = np.where(totals > 0, self.by_kind[:, group, code] / np.maximum(totals, 1), 0.0)
        whole = rates.sum()
        return {kind: float(rate / whole) if whole else math.nan for kind, rate in zip(KINDS, rates, strict=True)}

    def run_frames(self, group: int, code: int) -> float:
        """Mean number of frames that a code lasts, from how often it follows itself."""
        row = self.followed[group, code]
        leaving = row.sum() - row[code]
        return float(row.sum() / leaving) if leaving else math.inf

    def shared_nats(self) -> float:
        """Mutual information of the first two groups in nats: 0 where they say different things."""
        if self.together is None or not self.together.sum():
            return 0.0
        joint = self.together / self.together.sum()
        apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        there = joint > 0
        return float((joint[there] * np.log(joint[there] / apart[there])).sum())


@dataclass(frozen=True)
class _Frames:
    """Of a batch: normalised ``tokens`` (B, T, F), ``codes`` (B, T, G), frames ``present`` (B, T)."""

    labelled: LabelledBatch
    tokens: Tensor
    codes: Tensor
    present: Tensor


def survey(objective: Contrastive, batches: Sequence[LabelledBatch], most: int = 12, shown: int = 4) -> Survey:
    """Count codes, and find ``shown`` medoids of different windows for the ``most`` used codes of each group."""
    groups, codes = objective.quantizer.usage.shape
    used, by_kind = torch.zeros(groups, codes), torch.zeros(len(KINDS), groups, codes)
    together, followed = torch.zeros(codes, codes), torch.zeros(groups, codes, codes)
    sums = torch.zeros(groups, codes, objective.backbone.width, dtype=torch.float64)
    with evaluating(objective):
        for frames in _look(objective, batches):
            kinds = frame_kinds(frames.labelled, objective.backbone.config.stride).cpu()
            pair = frames.present[:, 1:] & frames.present[:, :-1]
            for group in range(groups):
                own = frames.codes[..., group]
                used[group] += torch.bincount(own[frames.present], minlength=codes)
                sums[group].index_add_(0, own[frames.present], frames.tokens[frames.present].double())
                for kind in range(len(KINDS)):
                    by_kind[kind, group] += torch.bincount(own[frames.present & (kinds == kind)], minlength=codes)
                followed[group] += _pairs(own[:, :-1][pair], own[:, 1:][pair], codes)
            if groups > 1:
                together += _pairs(frames.codes[frames.present][:, 0], frames.codes[frames.present][:, 1], codes)
        means = (sums / used[..., None].clamp(min=1)).float()
        wanted = {(group, int(code)) for group in range(groups) for code in used[group].topk(min(most, codes)).indices}
        medoids = _medoids(objective, batches, means, {key for key in wanted if used[key] > 0}, shown)
    counts = [each.long().numpy() for each in (used, by_kind, together, followed)]
    return Survey(counts[0], counts[1], counts[2] if groups > 1 else None, counts[3], medoids)


def _look(objective: Contrastive, batches: Sequence[LabelledBatch]) -> Iterator[_Frames]:
    """The frames of each batch, on the CPU."""
    backbone = objective.backbone
    for labelled in batches:
        features = backbone.features(labelled.batch.waveform, labelled.batch.valid)
        tokens = objective.token_norm(backbone.tokens(features))
        codes = objective.quantizer.codes(tokens)
        yield _Frames(labelled, tokens.float().cpu(), codes.cpu(), backbone.frames(features).cpu())


def _pairs(first: Tensor, second: Tensor, codes: int) -> Tensor:
    return torch.bincount(first * codes + second, minlength=codes * codes).view(codes, codes)


def _medoids(
    objective: Contrastive,
    batches: Sequence[LabelledBatch],
    means: Tensor,
    wanted: set[tuple[int, int]],
    shown: int,
) -> dict[tuple[int, int], list[Medoid]]:
    """A second look, now that the means (G, V, F) are known; one frame of a window at most."""
    stride = objective.backbone.config.stride
    best: dict[tuple[int, int], list[Medoid]] = {key: [] for key in sorted(wanted)}
    for frames in _look(objective, batches):
        length = frames.labelled.batch.waveform.shape[-1]
        middle = torch.arange(frames.present.shape[1]) * stride + stride // 2
        whole = frames.present & (middle >= HALF_SAMPLES) & (middle <= length - HALF_SAMPLES)
        for (group, code), found in best.items():
            here = whole & (frames.codes[..., group] == code)
            distance = torch.full(here.shape, math.inf)
            distance[here] = (frames.tokens[here] - means[group, code]).norm(dim=-1)
            nearest, at = distance.min(1)
            for row in torch.nonzero(nearest.isfinite())[:, 0].tolist():
                found.append(_medoid(frames.labelled, row, int(middle[at[row]]), float(nearest[row])))
            found.sort(key=lambda medoid: medoid.distance)
            del found[shown:]
    return best


def _medoid(labelled: LabelledBatch, row: int, middle: int, distance: float) -> Medoid:
    cut = labelled.batch.waveform[row, :, middle - HALF_SAMPLES : middle + HALF_SAMPLES]
    waveform = cut.float().cpu().numpy().copy()
    return Medoid(waveform, labelled.names[row], labelled.data_set, middle, distance)
