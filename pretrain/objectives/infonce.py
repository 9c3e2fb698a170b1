"""InfoNCE (CPC, arXiv 1807.03748): which of K + 1 candidates is the true one?

Sums and counts, not means: ranks and micro-batches hold different numbers of frames, and only their sums add up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor


class Candidates(NamedTuple):
    """Similarities of each frame with its ``positive`` (...) and its ``negatives`` (..., K), and which are ``kept``.

    Not kept: the frame itself, what is not masked or not there, and what has the code of the positive.
    """

    positive: Tensor
    negatives: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Contrast:
    """Sums over the frames that are present; all but ``loss_sum`` without gradient.

    ``correct``: the positive is strictly above every negative; a frame without any negative is never correct, so that
    a collapsed codebook (loss zero, nothing to confuse) does not read as success. ``bound``: of log(n + 1) - loss with
    n the frame's valid negatives, the lower bound of the mutual information in nats with n + 1 candidates (often
    written log K - L).
    """

    loss_sum: Tensor
    count: Tensor
    correct: Tensor
    valid_negatives: Tensor
    bound: Tensor

    def statistics(self) -> dict[str, Tensor]:
        """By name, without gradient."""
        return {each.name: getattr(self, each.name).detach() for each in fields(self)}


def infonce(candidates: Candidates, temperature: Tensor | float, present: Tensor) -> Contrast:
    """Loss of telling the positive from the negatives, summed over the frames ``present`` (...).

    A frame without a valid negative has loss zero and gradient zero, never NaN.
    """
    positive = candidates.positive / temperature
    negatives = (candidates.negatives / temperature).masked_fill(~candidates.kept, -torch.inf)
    loss = torch.cat([positive[..., None], negatives], -1).logsumexp(-1) - positive
    loss = loss.masked_fill(~present, 0.0)
    with torch.no_grad():
        valid = (candidates.kept & present[..., None]).sum(-1)
        correct = (negatives < positive[..., None]).all(-1) & (valid > 0)
        bound = torch.log1p(valid.to(loss.dtype)) - loss
    return Contrast(*(term.to(loss.dtype).sum() for term in (loss, present, correct, valid, bound)))
