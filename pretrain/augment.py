"""Augmentation that matches live life, on whole batches and on the device of the data.

Each step takes and returns Windows and a random generator; ``augment`` chains them. Anything that would move an onset
against its label is causal, of minimum phase or without delay, or moves the label too (stretching, in the bank). What
arrives at a station is in ``mixing``, what colours it in ``coloring``, what goes wrong there in ``faults``.
"""

from __future__ import annotations

import math

import torch

from pretrain.augment_settings import PLAIN, AugmentSettings
from pretrain.bank import Bank, Windows
from pretrain.chance import Generator, chosen, uniform
from pretrain.coloring import change_instrument, color
from pretrain.faults import add_glitches, clip, cut_gaps, drop_components, miswire, start_late, step_gain
from pretrain.mixing import add_noise, balance_phases, close_by, hide_drowned, superpose, swell
from pretrain.power import arrival_power, power, second_power
from pretrain.sequence import FADE, bedded, in_turn, joined

__all__ = [
    "PLAIN", "AugmentSettings", "add_glitches", "add_noise", "arrival_power", "augment", "augment_sequence",
    "balance_phases", "change_instrument", "clip", "close_by", "color", "cut_gaps", "drop_components", "hide_drowned",
    "miswire", "power", "rotate", "scale", "second_power", "start_late", "step_gain", "superpose", "swell",
]  # fmt: skip

DEFAULT = AugmentSettings()


def rotate(windows: Windows, generator: Generator, share: float) -> Windows:
    """Turn the horizontal components by any angle, and flip the sign of all three at random.

    Only horizontals that are valid at the same samples are turned: at the edges of a gap in one of them the other would
    jump.
    """
    rows = chosen(windows, generator, share)
    angle = 2 * math.pi * uniform(windows, generator)
    together = (windows.valid[:, 1] == windows.valid[:, 2]).all(1)
    angle = torch.where(rows & together, angle, 0)[:, None]
    sign = torch.where(chosen(windows, generator, 0.5), -1.0, 1.0)[:, None]
    z, n, e = (windows.waveform * sign[:, None]).unbind(1)
    cosine, sine = angle.cos(), angle.sin()
    return windows.but(waveform=torch.stack([z, cosine * n - sine * e, sine * n + cosine * e], 1))


def scale(windows: Windows, generator: Generator) -> Windows:
    """Any unit: a gain of 1e-3 to 1e3 for the station, and up to a factor of two either way for each component."""
    batch = len(windows.waveform)
    station = 10 ** (6 * uniform(windows, generator, batch, 1, 1) - 3)
    component = 2 ** (2 * uniform(windows, generator, batch, 3, 1) - 1)
    return windows.but(waveform=windows.waveform * station * component)


def augment(bank: Bank, batch: int, samples: int, generator: Generator, settings: AugmentSettings = DEFAULT) -> Windows:
    """A batch of augmented windows of ``samples``, each with a fresh state before it."""
    windows = _events(bank, batch, samples, generator, settings)
    windows = _colored(windows, generator, settings)
    windows = _noisy(windows, bank, generator, settings)
    return _recorded(windows, generator, settings)


def augment_sequence(
    bank: Bank,
    batch: int,
    samples: int,
    count: int,
    generator: Generator,
    settings: AugmentSettings = DEFAULT,
    whole: bool = False,
) -> list[Windows]:
    """``count`` consecutive batches of windows of ``samples``: row by row one station, whose state is carried on.

    ``whole`` leaves them as they are: one batch of windows, each ``count`` times as long.

    About one record a window, joined by real noise (``pretrain.sequence``). The first window is of a station that has
    just started; all of a row has one instrument, one gain, one site and one set of faults. Without noise records the
    gaps between records stay gaps.
    """
    pieces = _events(bank, batch * count, samples + FADE, generator, settings)
    pieces = _noisy(pieces, bank, generator, settings)
    pieces = start_late(pieces, generator, settings.late_share, lead_samples=2 * FADE)
    if bank.has_noise:
        bed = bank.draw(len(pieces.waveform), samples + FADE, settings.stretch, generator, noise=True)
        pieces = bedded(pieces, bed)
    windows = _colored(joined(pieces, count), generator, settings)
    return in_turn(_recorded(windows, generator, settings), 1 if whole else count)


def _events(bank: Bank, batch: int, samples: int, generator: Generator, settings: AugmentSettings) -> Windows:
    windows = bank.draw(batch, samples, settings.stretch, generator)
    if settings.balance_share:
        windows = balance_phases(windows, generator, settings.balance_share, settings.balance_most)
    for share in (settings.superpose_share, settings.third_share):
        if share:
            near = close_by(windows, generator, settings.close_share)
            other = bank.draw(batch, samples, settings.stretch, generator, near=near)
            windows = superpose(windows, other, generator, share)
    return windows


def _colored(windows: Windows, generator: Generator, settings: AugmentSettings) -> Windows:
    if settings.color_share or settings.rate_share:
        windows = color(windows, generator, settings.color_share, settings.rate_share)
    return change_instrument(windows, generator, settings.instrument_share)


def _noisy(windows: Windows, bank: Bank, generator: Generator, settings: AugmentSettings) -> Windows:
    if not (bank.has_noise and settings.noise_share):
        return windows
    batch, _, samples = windows.waveform.shape
    noise = bank.draw(batch, samples, settings.stretch, generator, noise=True)
    if settings.swell_share:
        noise = swell(noise, generator, settings.swell_share)
    return add_noise(windows, noise, generator, settings.noise_share)


def _recorded(windows: Windows, generator: Generator, settings: AugmentSettings) -> Windows:
    """Windows as a station with its faults records them."""
    if settings.miswire_share:
        windows = miswire(windows, generator, settings.miswire_share)
    windows = rotate(windows, generator, settings.rotate_share)
    windows = add_glitches(windows, generator, settings.glitch_share)
    if settings.gain_step_share:
        windows = step_gain(windows, generator, settings.gain_step_share)
    if settings.clip_share:
        windows = clip(windows, generator, settings.clip_share)
    windows = drop_components(windows, generator, settings.drop_share, settings.drop_readable)
    windows = start_late(windows, generator, settings.late_share)
    windows = cut_gaps(windows, generator, settings.gap_share, settings.gap_longest_s)
    return scale(windows, generator)
