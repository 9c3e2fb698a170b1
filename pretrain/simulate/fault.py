"""What goes wrong at a station: glitches, steps, spikes, gaps, dead components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pretrain.data.trace import RATE_HZ

_CLEAR_S = 0.5
_DEAD_SHARE = 0.15


def glitches(random: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """One to three faults (3, samples), relative to the background noise."""
    total = np.zeros((3, samples))
    kinds = (_tilt, _step, _spike)
    for _ in range(int(random.integers(1, 4))):
        components = random.uniform(size=3) < (0.4, 0.7, 0.7)
        components[random.integers(3)] = True
        fault = kinds[random.integers(3)](random, samples)
        total += components[:, None] * random.normal(0, 1, (3, 1)) * fault
    return total


def _tilt(random: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """A sensor that settles: a quick rise and a slow return (Zahradnik & Plesinger 2005)."""
    since = np.maximum(np.arange(samples) / RATE_HZ - random.uniform(0, samples / RATE_HZ), 0)
    rise_s, return_s = random.uniform(0.02, 0.4), random.uniform(1, 30)
    return np.asarray(random.uniform(5, 80) * (np.exp(-since / return_s) - np.exp(-since / rise_s)))


def _step(random: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """A digitiser whose zero jumps."""
    return np.asarray(random.uniform(3, 60) * (np.arange(samples) >= random.integers(samples)))


def _spike(random: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """A few samples that are far off."""
    spikes = np.zeros(samples)
    for place in random.integers(0, samples - 3, size=int(random.integers(1, 5))):
        spikes[place : place + int(random.integers(1, 4))] = random.uniform(10, 300) * random.choice((-1, 1))
    return spikes


def gaps(random: np.random.Generator, onsets: Sequence[int], samples: int) -> NDArray[np.bool_]:
    """Where (3, samples) samples are lost: a dead component, or gaps that spare half a second around ``onsets``."""
    lost = np.zeros((3, samples), dtype=np.bool_)
    if random.uniform() < _DEAD_SHARE:
        lost[random.integers(3)] = True
        return lost
    components = random.uniform(size=3) < (1.0 if random.uniform() < 0.6 else 0.4)
    components[random.integers(3)] = True
    for _ in range(int(random.integers(1, 4))):
        start, length = random.integers(samples), int(random.uniform(0.02, 5) * RATE_HZ)
        clear = int(_CLEAR_S * RATE_HZ)
        if not any(start - clear <= onset < start + length + clear for onset in onsets):
            lost[components, start : start + length] = True
    return lost
