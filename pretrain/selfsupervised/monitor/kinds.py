"""What a frame of a held-out window shows: noise, the first second of P or of S, or neither.

Shapes: B windows, K labels a window, N samples, T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.bank import PHASES, UNSEEN
from pretrain.data.trace import RATE_HZ
from pretrain.selfsupervised.data_held_out import LabelledBatch

KINDS = ("noise", *PHASES)
NEITHER = -1
NOISE = 0
SHOWN_S = 1.0
"""How long after its onset a frame shows an arrival."""
GUARD_S = 1.0
"""Before the first arrival of a window, noise ends this early: picks are not exact, and some onsets begin sooner."""


def frame_kinds(labelled: LabelledBatch, stride: int) -> Tensor:
    """Which of ``KINDS`` each frame shows, (B, T) long; ``NEITHER`` for the rest and for frames without data.

    Noise are all frames of noise records, and in others those before the first arrival.
    """
    present = labelled.batch.valid.any(1).unflatten(-1, (-1, stride)).all(-1)
    time = (torch.arange(present.shape[1], device=present.device) + 0.5) * stride
    known = labelled.positions > UNSEEN / 2
    first = labelled.positions.masked_fill(~known, torch.inf).amin(1, keepdim=True)
    before = known.any(1, keepdim=True) & (time < first - GUARD_S * RATE_HZ)
    kinds = torch.where(before | labelled.noise[:, None], NOISE, NEITHER)
    for phase in range(len(PHASES)):
        onsets = labelled.positions.masked_fill(~known | (labelled.phases != phase), torch.inf)[..., None]
        since = time - onsets
        # Where both are shown, S is what is new.
        kinds = kinds.masked_fill(((since >= 0) & (since < SHOWN_S * RATE_HZ)).any(1), KINDS.index(PHASES[phase]))
    return kinds.masked_fill(~present, NEITHER)
