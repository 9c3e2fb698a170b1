"""Augmentation that matches live life, on whole batches and on the device of the data.

Each function takes and returns Windows and a random generator; ``augment`` chains them. Anything that would move an
onset against its label is causal (differentiation, integration) or moves the label too (stretching, in the bank).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.bank import UNSEEN, Bank, Windows

Generator = torch.Generator


def _uniform(windows: Windows, generator: Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, device=windows.waveform.device, generator=generator)


def _chosen(windows: Windows, generator: Generator, share: float) -> Tensor:
    """(B,) rows picked with probability ``share``."""
    return _uniform(windows, generator, len(windows.waveform)) < share


def _steps(windows: Windows) -> Tensor:
    """Each sample less the one before it, (B, C, W); zero where either is not valid, so at the edges of a gap."""
    both = windows.valid & F.pad(windows.valid, (1, 0))[..., :-1]
    return F.pad(windows.waveform.diff(dim=-1), (1, 0)) * both


def power(windows: Windows) -> Tensor:
    """Mean square (B,) of the sample-to-sample difference over the valid samples: blind to offset and microseism."""
    return (_steps(windows) ** 2).sum((1, 2)) / windows.valid.sum((1, 2)).clamp(min=1)


def arrival_power(windows: Windows, seconds: float = 1.0, sampling_rate_hz: float = 100.0) -> Tensor:
    """As ``power``, but over the second after each label only; of the whole window where it has no label."""
    samples = torch.arange(windows.waveform.shape[-1], device=windows.waveform.device)
    since = samples - windows.positions[..., None]
    near = ((since >= 0) & (since < seconds * sampling_rate_hz)).any(1)
    squares = _steps(windows) ** 2 * near[:, None]
    count = (windows.valid & near[:, None]).sum((1, 2))
    return torch.where(count > 0, squares.sum((1, 2)) / count.clamp(min=1), power(windows))


def second_power(windows: Windows, sampling_rate_hz: float = 100.0) -> Tensor:
    """``power`` of the second that begins at each sample, (B, W)."""
    energy = (_steps(windows) ** 2).sum(1).double()
    length = int(sampling_rate_hz)
    total = F.pad(energy, (1, length)).cumsum(-1)
    return ((total[..., length:] - total[..., :-length])[..., : energy.shape[-1]] / length).float()


def hide_drowned(windows: Windows, intruder: Tensor, least: float = 2.0, near_samples: int = 100) -> Windows:
    """Forget arrivals that an intruder drowns: a label nobody could read teaches the model to guess.

    ``intruder`` (B, W) is the ``second_power`` of what is to be added; an arrival stays where the power of its own
    first second is at least ``least`` times that. Near a forgotten one neither an arrival nor its absence is learnt.
    """
    samples = windows.waveform.shape[-1]
    inside = (windows.positions >= 0) & (windows.positions < samples)
    index = windows.positions.clamp(0, samples - 1).long()
    drowned = inside & (second_power(windows).gather(1, index) < least * intruder.gather(1, index))
    distance = torch.arange(samples, device=index.device) - windows.positions[..., None]
    lost = (drowned[..., None] & (distance.abs() < near_samples)).any(1)
    return windows.but(positions=torch.where(drowned, UNSEEN, windows.positions), trust=windows.trust * ~lost)


def superpose(windows: Windows, other: Windows, generator: Generator, share: float) -> Windows:
    """Add another window's event, up to ten times weaker or stronger; labels hold where they can still be seen."""
    rows = _chosen(windows, generator, share)
    ratio = 10 ** (2 * _uniform(windows, generator, len(rows)) - 1)
    gain = ratio * (arrival_power(windows) / arrival_power(other).clamp(min=1e-30)).sqrt() * rows
    gain = gain.nan_to_num(0.0, 0.0, 0.0).clamp(max=1e12)
    other = other.but(waveform=gain[:, None, None] * other.waveform)
    ours = hide_drowned(windows, second_power(other))
    theirs = hide_drowned(other, second_power(windows))
    valid = torch.where(rows[:, None, None], windows.valid & other.valid, windows.valid)
    return Windows(
        waveform=(windows.waveform + other.waveform) * valid,
        valid=valid,
        positions=torch.cat([ours.positions, torch.where(rows[:, None], theirs.positions, UNSEEN)], 1),
        phases=torch.cat([windows.phases, other.phases], 1),
        trust=torch.where(rows[:, None], torch.minimum(ours.trust, theirs.trust), windows.trust),
    )


