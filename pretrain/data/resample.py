"""Resampling to 100 Hz and the search for samples that are not data."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from picker.errors import ConfigError
from pretrain.data.trace import RATE_HZ

FLAT_S = 1.0
"""A component that holds one value to the last bit for this long carries no data: padding, a gap, a dead channel."""


def ratio(rate_hz: float) -> Fraction:
    """100 Hz over ``rate_hz`` as a fraction; a rate within 0.1 % of a round one is taken for it.

    Raises ConfigError for a rate below 20 or above 1000 Hz.
    """
    if not 20 <= rate_hz <= 1000:
        raise ConfigError(f"sampling rate {rate_hz} Hz: Onset resamples 20 to 1000 Hz to {RATE_HZ:g} Hz")
    nominal = round(rate_hz) if abs(rate_hz / round(rate_hz) - 1) < 1e-3 else Fraction(rate_hz).limit_denominator(100)
    return Fraction(int(RATE_HZ)) / Fraction(nominal)


def resample(waveform: NDArray[np.floating], factor: Fraction) -> NDArray[np.float64]:
    """``waveform`` (..., N) taken by ``factor`` with a zero-delay anti-alias FIR: the first sample keeps its time."""
    if factor == 1:
        return waveform.astype(np.float64)
    from scipy.signal import resample_poly

    level = waveform[..., :1].astype(np.float64)
    moved = resample_poly(waveform.astype(np.float64) - level, factor.numerator, factor.denominator, axis=-1)
    return np.asarray(moved + level, dtype=np.float64)


def resample_with_gaps(
    waveform: NDArray[np.generic], valid: NDArray[np.bool_], factor: Fraction
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """``waveform`` and ``valid`` (C, N) resampled, each valid run for itself: no gap rings into its neighbours."""
    if factor == 1:
        return waveform.astype(np.float64), valid
    samples = -(-waveform.shape[1] * factor.numerator // factor.denominator)
    out = np.zeros((waveform.shape[0], samples))
    usable = np.zeros((waveform.shape[0], samples), dtype=np.bool_)
    for component, flags in enumerate(valid):
        for start, stop in runs(flags):
            first = round(start * factor)
            piece = resample(waveform[component, start:stop].astype(np.float64), factor)[: samples - first]
            out[component, first : first + len(piece)] = piece
            usable[component, first : first + len(piece)] = True
    return out, usable


def runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The stretches [start, stop) of ``flags`` (N,) that are true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def live(waveform: NDArray[np.generic], rate_hz: float) -> NDArray[np.bool_]:
    """Where ``waveform`` (C, N) is data: finite, and not flat for ``FLAT_S`` or longer."""
    valid: NDArray[np.bool_] = np.isfinite(waveform)
    flat = waveform[:, 1:] == waveform[:, :-1]
    for component, flags in enumerate(flat):
        for start, stop in runs(flags):
            if stop - start + 1 >= FLAT_S * rate_hz:
                valid[component, start : stop + 1] = False
    return valid
