"""From coded windows to a batch, on the device: 16-bit codes travel, float32 never does.

Shapes: B windows, W samples a window.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pretrain.data.sample_codes import NOT_VALID
from pretrain.objectives.objective import Batch


class CodedWindows(NamedTuple):
    """Windows as they lie in a store, ``codes`` (B, 3, W) with ``scale`` and ``bend`` (B, 3), and their plan.

    ``keep`` (B, 3), ``gain`` (B, 3) and ``birth`` (B,) are those of a WindowPlan.
    """

    codes: Tensor
    scale: Tensor
    bend: Tensor
    keep: Tensor
    gain: Tensor
    birth: Tensor


def decoded(windows: CodedWindows) -> Batch:
    """The batch of coded windows.

    The first valid sample of each component is subtracted, as of a station just started (``picker.offset``).
    """
    codes, bend = windows.codes, windows.bend[..., None]
    valid = codes != NOT_VALID if codes.dtype == torch.int16 else ~codes.isnan()
    steps = torch.where(valid, codes, 0).float()
    if codes.dtype == torch.int16:
        curved = bend > 0
        steps = torch.where(curved, torch.sinh(steps * bend) / bend.masked_fill(~curved, 1), steps)
    waveform = steps * (windows.scale * windows.gain)[..., None]
    since = torch.arange(codes.shape[-1], device=codes.device)
    valid = valid & windows.keep[..., None] & (since >= windows.birth[:, None])[:, None]
    first = waveform.gather(-1, valid.to(torch.uint8).argmax(-1, keepdim=True))
    return Batch(waveform=(waveform - first) * valid, valid=valid)
