"""What lies around a gap: how far it is, and a straight line across it. Shapes: B windows, C components, W samples."""

from __future__ import annotations

import torch
from torch import Tensor


def neighbours(flags: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest sample at or before, and at or after, each one at which ``flags`` (B, C, W) hold.

    -1 where there is none before, W where there is none after.
    """
    samples = flags.shape[-1]
    place = torch.arange(samples, device=flags.device).expand_as(flags)
    before = torch.where(flags, place, -1).cummax(-1).values
    after = torch.where(flags, place, samples).flip(-1).cummin(-1).values.flip(-1)
    return before, after


def bridged(waveform: Tensor, valid: Tensor) -> Tensor:
    """``waveform`` (B, C, W) with straight lines where it is not ``valid``, and level beyond the ends."""
    samples = waveform.shape[-1]
    before, after = neighbours(valid)
    before, after = torch.where(before < 0, after, before), torch.where(after >= samples, before, after)
    before, after = before.clamp(0, samples - 1), after.clamp(0, samples - 1)
    place = torch.arange(samples, device=waveform.device)
    share = ((place - before) / (after - before).clamp(min=1)).to(waveform.dtype)
    return torch.lerp(waveform.gather(-1, before), waveform.gather(-1, after), share)


def depth(valid: Tensor) -> Tensor:
    """Samples (B, C, W) from each valid one to the nearest that is not; the ends of the window are no edges."""
    samples = valid.shape[-1]
    before, after = neighbours(~valid)
    place = torch.arange(samples, device=valid.device)
    left = torch.where(before < 0, samples, place - before)
    return torch.minimum(left, torch.where(after >= samples, samples, after - place))