def add_noise(windows: Windows, noise: Windows, generator: Generator, share: float, quietest: float = 1.5) -> Windows:
    """Add real noise at an amplitude ratio of arrival to noise between ``quietest`` and 30, log-uniform."""
    rows = _chosen(windows, generator, share)
    snr = quietest * (30 / quietest) ** _uniform(windows, generator, len(rows))
    gain = (arrival_power(windows) / power(noise).clamp(min=1e-30)).sqrt() / snr * rows
    gain = gain.nan_to_num(0.0, 0.0, 0.0).clamp(max=1e12)
    noise = noise.but(waveform=gain[:, None, None] * noise.waveform)
    valid = torch.where(rows[:, None, None], windows.valid & noise.valid, windows.valid)
    seen = hide_drowned(windows, second_power(noise))
    return seen.but(waveform=(windows.waveform + noise.waveform) * valid, valid=valid)


def rotate(windows: Windows, generator: Generator, share: float) -> Windows:
    """Turn the horizontal components by any angle, and flip the sign of all three at random.

    Only horizontals that are valid at the same samples are turned: at the edges of a gap in one of them the other would
    jump.
    """
    rows = _chosen(windows, generator, share)
    angle = 2 * math.pi * _uniform(windows, generator, len(rows))
    together = (windows.valid[:, 1] == windows.valid[:, 2]).all(1)
    angle = torch.where(rows & together, angle, 0)[:, None]
    sign = torch.where(_chosen(windows, generator, 0.5), -1.0, 1.0)[:, None]
    z, n, e = (windows.waveform * sign[:, None]).unbind(1)
    cosine, sine = angle.cos(), angle.sin()
    return windows.but(waveform=torch.stack([z, cosine * n - sine * e, sine * n + cosine * e], 1))


def change_instrument(windows: Windows, generator: Generator, share: float) -> Windows:
    """Differentiate or leakily integrate (velocity, acceleration, displacement), both causal."""
    kind = _uniform(windows, generator, len(windows.waveform))
    seconds = 0.3 * 10 ** _uniform(windows, generator, len(kind))
    rows = (kind < share / 2)[:, None, None]
    waveform = torch.where(rows, _steps(windows), windows.waveform)
    rows = (kind > 1 - share / 2)[:, None, None]
    return windows.but(waveform=torch.where(rows, _integrated(windows, 100 * seconds), waveform))


def _integrated(windows: Windows, memory_samples: Tensor) -> Tensor:
    """Running sum (B, C, W) of the waveform that forgets with ``memory_samples`` (B,), from its first valid sample.

    In float64: the rounding of a float32 transform would spread a large earthquake over the quiet before it. The first
    valid sample is subtracted, as everywhere: the sum of an offset would ramp up like an arrival.
    """
    samples = windows.waveform.shape[-1]
    first = windows.waveform.gather(-1, windows.valid.int().argmax(-1, keepdim=True))
    moved = ((windows.waveform - first) * windows.valid).double()
    leak = torch.exp(-torch.arange(samples, device=moved.device) / memory_samples.double()[:, None])[:, None]
    spectrum = torch.fft.rfft(moved, 2 * samples) * torch.fft.rfft(leak, 2 * samples)
    summed: Tensor = torch.fft.irfft(spectrum, 2 * samples)[..., :samples].to(windows.waveform.dtype)
    return summed * windows.valid


