"""Samples as 16-bit codes that can be read at random: what shards hold, and what windows are decoded from.

A component of a trace has a ``scale`` and a ``bend``. Codes of int16 mean ``scale * sinh(bend * code) / bend``, and
``scale * code`` where ``bend`` is zero: the scale is 1/8 of the quietest noise (as in ``codec``), and only a record
whose largest sample is further than 32,767 such steps is bent, so that its relative precision there is that of the bend
(2.5e-4 for an earthquake a million times the noise) and nothing clips. Codes of float16 and float32 are samples over
``scale``. A sample that is not valid is -32,768 or NaN: no flags lie beside the codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain.data.codec import step_of

INT16, FLOAT16, FLOAT32 = "int16", "float16", "float32"
NOT_VALID = np.iinfo(np.int16).min
LARGEST_CODE = np.iinfo(np.int16).max
_LARGEST_HALF = 60_000.0

Codes = NDArray[Any]


def bend_for(steps: float) -> float:
    """The bend with which the code 32,767 means ``steps`` steps; zero where it does without one."""
    if steps <= LARGEST_CODE:
        return 0.0
    low, high = 1e-9, 1e-2
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if np.sinh(middle * LARGEST_CODE) / middle < steps else (low, middle)
    return float(np.float32(high * (1 + 1e-6)))


def encode_samples(
    waveform: NDArray[np.float32], valid: NDArray[np.bool_], dtype: str
) -> tuple[Codes, NDArray[np.float32], NDArray[np.float32]]:
    """Codes (C, N) of ``waveform`` (C, N), and the scale (C,) and bend (C,) of each component.

    ``dtype`` is int16, float16 or float32. Samples that are not ``valid``, or not finite, come back as not
    valid.
    """
    codes = np.empty(waveform.shape, dtype)
    scales, bends = np.ones(len(waveform), np.float32), np.zeros(len(waveform), np.float32)
    for row, (samples, flags) in enumerate(zip(waveform, valid & np.isfinite(waveform), strict=True)):
        largest = float(np.abs(samples[flags]).max(initial=0.0))
        if dtype == INT16:
            scales[row] = step_of(samples[flags])
            steps = samples.astype(np.float64) / float(scales[row])
            bends[row] = bend_for(largest / float(scales[row]))
            bent = np.arcsinh(steps * float(bends[row])) / float(bends[row]) if bends[row] else steps
            # The very largest sample may round one code too high.
            codes[row] = np.where(flags, np.clip(np.rint(bent), -LARGEST_CODE, LARGEST_CODE), NOT_VALID)
        else:
            scales[row] = largest / _LARGEST_HALF if dtype == FLOAT16 and largest > 0 else 1.0
            codes[row] = np.where(flags, samples.astype(np.float64) / float(scales[row]), np.nan)
    return codes, scales, bends


def decode_samples(
    codes: Codes, scales: NDArray[np.float32], bends: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Waveform and valid flags (..., C, N) of ``codes`` (..., C, N) with ``scales`` and ``bends`` (..., C)."""
    valid: NDArray[np.bool_] = codes != NOT_VALID if codes.dtype == np.int16 else ~np.isnan(codes)
    steps = np.where(valid, codes, 0).astype(np.float64)
    bend = np.where(bends > 0, bends, 1).astype(np.float64)[..., None]
    steps = np.where(bends[..., None] > 0, np.sinh(np.where(bends[..., None] > 0, steps * bend, 0)) / bend, steps)
    return (steps * scales[..., None]).astype(np.float32), valid
