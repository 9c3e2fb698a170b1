"""The P wave of a distant earthquake: slow, and not what a local picker is asked for."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from pretrain.data.trace import RATE_HZ
from pretrain.simulate.surface import to_components
from pretrain.simulate.wavelet import WAVELET_SAMPLES, frequencies, ground_pulse, transform_size

_CODA_S = 25.0


def teleseism(random: np.random.Generator, order: int, samples: int) -> NDArray[np.float64]:
    """Ground motion (3, samples) from a teleseismic P on: m/s for ``order`` 1, m/s2 for 2.

    The path takes exp(-pi f t*) with t* near 1 s (Der & Lees 1985), which leaves little above 2 Hz; the depth phases
    pP and sP and a long coda follow.
    """
    frequency, size = frequencies(2 * WAVELET_SAMPLES), transform_size(samples)
    corner_hz, star_s = random.uniform(0.08, 0.4), random.uniform(0.5, 1.1)
    log_spectrum = -np.log1p((frequency / corner_hz) ** 2) - math.pi * frequency * star_s
    pulse = ground_pulse(log_spectrum, 2 * WAVELET_SAMPLES, order)
    pulse = pulse / np.abs(pulse).max() * (10 ** random.uniform(-7, -5.2)) * (2 * math.pi) ** (order - 1)
    motion = to_components(1.0, random.uniform(0.25, 0.5), 0.0, random.uniform(0, 2 * math.pi))
    impulses = np.zeros((3, samples))
    for delay_s in (0.0, *(random.uniform(2, 15) * np.array([1.0, 1.4]))):
        place = round(delay_s * RATE_HZ)
        if place < samples:
            impulses[:, place] += motion * (1.0 if delay_s == 0 else random.uniform(-0.9, 0.9))
    decay = np.exp(-np.arange(samples) / RATE_HZ / _CODA_S)
    impulses += 0.02 * decay * random.standard_normal((3, samples))
    return np.asarray(irfft(rfft(impulses, size) * rfft(pulse, size), size)[:, :samples])