def scale(windows: Windows, generator: Generator) -> Windows:
    """Any unit: a gain of 1e-3 to 1e3 for the station, and up to a factor of two either way for each component."""
    batch = len(windows.waveform)
    station = 10 ** (6 * _uniform(windows, generator, batch, 1, 1) - 3)
    component = 2 ** (2 * _uniform(windows, generator, batch, 3, 1) - 1)
    return windows.but(waveform=windows.waveform * station * component)


def drop_components(windows: Windows, generator: Generator, share: float) -> Windows:
    """Of ``share`` of the windows half become single verticals, 30 % lose a component, and in 20 % one is dead.

    A dead component is valid but constant.
    """
    kind, which = _uniform(windows, generator, 2, len(windows.waveform))
    component = torch.arange(3, device=kind.device)[None, :, None]
    one = (which * 3).long()[:, None, None] == component
    vertical = (kind < share * 0.5)[:, None, None] & (component > 0)
    missing = ((kind >= share * 0.5) & (kind < share * 0.8))[:, None, None] & one
    dead = ((kind >= share * 0.8) & (kind < share))[:, None, None] & one
    valid = windows.valid & ~vertical & ~missing
    return windows.but(waveform=windows.waveform * (valid & ~dead), valid=valid)


def cut_gaps(windows: Windows, generator: Generator, share: float, longest_s: float = 2.0) -> Windows:
    """A gap of up to ``longest_s`` in all components or in one; the loss leaves out what is in a gap of all of them."""
    batch, samples = len(windows.waveform), windows.waveform.shape[-1]
    rows = _chosen(windows, generator, share)
    start = samples * _uniform(windows, generator, batch)
    length = 100 * longest_s * _uniform(windows, generator, batch) ** 2 * rows
    time = torch.arange(samples, device=start.device)
    inside = (time >= start[:, None]) & (time < (start + length)[:, None])
    component = (6 * _uniform(windows, generator, batch)).long()[:, None, None]
    which = (component >= 3) | (component == torch.arange(3, device=start.device)[None, :, None])
    valid = windows.valid & ~(inside[:, None] & which)
    return windows.but(waveform=windows.waveform * valid, valid=valid)


def add_glitches(windows: Windows, generator: Generator, share: float) -> Windows:
    """A spike or a step of 1 to 1,000 times the usual sample-to-sample difference, in one component."""
    batch, samples = len(windows.waveform), windows.waveform.shape[-1]
    uniform = _uniform(windows, generator, 5, batch)
    rows = uniform[0] < share
    time = torch.arange(samples, device=rows.device)
    start = (uniform[1] * samples).long()[:, None]
    step = torch.where((uniform[2] < 0.5)[:, None], time == start, time >= start).float()
    size = power(windows).sqrt() * 10 ** (3 * uniform[3]) * rows
    which = (uniform[4] * 3).long()[:, None] == torch.arange(3, device=rows.device)
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
    uniform = _uniform(windows, generator, 2, len(begin))
    birth = torch.where(uniform[0] < share, begin + uniform[1] * (latest - begin), begin)
    valid = windows.valid & (torch.arange(samples, device=birth.device) >= birth[:, None])[:, None]
    return windows.but(waveform=windows.waveform * valid, valid=valid)


def augment(bank: Bank, batch: int, samples: int, generator: Generator) -> Windows:
    """A batch of augmented windows."""
    windows = bank.draw(batch, samples, 1.25, generator)
    windows = superpose(windows, bank.draw(batch, samples, 1.25, generator), generator, 0.25)
    windows = change_instrument(windows, generator, 0.3)
    if bank.has_noise:
        windows = add_noise(windows, bank.draw(batch, samples, 1.25, generator, noise=True), generator, 0.4)
    windows = rotate(windows, generator, 0.5)
    windows = add_glitches(windows, generator, 0.05)
    windows = drop_components(windows, generator, 0.25)
    windows = start_late(windows, generator, 0.7)
    windows = cut_gaps(windows, generator, 0.15)
    return scale(windows, generator)
