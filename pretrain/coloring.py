"""Augmentation by what colours a record: the ground under a station, its sampling rate, what its instrument measures.

All of it leaves onsets where they are: filters are causal and of minimum phase, or have no delay at all. In float64:
the rounding of a float32 transform would spread a large earthquake over the quiet before it. Shapes: B windows,
C components, W samples a window, L frequencies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pretrain.bank import Windows
from pretrain.bridge import bridged
from pretrain.chance import Generator, chosen, log_uniform, uniform
from pretrain.power import steps

RATES_HZ = (40.0, 50.0, 80.0)
"""Rates of stations that are resampled to 100 Hz."""


def color(windows: Windows, generator: Generator, site_share: float, rate_share: float) -> Windows:
    """Filter windows by a random site (``site_response``) and through a lower sampling rate (``rate_response``)."""
    samples = windows.waveform.shape[-1]
    bridged = _bridged(windows)
    length = bridged.shape[-1]
    angle = torch.arange(length // 2 + 1, device=bridged.device, dtype=torch.float64) * (2 * math.pi / length)
    site = chosen(windows, generator, site_share)
    lower = chosen(windows, generator, rate_share)
    response = torch.where(site[:, None, None], site_response(windows, generator, angle), 1.0)
    response = response * torch.where(lower[:, None], rate_response(windows, generator, angle), 1.0)[:, None]
    filtered = torch.fft.irfft(torch.fft.rfft(bridged) * response, length)[..., :samples]
    changed = (site | lower)[:, None, None]
    waveform = torch.where(changed, filtered.to(windows.waveform.dtype), windows.waveform)
    return windows.but(waveform=waveform * windows.valid)


def site_response(windows: Windows, generator: Generator, angle: Tensor) -> Tensor:
    """A smooth random response (B, C, L) at ``angle`` (L,) radians a sample: a tilt, and two broad bumps or dips.

    A first-order shelf of up to 15 dB either way around 1 to 20 Hz, and two resonances of up to 12 dB between 1 and
    30 Hz; each component has up to 3 dB more or less of everything. All are rational and of minimum phase: causal, with
    their energy as early as it can be.
    """
    batch = len(windows.waveform)
    delay = torch.polar(torch.ones_like(angle), -angle)
    own = 3 * (2 * uniform(windows, generator, 3, batch, 3, 1) - 1)
    corner = (math.pi / 100 * log_uniform(windows, generator, 1.0, 20.0, batch, 1, 1)).double().tan()
    gain = 10 ** ((15 * (2 * uniform(windows, generator, batch, 1, 1) - 1) + own[0]).double() / 20)
    response = (gain * (1 - delay) + corner * (1 + delay)) / ((1 - delay) + corner * (1 + delay))
    for more in own[1:]:
        response = response * _resonance(windows, generator, more, delay)
    return response


def _resonance(windows: Windows, generator: Generator, more_db: Tensor, delay: Tensor) -> Tensor:
    """A peak or a dip (B, C, L) of second order; ``more_db`` (B, C, 1) is added to its height."""
    batch = len(windows.waveform)
    place = (2 * math.pi / 100 * log_uniform(windows, generator, 1.0, 30.0, batch, 1, 1)).double()
    quality = log_uniform(windows, generator, 0.5, 2.0, batch, 1, 1).double()
    height = 10 ** ((12 * (2 * uniform(windows, generator, batch, 1, 1) - 1) + more_db).double() / 40)
    width, turn = place.sin() / (2 * quality), -2 * place.cos()
    top = (1 + width * height) + turn * delay + (1 - width * height) * delay**2
    bottom = (1 + width / height) + turn * delay + (1 - width / height) * delay**2
    return top / bottom


def rate_response(windows: Windows, generator: Generator, angle: Tensor) -> Tensor:
    """What is left (B, L) of data that were sampled at 40, 50 or 80 Hz and resampled to 100: zero phase, no delay.

    A half cosine ends at the lower Nyquist frequency and begins at 70 to 95 % of it, as anti-alias filters do.
    """
    batch = len(windows.waveform)
    which = (uniform(windows, generator, batch, 1) * len(RATES_HZ)).long()
    end = math.pi / 100 * torch.tensor(RATES_HZ, dtype=torch.float64, device=angle.device)[which]
    begin = end * (0.7 + 0.25 * uniform(windows, generator, batch, 1))
    return 0.5 + 0.5 * torch.cos(math.pi * ((angle - begin) / (end - begin)).clamp(0, 1))


def _bridged(windows: Windows) -> Tensor:
    """Waveform (B, C, 2 W) in float64 without a jump for a filter to ring on.

    Gaps are straight lines between the samples around them, the ends are held, and as many samples again lead back from
    the last to the first.
    """
    filled = bridged(windows.waveform.double(), windows.valid)
    samples = filled.shape[-1]
    back = torch.linspace(0, 1, samples, device=filled.device, dtype=filled.dtype)
    return torch.cat([filled, torch.lerp(filled[..., -1:], filled[..., :1], back)], -1)


def change_instrument(windows: Windows, generator: Generator, share: float) -> Windows:
    """Differentiate or leakily integrate (velocity, acceleration, displacement), both causal."""
    kind = uniform(windows, generator)
    seconds = log_uniform(windows, generator, 0.3, 3.0)
    rows = (kind < share / 2)[:, None, None]
    waveform = torch.where(rows, steps(windows), windows.waveform)
    rows = (kind > 1 - share / 2)[:, None, None]
    return windows.but(waveform=torch.where(rows, _integrated(windows, 100 * seconds), waveform))


def _integrated(windows: Windows, memory_samples: Tensor) -> Tensor:
    """Running sum (B, C, W) of the waveform that forgets with ``memory_samples`` (B,), from its first valid sample.

    The first valid sample is subtracted, as everywhere: the sum of an offset would ramp up like an arrival.
    """
    samples = windows.waveform.shape[-1]
    first = windows.waveform.gather(-1, windows.valid.int().argmax(-1, keepdim=True))
    moved = ((windows.waveform - first) * windows.valid).double()
    leak = torch.exp(-torch.arange(samples, device=moved.device) / memory_samples.double()[:, None])[:, None]
    spectrum = torch.fft.rfft(moved, 2 * samples) * torch.fft.rfft(leak, 2 * samples)
    summed: Tensor = torch.fft.irfft(spectrum, 2 * samples)[..., :samples].to(windows.waveform.dtype)
    return summed * windows.valid
