"""Synthetic waveforms that look like a network's: microseism, white noise, now and then an earthquake; offset removed.

Speed does not depend on what is in a sample, except that zeros are a special case that no station sends.
Shapes: B stations, C = 3 components, N samples at 100 Hz.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from picker.offset import first_valid, remove_offset

RATE_HZ = 100.0
POOL = 64
"""Different stations; those beyond it see the same waveforms at other times."""
CHUNKS = 256
"""Length of the pool in chunks of 64 samples, 164 s; then it starts again."""


class Waveforms:
    """A pool of stations, read chunk by chunk or window by window, each station at a time of its own."""

    def __init__(self, chunk_samples: int, seed: int = 0) -> None:
        self.chunk_samples = chunk_samples
        self._pool = synthesize(POOL, CHUNKS * chunk_samples, np.random.default_rng(seed))

    def chunks(self, stations: NDArray[np.int_], steps: NDArray[np.int_]) -> NDArray[np.float32]:
        """Chunk number ``steps`` (B,) of each of ``stations`` (B,): (B, C, chunk_samples)."""
        return self._at(stations, steps * self.chunk_samples, self.chunk_samples)

    def windows(self, stations: NDArray[np.int_], step: int, samples: int) -> NDArray[np.float32]:
        """Windows of ``samples`` that start with chunk number ``step``: (B, C, samples)."""
        return self._at(stations, np.full(len(stations), step * self.chunk_samples), samples)

    def _at(self, stations: NDArray[np.int_], starts: NDArray[np.int_], samples: int) -> NDArray[np.float32]:
        shift = (stations // POOL * 11 + stations) * self.chunk_samples
        columns = (starts + shift)[:, None] + np.arange(samples)
        rows, columns = (stations % POOL)[:, None, None], columns[:, None, :] % self._pool.shape[-1]
        return np.ascontiguousarray(self._pool[rows, np.arange(3)[None, :, None], columns])


def synthesize(stations: int, samples: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Counts (B, C, N), offset removed: two earthquakes a station, each with a P and a stronger S."""
    time_s = np.arange(samples) / RATE_HZ
    shape = (stations, 3)
    data = generator.normal(0, 40, (*shape, samples))
    for frequency_hz in (0.14, 0.21, 0.27):
        phase = generator.uniform(0, 2 * np.pi, (*shape, 1))
        data += generator.uniform(100, 300, (*shape, 1)) * np.sin(2 * np.pi * frequency_hz * time_s + phase)
    for _ in range(2):
        onset_s = generator.uniform(0, time_s[-1], (stations, 1, 1))
        size = 10 ** generator.uniform(2, 5, (stations, 1, 1))
        for delay_s, share, frequency_hz in ((0.0, 0.3, 8.0), (4.0, 1.0, 4.0)):
            since_s = np.clip(time_s - onset_s - delay_s, 0, None)
            envelope = size * share * generator.uniform(0.5, 1.5, (*shape, 1)) * since_s * np.exp(-since_s / 3)
            data += envelope * np.sin(2 * np.pi * frequency_hz * since_s)
    counts = np.rint(data + generator.integers(-1_000_000, 1_000_000, (*shape, 1))).astype(np.int64)
    return remove_offset(counts, first_valid(counts, np.ones(counts.shape, dtype=np.bool_)))
