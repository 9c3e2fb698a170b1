"""The ground's own motion: noise between the models of Peterson (1993, USGS Open-File Report 93-322)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len

from pretrain.data.trace import RATE_HZ
from pretrain.simulate.instrument import Instrument, gain
from pretrain.simulate.wavelet import frequencies

LOW_MODEL = (
    (0.10, -162.36, 5.64), (0.17, -166.70, 0.00), (0.40, -170.00, -8.30), (0.80, -166.40, 28.90),
    (1.24, -168.60, 52.48), (2.40, -159.98, 29.81), (4.30, -141.10, 0.00), (5.00, -71.36, -99.77),
    (6.00, -97.26, -66.49), (10.0, -132.18, -31.57), (12.0, -205.27, 36.16), (15.6, -37.65, -104.33),
    (21.9, -114.37, -47.10), (31.6, -160.58, -16.28), (45.0, -187.50, 0.00), (70.0, -216.47, 15.70),
    (101.0, -185.00, 0.00), (154.0, -168.34, -7.61), (328.0, -217.43, 11.90), (600.0, -258.28, 26.60),
)  # fmt: skip
HIGH_MODEL = (
    (0.10, -108.73, -17.23), (0.22, -150.34, -80.50), (0.32, -122.31, -23.87), (0.80, -116.85, 32.51),
    (3.80, -108.48, 18.08), (4.60, -74.66, -32.95), (6.30, 0.66, -127.18), (7.90, -93.37, -22.42),
    (15.4, 73.54, -162.98), (20.0, -151.52, 10.01), (354.8, -206.66, 31.63),
)  # fmt: skip
"""Rows (T, A, B): from period T (s) on, the acceleration power is A + B log10 T dB relative to 1 (m/s2)^2/Hz."""

MICROSEISMS_HZ = (0.07, 0.2)
LONGEST_PERIOD_S = 120.0
_COHERENT_BELOW_HZ = 0.5
_KNOTS_HZ = (0.01, 0.1, 0.4, 1.5, 6.0, 50.0)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise of a place.

    ``heights`` (6,) place its power between the low (0) and the high model (1) at some frequencies; ``peaks_db`` (2,)
    raise the microseisms; ``components_db`` (3,) are the differences of Z, N, E; ``coherence`` is how much the
    horizontal microseism follows the vertical, as the Rayleigh wave from ``azimuth`` (rad) that it is.
    """

    heights: NDArray[np.float64]
    peaks_db: NDArray[np.float64]
    components_db: NDArray[np.float64]
    coherence: float
    azimuth: float

    def power(self, frequency: NDArray[np.float64]) -> NDArray[np.float64]:
        """Acceleration power (3, F) in (m/s2)^2/Hz at ``frequency`` (F,) in Hz."""
        place = np.log10(np.maximum(frequency, 1 / LONGEST_PERIOD_S))
        height = np.interp(place, np.log10(_KNOTS_HZ), self.heights)
        low, high = model_db(LOW_MODEL, frequency), model_db(HIGH_MODEL, frequency)
        level = low + height * (high - low)
        for peak_hz, peak_db in zip(MICROSEISMS_HZ, self.peaks_db, strict=True):
            level = level + peak_db * np.exp(-0.5 * ((place - np.log10(peak_hz)) / 0.08) ** 2)
        return np.asarray(10 ** ((level + self.components_db[:, None]) / 10))


def model_db(model: tuple[tuple[float, float, float], ...], frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power of a noise model (F,) in dB; above 10 Hz as at 10 Hz, below 1/120 Hz as there."""
    periods, levels, slopes = np.array(model).T
    period = 1 / np.clip(frequency, 1 / LONGEST_PERIOD_S, 1 / periods[0])
    row = np.maximum(np.searchsorted(periods, period * (1 + 1e-12), side="right") - 1, 0)
    return np.asarray(levels[row] + slopes[row] * np.log10(period))


def draw_noise(random: np.random.Generator) -> Noise:
    """The noise of a place between a good vault and a town."""
    quality = random.beta(2, 3)
    return Noise(
        heights=np.clip(quality + random.normal(0, 0.12, len(_KNOTS_HZ)), 0.03, 0.8),
        peaks_db=random.uniform(0, 6, 2),
        components_db=np.concatenate(([0.0], random.uniform(-1, 6, 1) + random.normal(0, 1, 2))),
        coherence=random.uniform(0, 0.9),
        azimuth=random.uniform(0, 2 * np.pi),
    )


def noise_counts(
    random: np.random.Generator, noise: Noise, instrument: Instrument, samples: int
) -> NDArray[np.float64]:
    """Background noise (3, samples) in counts, the instrument's own and a digitiser's included."""
    size = 2 * int(next_fast_len(max(samples + 500, 12000) // 2, real=True))
    ground_size, frequency = size // 2 + 1, frequencies(size)
    gaussian = random.standard_normal((2, 2, 3, ground_size))
    ground, own = gaussian[:, 0] + 1j * gaussian[:, 1]
    rayleigh = 1j * ground[0] * np.array([[np.cos(noise.azimuth)], [np.sin(noise.azimuth)]])
    coherence = noise.coherence * (frequency < _COHERENT_BELOW_HZ)
    ground[1:] = np.sqrt(1 - coherence**2) * ground[1:] + coherence * np.sqrt(2) * rayleigh
    self_noise = 10 ** (instrument.self_noise_db / 20)
    spectrum = (ground * np.sqrt(noise.power(frequency)) + own * self_noise) * gain(instrument, size)
    counts = irfft(spectrum * np.sqrt(RATE_HZ * size / 4), size)[:, :samples]
    return np.asarray(counts + random.normal(0, 0.6, counts.shape))
