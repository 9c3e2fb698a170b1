"""Seismometers and the digitiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import bilinear, freqz, lfilter

from pretrain.data.trace import RATE_HZ
from pretrain.simulate.wavelet import frequencies

CLIP_COUNTS = 2.0**23 - 1
"""The largest number of a 24-bit digitiser."""
VELOCITY, ACCELERATION = 1, 2


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """A sensor with its digitiser: flat to ground velocity or acceleration above ``corner_hz``.

    ``channel`` is the SEED band and instrument code; ``counts`` are those of 1 m/s or 1 m/s2; ``self_noise_db`` is the
    power of its own noise as ground acceleration, dB relative to 1 (m/s2)^2/Hz.
    """

    name: str
    channel: str
    order: int
    corner_hz: float
    damping: float
    counts: float
    self_noise_db: float

    def coefficients(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Numerator and denominator of the digital form of s^2 / (s^2 + 2 h w s + w^2); (1,), (1,) without a corner."""
        if not self.corner_hz:
            return np.ones(1), np.ones(1)
        omega = 2 * math.pi * self.corner_hz
        b, a = bilinear([1, 0, 0], [1, 2 * self.damping * omega, omega**2], fs=RATE_HZ)
        return np.asarray(b), np.asarray(a)

    def record(self, ground: NDArray[np.float64]) -> NDArray[np.float64]:
        """Counts, not rounded, of ground velocity or acceleration (3, N); causal."""
        b, a = self.coefficients()
        return np.asarray(self.counts * (lfilter(b, a, ground, axis=-1) if len(a) > 1 else ground))


BROADBAND = Instrument(
    name="broadband", channel="HH", order=VELOCITY, corner_hz=0.01, damping=0.707, counts=6.3e8, self_noise_db=-185
)
SHORT_PERIOD = Instrument(
    name="short period", channel="EH", order=VELOCITY, corner_hz=1.0, damping=0.707, counts=6.7e8, self_noise_db=-160
)
GEOPHONE = Instrument(
    name="geophone", channel="EP", order=VELOCITY, corner_hz=4.5, damping=0.6, counts=3.9e8, self_noise_db=-145
)
ACCELEROMETER = Instrument(
    name="accelerometer", channel="HN", order=ACCELERATION, corner_hz=0.0, damping=1.0, counts=2.1e5, self_noise_db=-112
)
INSTRUMENTS = (BROADBAND, SHORT_PERIOD, GEOPHONE, ACCELEROMETER)
SHARES = (0.45, 0.25, 0.15, 0.15)
"""How often each is drawn."""


@lru_cache(maxsize=32)
def gain(instrument: Instrument, size: int) -> NDArray[np.float64]:
    """Counts for 1 m/s2 of ground acceleration at the frequencies of ``rfft``, (size // 2 + 1,); zero at 0 Hz."""
    omega = 2 * np.pi * frequencies(size)
    b, a = instrument.coefficients()
    _, response = freqz(b, a, worN=omega / RATE_HZ)
    integral = np.where(omega > 0, omega, np.inf) ** (instrument.order - ACCELERATION)
    return np.asarray(instrument.counts * np.abs(response) * integral * (omega > 0))


def digitise(counts: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whole counts of ``counts`` (3, N) on ``offset`` (3,), clipped to 24 bits."""
    return np.clip(np.rint(counts + offset[:, None]), -CLIP_COUNTS, CLIP_COUNTS)
