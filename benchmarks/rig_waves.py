"""Synthetic stations for the streaming rigs: noise, microseism and small earthquakes at known times, as miniSEED.

Nothing is downloaded, and the same seed gives the same bytes. Shapes: C = 3 components Z, N, E, N samples at 100 Hz.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymseed import DataEncoding, MS3Record

RATE_HZ = 100
COMPONENTS = "ZNE"
SECOND_NS = 1_000_000_000
PICK_WAVES = ((0.0, 8.0, (1.0, 0.35, 0.35)), (1.0, 5.0, (0.4, 1.6, 1.4)))
"""Of P and S: when, in units of the time from P to S, frequency (Hz), and share of each component."""


def quakes(seconds: float, every_s: float, seed: int, first_s: float = 20.0) -> list[float]:
    """Arrival times of P in seconds from the start, ``every_s`` apart in the mean, none in the last 15 s."""
    generator = np.random.default_rng(seed)
    times, moment_s = [], first_s + generator.uniform(0, every_s)
    while moment_s < seconds - 15:
        times.append(float(moment_s))
        moment_s += every_s * generator.uniform(0.7, 1.3)
    return times


def waveforms(seconds: float, p_times_s: Sequence[float], seed: int, s_after_s: float = 3.0) -> NDArray[np.int32]:
    """Counts (C, N): white and 0.2 Hz noise, and at each of ``p_times_s`` a P and ``s_after_s`` later an S."""
    generator = np.random.default_rng(seed)
    samples = round(seconds * RATE_HZ)
    time_s = np.arange(samples) / RATE_HZ
    data = generator.normal(0, 40, (3, samples))
    for frequency_hz in (0.14, 0.21, 0.27):
        phase = generator.uniform(0, 2 * np.pi, (3, 1))
        data += generator.uniform(100, 200, (3, 1)) * np.sin(2 * np.pi * frequency_hz * time_s + phase)
    for onset_s in p_times_s:
        size = 10 ** generator.uniform(3.0, 4.0)
        for turn, frequency_hz, shares in PICK_WAVES:
            begin = round((onset_s + turn * s_after_s) * RATE_HZ)
            since_s = np.arange(min(12 * RATE_HZ, samples - begin)) / RATE_HZ
            wave = size * np.exp(-since_s / (0.7 + turn)) * np.sin(2 * np.pi * frequency_hz * since_s)
            data[:, begin : begin + len(wave)] += np.array(shares)[:, None] * wave
    return np.rint(data).astype(np.int32)


def records(
    samples: NDArray[Any], source_id: str, start_ns: int, *, version: int = 2, record_bytes: int = 512
) -> list[bytes]:
    """One channel's samples (N,) as miniSEED: Steim-2 for integers, plain numbers for float32."""
    floats = samples.dtype == np.float32
    template = MS3Record(reclen=record_bytes, encoding=DataEncoding.FLOAT32 if floats else DataEncoding.STEIM2)
    template.sourceid, template.formatversion, template.samprate = source_id, version, float(RATE_HZ)
    template.starttime = start_ns
    return list(template.generate(samples, "f" if floats else "i"))


def short_records(samples: NDArray[Any], source_id: str, start_ns: int, length: int = RATE_HZ) -> list[bytes]:
    """The same in miniSEED 2 records of ``length`` samples each, as a data logger with low latency sends them."""
    cuts = range(0, len(samples), length)
    return [
        record
        for cut in cuts
        for record in records(samples[cut : cut + length], source_id, start_ns + cut * SECOND_NS // RATE_HZ)
    ]


def source_id(network: str, station: str, component: str) -> str:
    """FDSN source identifier of channel HH<component>, blank location."""
    return f"FDSN:{network}_{station}__H_H_{component}"
