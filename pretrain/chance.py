"""Random draws for augmentation: on the device of the windows, one for each of them."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.bank import Windows

Generator = torch.Generator


def uniform(windows: Windows, generator: Generator, *shape: int) -> Tensor:
    """Numbers between zero and one of ``shape``, which is (B,) where none is given."""
    shape = shape or (len(windows.waveform),)
    return torch.rand(*shape, device=windows.waveform.device, generator=generator)


def log_uniform(windows: Windows, generator: Generator, low: float, high: float, *shape: int) -> Tensor:
    """Numbers between ``low`` and ``high``, every ratio as likely as every other."""
    return low * (high / low) ** uniform(windows, generator, *shape)


def chosen(windows: Windows, generator: Generator, share: float) -> Tensor:
    """(B,) windows picked with probability ``share``."""
    return uniform(windows, generator) < share


def times(windows: Windows) -> Tensor:
    """Sample numbers (W,)."""
    return torch.arange(windows.waveform.shape[-1], device=windows.waveform.device)
