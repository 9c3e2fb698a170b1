"""Removal of a station's constant offset before the cast to float32.

A digitiser may sit at 8e6 counts with a noise of 50: float32 running moments would not survive it. The first valid
sample of each component is subtracted exactly (int64 for integer data, float64 otherwise) before anything is rounded.
The offsets are part of a station's state: they are fixed until the station is reset.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def first_valid(waveform: Array, valid: NDArray[np.bool_]) -> Array:
    """Value of the first valid, finite sample of each component.

    waveform (..., N) integer or float, valid (..., N). Returns (...,) int64 for integer input, float64 otherwise;
    zero where a component has no valid sample.
    """
    exact = waveform.astype(np.int64 if np.issubdtype(waveform.dtype, np.integer) else np.float64)
    usable = valid & np.isfinite(waveform)
    index = usable.argmax(axis=-1)
    value = np.take_along_axis(exact, index[..., None], axis=-1)[..., 0]
    return np.where(usable.any(axis=-1), value, exact.dtype.type(0))


def remove_offset(waveform: Array, offset: Array) -> NDArray[np.float32]:
    """``waveform`` (..., N) minus ``offset`` (...,), subtracted exactly and only then cast to float32.

    What float32 cannot hold becomes infinite, which the graph treats as missing.
    """
    with np.errstate(over="ignore"):
        return (waveform.astype(offset.dtype) - offset[..., None]).astype(np.float32)
