"""Causal pulses of a given amplitude spectrum.

A pulse made from an amplitude spectrum with zero phase begins before its onset. The minimum-phase pulse of that
spectrum does not: it is the causal pulse with the earliest energy, and the physical one of Brune's source and of
attenuation. It comes from the cepstrum folded to positive time (Oppenheim & Schafer 1989, section 12.6).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from pretrain.data.trace import RATE_HZ

BANDS_HZ = (1.5, 4.0, 10.0)
"""Limits of the bands in which scattered waves decay each at their own pace."""
BAND_CENTRES_HZ = (0.8, 2.5, 6.5, 20.0)
ANTI_ALIAS_HZ = 42.0
WAVELET_SAMPLES, BAND_SAMPLES = 2048, 1024
_VISIBLE = 0.01


def minimum_phase(log_amplitude: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The minimum-phase pulse (size,) of ln amplitude (size // 2 + 1,) as ``rfft`` orders it; ``size`` even."""
    cepstrum = irfft(log_amplitude, size)
    cepstrum[1 : size // 2] *= 2
    cepstrum[size // 2 + 1 :] = 0
    return np.asarray(irfft(np.exp(rfft(cepstrum)), size))


@lru_cache(maxsize=32)
def frequencies(size: int) -> NDArray[np.float64]:
    """Frequencies in Hz of ``rfft`` of ``size`` samples, (size // 2 + 1,)."""
    return np.asarray(np.fft.rfftfreq(size, 1 / RATE_HZ), dtype=np.float64)


@lru_cache(maxsize=32)
def _recorder(size: int, order: int) -> NDArray[np.float64]:
    """ln amplitude of the digitiser's filter, and of what ``order`` differences lack beside derivatives."""
    frequency = frequencies(size)
    half = np.pi * frequency / RATE_HZ
    lacking = np.log(np.where(half > 0, half, 1) / np.where(half > 0, np.sin(half), 1))
    return np.asarray(order * lacking - 0.5 * np.log1p((frequency / ANTI_ALIAS_HZ) ** 16))


def ground_pulse(log_displacement: NDArray[np.float64], size: int, order: int) -> NDArray[np.float64]:
    """The pulse (WAVELET_SAMPLES,) whose displacement has that ln amplitude spectrum (size // 2 + 1,).

    ``order`` 1 gives ground velocity, 2 acceleration. Attenuation disperses a pulse; it is cut where it first shows
    (1 % of its peak), so that an arrival time is the time at which something is to be seen.
    """
    pulse = RATE_HZ * minimum_phase(log_displacement + _recorder(size, order), size)
    for _ in range(order):
        pulse = np.diff(pulse, prepend=0.0) * RATE_HZ
    half = pulse[: size // 2]
    first = int(np.argmax(np.abs(half) >= _VISIBLE * np.abs(half).max()))
    return tapered(half[first : first + WAVELET_SAMPLES])


def tapered(pulse: NDArray[np.float64]) -> NDArray[np.float64]:
    """``pulse`` (n,) with its last quarter brought to zero."""
    quarter = len(pulse) // 4
    window = np.ones(len(pulse))
    window[len(pulse) - quarter :] = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, quarter + 1) / quarter)
    return np.asarray(pulse * window)


@lru_cache(maxsize=32)
def band_spectra(size: int) -> NDArray[np.complex128]:
    """Spectra (4, size // 2 + 1) of causal filters that share the power between the bands."""
    octaves = np.log2(np.maximum(frequencies(size), 1e-3))
    # The share of the power below each limit falls from one to zero within an octave.
    below = [0.5 - 0.5 * np.sin(np.pi * np.clip(octaves - np.log2(limit), -0.5, 0.5)) for limit in BANDS_HZ]
    edges = [np.zeros_like(octaves), *below, np.ones_like(octaves)]
    power = np.diff(np.array(edges), axis=0)
    pulses = [minimum_phase(0.5 * np.log(np.maximum(share, 1e-6)), size)[:BAND_SAMPLES] for share in power]
    return np.asarray(rfft(np.array([tapered(pulse) for pulse in pulses]), size))


def transform_size(samples: int) -> int:
    """Length of transforms in which ``samples`` filtered by a pulse and a band do not wrap around; even."""
    return 2 * int(next_fast_len((samples + WAVELET_SAMPLES + BAND_SAMPLES + 1) // 2, real=True))
