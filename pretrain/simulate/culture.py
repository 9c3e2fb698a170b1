"""Man-made noise, 2-20 Hz and beyond: traffic, footsteps, knocks and machines."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from pretrain.data.trace import RATE_HZ

MACHINES_HZ = (12.5, 16.7, 24.3, 25.0, 29.2, 33.3)
"""Lines of slow and mains-driven machines (50 and 60 Hz lie at or beyond the end of the band)."""


@lru_cache(maxsize=4)
def band_pass(low_hz: float, high_hz: float) -> NDArray[np.float64]:
    """Second-order sections of a causal band-pass of second order at 100 Hz."""
    return np.asarray(butter(2, [low_hz, high_hz], "bandpass", fs=RATE_HZ, output="sos"))


def cultural_noise(random: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Man-made noise (3, samples) relative to the background: one to three kinds of it."""
    total = np.zeros((3, samples))
    kinds = (_traffic, _machine, _steps, _knock)
    for kind in random.choice(len(kinds), size=int(random.integers(1, 4)), p=[0.35, 0.3, 0.15, 0.2]):
        shares = np.exp(random.normal(0, 0.4, 3))
        total += shares[:, None] * kinds[kind](random, samples)
    return total


def _time(samples: int) -> NDArray[np.float64]:
    return np.arange(samples) / RATE_HZ


def _traffic(random: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """A vehicle that comes and goes: noise of 2-20 Hz that swells and fades."""
    noise = sosfilt(band_pass(2.0, 20.0), random.standard_normal((3, samples)))
    centre_s, width_s = random.uniform(0, samples / RATE_HZ), random.uniform(2, 12)
    swell = np.exp(-0.5 * ((_time(samples) - centre_s) / width_s) ** 2)
    return np.asarray(random.uniform(0.5, 6) * swell * noise)


def _machine(random: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """A line, and at times its octave, that wavers slowly and may be switched on or off within the record."""
    time_s, rate_hz = _time(samples), random.choice(MACHINES_HZ) * random.uniform(0.98, 1.02)
    waver = 1 + 0.4 * np.sin(2 * np.pi * (time_s * random.uniform(0.02, 0.3) + random.uniform()))
    phases = random.uniform(0, 2 * np.pi, (3, 1))
    line = np.sin(2 * np.pi * rate_hz * time_s + phases)
    if rate_hz < 20:
        line = line + random.uniform(0, 0.6) * np.sin(4 * np.pi * rate_hz * time_s + 2 * phases)
    switch_s = random.uniform(0, samples / RATE_HZ)
    ramp = np.clip((time_s - switch_s) / random.uniform(0.3, 3), 0, 1) if random.uniform() < 0.3 else 1.0
    return np.asarray(random.uniform(0.3, 2.5) * waver * ramp * line)


def _steps(random: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Someone walks by: a short pulse every half second or so, louder and softer again."""
    pulses = np.zeros((3, samples))
    pace_s, start_s = random.uniform(0.45, 0.7), random.uniform(0, samples / RATE_HZ)
    count = int(random.integers(6, 25))
    heights = np.hanning(count + 2)[1:-1] * random.uniform(4, 25)
    for n, height in enumerate(heights):
        place = int((start_s + n * pace_s + random.normal(0, 0.02)) * RATE_HZ)
        if 0 <= place < samples:
            pulses[:, place] = height * random.normal(0, 1, 3)
    return np.asarray(sosfilt(band_pass(8.0, 30.0), pulses))


def _knock(random: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """A door, a hammer, an animal at the sensor: a ringing that is over within a second."""
    since = _time(samples) - random.uniform(0, samples / RATE_HZ)
    since, after = np.maximum(since, 0), since >= 0
    ringing = np.exp(-since / random.uniform(0.03, 0.25)) * np.sin(2 * np.pi * random.uniform(4, 30) * since)
    return np.asarray(random.uniform(2, 20) * random.normal(0, 1, (3, 1)) * after * ringing)
