"""The anti-alias filter of the resampler: a Kaiser-windowed sinc, sampled at the phases of a rational ratio.

The filter is a function of time, symmetric about zero, so its delay is exactly its half length at every phase.
(Kaiser 1974; Crochiere & Rabiner, Multirate Digital Signal Processing, 1983.)
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamer.errors import BadRecord

OUTPUT_RATE_HZ = 100
HALF_LENGTH_PERIODS = 12
"""Half length in periods of the lower of the two rates: 0.12 s from 100 Hz upwards, 0.6 s at 20 Hz."""
KAISER_BETA = 5.653
"""60 dB in the stop band."""
CUT_OFF = 0.425
"""Half-amplitude frequency as a share of the lower rate; the stop band starts at its half."""
RATE_TOLERANCE = 5e-4
LARGEST_DENOMINATOR = 8


@lru_cache(maxsize=256)
def nominal_rate(rate_hz: float) -> Fraction:
    """The rate that ``rate_hz`` means: 99.99 and 100.01 are 100, 62.5 is 125/2.

    Raises BadRecord (``bad_rate``) where no fraction with a denominator up to 8 is within 0.05 %.
    """
    for denominator in range(1, LARGEST_DENOMINATOR + 1):
        candidate = Fraction(round(rate_hz * denominator), denominator)
        if candidate > 0 and abs(float(candidate) - rate_hz) <= RATE_TOLERANCE * rate_hz:
            return candidate
    raise BadRecord("bad_rate", f"{rate_hz:.6g} Hz is near no rational rate with a denominator up to 8")


def half_length_samples(rate: Fraction) -> int:
    """Half length of the filter in input samples; 0 at the output rate, where samples pass through."""
    if rate == OUTPUT_RATE_HZ:
        return 0
    return math.ceil(HALF_LENGTH_PERIODS * max(Fraction(1), rate / OUTPUT_RATE_HZ))


@lru_cache(maxsize=128)
def bank(rate: Fraction, shift: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Coefficients of each phase for outputs at input positions ``shift + k * rate / 100``, 0 <= shift < 1.

    With rate / 100 = down / up in lowest terms, output k has phase ``(k * down) % up`` and its whole position
    is ``(k * down) // up + carry[phase]``. Returns (up, 2 * half + 1) coefficients of the input samples from
    whole - half to whole + half, each row with a sum of one, and ``carry`` (up,).
    """
    ratio = rate / OUTPUT_RATE_HZ
    half = half_length_samples(rate)
    if half == 0:
        return np.ones((1, 1)), np.zeros(1, dtype=np.int64)
    positions = shift + np.arange(ratio.denominator) / ratio.denominator
    carry = np.floor(positions).astype(np.int64)
    lags = (positions - carry)[:, None] - np.arange(-half, half + 1)
    width = HALF_LENGTH_PERIODS * max(1.0, float(ratio))
    window = np.i0(KAISER_BETA * np.sqrt(np.clip(1 - (lags / width) ** 2, 0, None))) * (np.abs(lags) <= width)
    rows = np.sinc(2 * CUT_OFF * min(1.0, 1 / float(ratio)) * lags) * window
    return np.ascontiguousarray(rows / rows.sum(axis=1, keepdims=True)), carry
