"""Augmentation by what arrives at a station: several events, noise of other stations, a stronger or weaker S.

Each function takes and returns Windows, whole batches on the device of the data. Shapes: B windows, C components,
W samples a window, K labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.bank import UNSEEN, Windows
from pretrain.chance import Generator, chosen, log_uniform, times, uniform
from pretrain.power import arrival_power, at_labels, power, second_power

P, S = 0, 1
READABLE = 2.0
"""An arrival can be read where the power of its first second is this many times that of what it comes on top of."""


def forget(windows: Windows, lost: Tensor, near_samples: int = 100) -> Windows:
    """Take labels ``lost`` (B, K) away: near them neither an arrival nor its absence is learnt."""
    distance = times(windows) - windows.positions[..., None]
    near = (lost[..., None] & (distance.abs() < near_samples)).any(1)
    return windows.but(positions=torch.where(lost, UNSEEN, windows.positions), trust=windows.trust * ~near)


def hide_drowned(windows: Windows, intruder: Tensor, least: float = READABLE, near_samples: int = 100) -> Windows:
    """Forget arrivals that an intruder drowns: a label nobody could read teaches the model to guess.

    ``intruder`` (B, W) is the ``second_power`` of what is to be added; an arrival stays where the power of its own
    first second is at least ``least`` times that.
    """
    own, inside = at_labels(second_power(windows), windows)
    theirs, _ = at_labels(intruder, windows)
    return forget(windows, inside & (own < least * theirs), near_samples)


def superpose(windows: Windows, other: Windows, generator: Generator, share: float) -> Windows:
    """Add another window's event, up to ten times weaker or stronger; labels hold where they can still be seen."""
    rows = chosen(windows, generator, share)
    ratio = log_uniform(windows, generator, 0.1, 10.0)
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


def close_by(windows: Windows, generator: Generator, share: float, rate_hz: float = 100.0) -> Tensor:
    """Where (B,) a second event's arrival should lie: 2 s before to 8 s after a window's first one, in ``share``.

    NaN elsewhere, and where a window has no arrival: then it may lie anywhere. For ``Bank.draw``: by chance, few
    events come so close that one's P lies before the other's S.
    """
    samples = windows.waveform.shape[-1]
    seen = (windows.positions >= 0) & (windows.positions < samples)
    first = torch.where(seen, windows.positions, torch.inf).amin(1)
    place = first + rate_hz * (10 * uniform(windows, generator) - 2)
    return torch.where(chosen(windows, generator, share) & seen.any(1), place, torch.nan)


def add_noise(windows: Windows, noise: Windows, generator: Generator, share: float, quietest: float = 1.5) -> Windows:
    """Add real noise at an amplitude ratio of arrival to noise between ``quietest`` and 30, log-uniform."""
    rows = chosen(windows, generator, share)
    snr = log_uniform(windows, generator, quietest, 30.0)
    gain = (arrival_power(windows) / power(noise).clamp(min=1e-30)).sqrt() / snr * rows
    gain = gain.nan_to_num(0.0, 0.0, 0.0).clamp(max=1e12)
    noise = noise.but(waveform=gain[:, None, None] * noise.waveform)
    valid = torch.where(rows[:, None, None], windows.valid & noise.valid, windows.valid)
    seen = hide_drowned(windows, second_power(noise))
    return seen.but(waveform=(windows.waveform + noise.waveform) * valid, valid=valid)


def swell(noise: Windows, generator: Generator, share: float) -> Windows:
    """Noise that rises up to ten times and falls again within 3 to 20 s either way: wind, traffic, surf.

    For noise only. So slow a rise is no onset, and a picker that looks at power alone would make one of it.
    """
    rows = chosen(noise, generator, share)
    middle = noise.waveform.shape[-1] * uniform(noise, generator)
    width = 100 * log_uniform(noise, generator, 3.0, 20.0)
    height = (log_uniform(noise, generator, 2.0, 10.0) - 1) * rows
    away = (times(noise) - middle[:, None]) / width[:, None]
    return noise.but(waveform=noise.waveform * (1 + height[:, None] * torch.exp(-4 * away**2))[:, None])


def balance_phases(windows: Windows, generator: Generator, share: float, most: float = 4.0) -> Windows:
    """S up to ``most`` times stronger or weaker against its P, where a window has one of each.

    The gain sets in within 0.1 s up to the S and wears off with its coda. It acts on the motion since the S, so that it
    makes no step of its own; and S stays readable (``READABLE``) above the second before it, where it was.
    """
    inside = (windows.positions >= 0) & (windows.positions < windows.waveform.shape[-1])
    known = [inside & (windows.phases == phase) for phase in (P, S)]
    pair = (known[P].sum(1) == 1) & (known[S].sum(1) == 1)
    first, onset = (torch.where(k & pair[:, None], windows.positions, 0).sum(1) for k in known)
    rows = chosen(windows, generator, share) & (onset > first)
    strength = second_power(windows)
    index = onset.long()[:, None]
    after, before = strength.gather(1, index), strength.gather(1, (index - 110).clamp(min=0))
    weakest = (READABLE * before / after.clamp(min=1e-30)).sqrt().nan_to_num(1.0).clamp(max=1.0)[:, 0]
    gain = log_uniform(windows, generator, 1 / most, most).maximum(weakest)
    since = (times(windows) - onset[:, None]) / 100
    coda_s = (10 + 2 * (onset - first) / 100)[:, None]
    curve = ((since + 0.1) / 0.1).clamp(0, 1) * torch.exp(-since.clamp(min=0) / coda_s)
    curve = curve * torch.where(rows, gain - 1, 0.0)[:, None]
    at_onset = windows.waveform.gather(-1, index[:, None].expand(-1, 3, -1))
    moved = (windows.waveform - at_onset) * curve[:, None]
    return windows.but(waveform=(windows.waveform + moved) * windows.valid)
