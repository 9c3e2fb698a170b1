"""Two augmented views of the same windows, for objectives that compare them."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain import augment
from pretrain.bank import UNSEEN, Windows
from pretrain.objectives import draws
from pretrain.objectives.objective import Batch


def view(batch: Batch, samples: int, generator: torch.Generator) -> Batch:
    """A random crop of ``samples`` of each window, augmented as the supervised trainer does, without other records."""
    rows = len(batch.waveform)
    room = batch.waveform.shape[-1] - samples + 1
    start = (draws.uniform(generator, rows, 1, like=batch.waveform) * room).long().clamp(max=room - 1)
    index = (start + torch.arange(samples, device=start.device))[:, None].expand(-1, 3, -1)
    waveform, valid = batch.waveform.gather(2, index), batch.valid.gather(2, index)
    windows = Windows(waveform * valid, valid, *_nothing_labelled(waveform))
    windows = augment.change_instrument(windows, generator, 0.3)
    windows = augment.rotate(windows, generator, 0.5)
    windows = augment.add_glitches(windows, generator, 0.05)
    windows = augment.drop_components(windows, generator, 0.25)
    windows = augment.cut_gaps(windows, generator, 0.15)
    windows = augment.scale(windows, generator)
    return Batch(windows.waveform, windows.valid)


def _nothing_labelled(waveform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, _, samples = waveform.shape
    positions = waveform.new_full((rows, 1), UNSEEN)
    return positions, torch.zeros_like(positions, dtype=torch.long), waveform.new_ones(rows, samples)


def two_views(batch: Batch, samples: int, generator: torch.Generator) -> Batch:
    """Both views (2 B, 3, samples): row i and row B + i are of the same window."""
    first, second = view(batch, samples, generator), view(batch, samples, generator)
    return Batch(torch.cat([first.waveform, second.waveform]), torch.cat([first.valid, second.valid]))
