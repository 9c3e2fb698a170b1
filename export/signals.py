"""Ground motion for the parity proof: every kind of stream that a station can send, from a fixed seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.offset import first_valid, remove_offset

RATE_HZ = 100


class Stream(NamedTuple):
    """Rows of input: samples (B, 3, N) float32, valid (B, 3, N), reset (B, chunks)."""

    samples: NDArray[np.float32]
    valid: NDArray[np.bool_]
    reset: NDArray[np.bool_]


def synthetic_stream(rows: int, seconds: float, chunk_samples: int, seed: int = 0) -> Stream:
    """``rows`` stations, each another mixture of quiet, events, saturation, gaps, dead components, NaN and resets."""
    random = np.random.default_rng(seed)
    chunks = int(seconds * RATE_HZ) // chunk_samples
    count = chunks * chunk_samples
    samples = np.empty((rows, 3, count), np.float64)
    valid = np.ones((rows, 3, count), np.bool_)
    reset = np.zeros((rows, chunks), np.bool_)
    for row in range(rows):
        samples[row] = _noise(random, count) * 10 ** random.uniform(-9, 3)
        for start in random.integers(0, count, max(1, count // 4000)):
            _add_event(samples[row], int(start), random)
        kind = row % 4
        if kind == 1:  # saturated at the rails of a 24-bit digitiser
            gain = 2**23 / np.abs(samples[row]).max()
            samples[row] = np.clip(samples[row] * gain * 20, -(2**23), 2**23 - 1).round()
        if kind == 2:  # gaps, NaN, and a reset after each long gap
            for start in random.integers(0, count - 2000, max(1, count // 12000)):
                length = int(10 ** random.uniform(0.5, 3))
                valid[row, :, start : start + length] = False
                reset[row, -(-(start + length) // chunk_samples)] = length > 200
            samples[row, random.integers(3), random.integers(count)] = np.nan
        if kind == 3:  # a dead component, and minutes of digital silence
            samples[row, random.integers(3)] = 0
            samples[row, :, count // 3 : count // 2] = 0
    usable = valid & np.isfinite(samples)
    return Stream(remove_offset(samples, first_valid(samples, usable)), valid, reset)


def _noise(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """White noise plus microseism at 0.2 Hz, (3, count)."""
    time = np.arange(count) / RATE_HZ
    swell = 5 * np.sin(2 * np.pi * (0.2 * time + random.random((3, 1)) + 0.3 * np.sin(0.01 * time)))
    return random.standard_normal((3, count)) + swell * random.random((3, 1))


def _add_event(samples: NDArray[np.float64], start: int, random: np.random.Generator) -> None:
    """Add a P and a larger S with exponential codas, (3, N), in place."""
    size = np.median(np.abs(samples)) * 10 ** random.uniform(0.3, 3)
    delay = random.integers(50, 1500)
    for onset, amplitude, vertical in ((start, 1.0, 1.0), (start + delay, 2.5, 0.4)):
        length = samples.shape[1] - onset
        if length <= 0:
            continue
        time = np.arange(length) / RATE_HZ
        coda = np.exp(-time / random.uniform(1, 8)) * random.standard_normal((3, length))
        samples[:, onset:] += size * amplitude * coda * np.array([vertical, 0.7, 0.7])[:, None]
