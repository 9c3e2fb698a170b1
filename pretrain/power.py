"""How strong windows are, by the differences between neighbouring samples: blind to offset and microseism.

Shapes: B windows, C components, W samples a window, K labels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.bank import Windows
from pretrain.chance import times


def steps(windows: Windows) -> Tensor:
    """Each sample less the one before it, (B, C, W); zero where either is not valid, so at the edges of a gap."""
    both = windows.valid & F.pad(windows.valid, (1, 0))[..., :-1]
    return F.pad(windows.waveform.diff(dim=-1), (1, 0)) * both


def power(windows: Windows) -> Tensor:
    """Mean square (B,) of the sample-to-sample difference over the valid samples."""
    return (steps(windows) ** 2).sum((1, 2)) / windows.valid.sum((1, 2)).clamp(min=1)


def quiet(windows: Windows, block_samples: int = 64) -> Tensor:
    """Root of ``power`` (B,) in the quieter parts: a fifth of the blocks with data are quieter; zero without any."""
    whole = windows.waveform.shape[-1] // block_samples * block_samples
    squares = (steps(windows) ** 2).sum(1)[:, :whole].unflatten(1, (-1, block_samples)).sum(2)
    count = windows.valid.sum(1)[:, :whole].unflatten(1, (-1, block_samples)).sum(2)
    # Blocks at the edge of data say little of it.
    usable = count > count.amax(1, keepdim=True) // 2
    ordered = torch.where(usable, squares / count.clamp(min=1), torch.inf).sort(1).values
    found = ordered.gather(1, (usable.sum(1, keepdim=True) // 5))[:, 0]
    return torch.where(usable.any(1), found, 0.0).sqrt()


def arrival_power(windows: Windows, seconds: float = 1.0, sampling_rate_hz: float = 100.0) -> Tensor:
    """As ``power``, but over the second after each label only; of the whole window where it has no label."""
    since = times(windows) - windows.positions[..., None]
    near = ((since >= 0) & (since < seconds * sampling_rate_hz)).any(1)
    squares = steps(windows) ** 2 * near[:, None]
    count = (windows.valid & near[:, None]).sum((1, 2))
    return torch.where(count > 0, squares.sum((1, 2)) / count.clamp(min=1), power(windows))


def second_power(windows: Windows, sampling_rate_hz: float = 100.0) -> Tensor:
    """``power`` of the second that begins at each sample, (B, W)."""
    energy = (steps(windows) ** 2).sum(1).double()
    length = int(sampling_rate_hz)
    total = F.pad(energy, (1, length)).cumsum(-1)
    return ((total[..., length:] - total[..., :-length])[..., : energy.shape[-1]] / length).float()


def at_labels(values: Tensor, windows: Windows, shift: int = 0) -> tuple[Tensor, Tensor]:
    """``values`` (B, W) ``shift`` samples after each label, (B, K), and which labels lie in their window.

    A place beyond the ends of the window is taken for the end.
    """
    last = windows.waveform.shape[-1] - 1
    inside = (windows.positions >= 0) & (windows.positions <= last)
    index = (windows.positions.clamp(0, last).long() + shift).clamp(0, last)
    return values.gather(1, index), inside
