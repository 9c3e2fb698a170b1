"""Augmentation by what goes wrong at a station: components lost or miswired, gaps, glitches, gain steps, clipping.

Each function takes and returns Windows, whole batches on the device of the data. Shapes: B windows, C components,
W samples a window.
"""

from __future__ import annotations

import torch

from pretrain.bank import Windows
from pretrain.chance import Generator, chosen, log_uniform, times, uniform
from pretrain.mixing import S, forget
from pretrain.power import at_labels, power, second_power


def drop_components(windows: Windows, generator: Generator, share: float, readable: float = 0.0) -> Windows:
    """Of ``share`` of the windows half become single verticals, 30 % lose a component, and in 20 % one is dead.

    A dead component is valid but constant. An S is forgotten where, on what is left, the power of its first second is
    less than ``readable`` times that of the second before it: on a single vertical many cannot be read.
    """
    kind, which = uniform(windows, generator, 2, len(windows.waveform))
    component = torch.arange(3, device=kind.device)[None, :, None]
    one = (which * 3).long()[:, None, None] == component
    vertical = (kind < share * 0.5)[:, None, None] & (component > 0)
    missing = ((kind >= share * 0.5) & (kind < share * 0.8))[:, None, None] & one
    dead = ((kind >= share * 0.8) & (kind < share))[:, None, None] & one
    valid = windows.valid & ~vertical & ~missing
    left = windows.but(waveform=windows.waveform * (valid & ~dead), valid=valid)
    if readable <= 0:
        return left
    strength = second_power(left)
    after, inside = at_labels(strength, left)
    before, _ = at_labels(strength, left, shift=-110)
    lost = inside & (left.phases == S) & (after < readable * before) & (kind < share)[:, None]
    return forget(left, lost)


def cut_gaps(windows: Windows, generator: Generator, share: float, longest_s: float = 2.0) -> Windows:
    """A gap of up to ``longest_s`` in all components or in one; the loss leaves out what is in a gap of all of them."""
    batch, samples = len(windows.waveform), windows.waveform.shape[-1]
    rows = chosen(windows, generator, share)
    start = samples * uniform(windows, generator)
    length = 100 * longest_s * uniform(windows, generator) ** 2 * rows
    time = times(windows)
    inside = (time >= start[:, None]) & (time < (start + length)[:, None])
    component = (6 * uniform(windows, generator, batch)).long()[:, None, None]
    which = (component >= 3) | (component == torch.arange(3, device=start.device)[None, :, None])
    valid = windows.valid & ~(inside[:, None] & which)
    return windows.but(waveform=windows.waveform * valid, valid=valid)


def add_glitches(windows: Windows, generator: Generator, share: float) -> Windows:
    """A spike or a step of 1 to 1,000 times the usual sample-to-sample difference, in one component."""
    batch, samples = len(windows.waveform), windows.waveform.shape[-1]
    draws = uniform(windows, generator, 5, batch)
    rows, time = draws[0] < share, times(windows)
    start = (draws[1] * samples).long()[:, None]
    step = torch.where((draws[2] < 0.5)[:, None], time == start, time >= start).float()
    size = power(windows).sqrt() * 10 ** (3 * draws[3]) * rows
    which = (draws[4] * 3).long()[:, None] == torch.arange(3, device=rows.device)
    glitch = size[:, None, None] * step[:, None] * which[..., None]
    return windows.but(waveform=(windows.waveform + glitch) * windows.valid)


def start_late(windows: Windows, generator: Generator, share: float, lead_samples: int = 100) -> Windows:
    """Let the station's data begin anywhere between where they do and ``lead_samples`` before the first arrival.

    Catalogue records begin a fixed time before P. Without this a model learns to expect an arrival some ten seconds
    after its state was fresh.
    """
    samples = windows.waveform.shape[-1]
    seen = windows.valid.any(1)
    begin = torch.where(seen.any(1), seen.int().argmax(1), samples).float()
    arrivals = torch.where(windows.positions > begin[:, None], windows.positions, float(samples))
    latest = (arrivals.amin(1).clamp(max=samples) - lead_samples).maximum(begin)
    draws = uniform(windows, generator, 2, len(begin))
    birth = torch.where(draws[0] < share, begin + draws[1] * (latest - begin), begin)
    valid = windows.valid & (times(windows) >= birth[:, None])[:, None]
    return windows.but(waveform=windows.waveform * valid, valid=valid)


def step_gain(windows: Windows, generator: Generator, share: float) -> Windows:
    """From some instant on, the gain is up to ten times more or less: of all components, or of one in a third."""
    batch, samples = len(windows.waveform), windows.waveform.shape[-1]
    rows = chosen(windows, generator, share)
    start = (samples * uniform(windows, generator)).long()
    gain = torch.where(rows, log_uniform(windows, generator, 0.1, 10.0), 1.0)
    component = (9 * uniform(windows, generator, batch)).long()[:, None]
    which = (component >= 3) | (component == torch.arange(3, device=rows.device))
    after = (times(windows) >= start[:, None])[:, None] & which[..., None]
    return windows.but(waveform=torch.where(after, windows.waveform * gain[:, None, None], windows.waveform))


def clip(windows: Windows, generator: Generator, share: float) -> Windows:
    """Saturate all components at 2 to 80 % of the largest amplitude of any; arrivals stay where they are.

    But never below eight times what is usual in the window (the square of the mean root): no digitizer clips noise.
    """
    rows = chosen(windows, generator, share)
    size = windows.waveform.abs()
    usual = (size.sqrt().sum((1, 2)) / windows.valid.sum((1, 2)).clamp(min=1)) ** 2
    rail = (size.amax((1, 2)) * log_uniform(windows, generator, 0.02, 0.8)).maximum(8 * usual)
    rail = torch.where(rows, rail, torch.inf)[:, None, None]
    return windows.but(waveform=windows.waveform.clamp(-rail, rail))


def miswire(windows: Windows, generator: Generator, share: float) -> Windows:
    """Of ``share`` of the windows 60 % have N and E swapped, 10 % Z and one of them, 30 % one component reversed."""
    kind, which = uniform(windows, generator, 2, len(windows.waveform))
    order = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 1, 0]], device=kind.device)
    vertical = torch.where(which < 0.5, 2, 3)
    swap = torch.where(kind < share * 0.6, 1, torch.where(kind < share * 0.7, vertical, 0))
    index = order[swap][..., None].expand_as(windows.valid)
    reverse = ((kind >= share * 0.7) & (kind < share))[:, None] & (
        (which * 3).long()[:, None] == torch.arange(3, device=kind.device)
    )
    sign = torch.where(reverse, -1.0, 1.0)[..., None]
    return windows.but(waveform=windows.waveform.gather(1, index) * sign, valid=windows.valid.gather(1, index))
