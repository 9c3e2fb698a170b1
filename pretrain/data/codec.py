"""Waveforms as few bytes: quantised to a fraction of their quiet noise, differenced, byte planes, zlib.

The step of each component is 1/8 of the standard deviation that its quietest seconds have above the microseism
(measured on first differences), so a record may hold a large earthquake and the quiet before it. Integer data whose
noise is below eight counts are kept without loss. Nothing clips: what does not fit int16 is stored as int32.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrain.data.trace import RATE_HZ

STEPS_OF_NOISE = 8.0
_LARGEST = 2.0**30


@dataclass(frozen=True, kw_only=True)
class Coding:
    """What turns the bytes of one trace back into its waveform."""

    steps: tuple[float, ...]
    dtype: str
    order: int
    samples: int


def quiet_noise(samples: NDArray[np.float32]) -> float:
    """Standard deviation of the white noise in the quietest 5 % of the seconds of ``samples`` (n,); 0 where unknown."""
    second = int(RATE_HZ)
    steps = np.diff(samples.astype(np.float64))
    blocks = steps[: len(steps) // second * second].reshape(-1, second)
    rms = np.sqrt(np.mean(np.square(blocks if len(blocks) else steps[None]), axis=1)) if len(steps) else np.zeros(1)
    rms = rms[rms > 0]
    return float(np.quantile(rms, 0.05) / np.sqrt(2)) if len(rms) else 0.0


def step_of(samples: NDArray[np.float32]) -> float:
    """Quantisation step for the valid samples (n,) of one component."""
    largest = float(np.abs(samples).max(initial=0.0))
    step = quiet_noise(samples) / STEPS_OF_NOISE
    if largest < 2**24 and bool(np.all(samples == np.rint(samples))):
        step = max(1.0, step)
    return max(step, largest / _LARGEST) or 1.0


def encode(waveform: NDArray[np.float32], valid: NDArray[np.bool_]) -> tuple[bytes, Coding]:
    """Bytes of ``waveform`` (C, N) and how to read them; samples that are not ``valid`` come back as zero."""
    steps = tuple(step_of(samples[flags]) for samples, flags in zip(waveform, valid, strict=True))
    counts = np.rint(np.where(valid, waveform.astype(np.float64) / np.array(steps)[:, None], 0.0)).astype(np.int64)
    dtype = "<i2" if np.abs(counts).max(initial=0) <= np.iinfo(np.int16).max else "<i4"
    pieces = [np.diff(counts, n=order, axis=1, prepend=np.zeros((len(counts), order), np.int64)) for order in range(3)]
    order = min(range(3), key=lambda n: float(np.abs(pieces[n]).mean()) if pieces[n].size else 0.0)
    # Differences may leave the range of dtype: they wrap, and the sums that undo them wrap back.
    planes = pieces[order].astype(dtype).view(np.uint8).reshape(-1, np.dtype(dtype).itemsize).T
    coding = Coding(steps=steps, dtype=dtype, order=order, samples=waveform.shape[1])
    return zlib.compress(np.ascontiguousarray(planes).tobytes(), 9), coding


def decode(data: bytes | memoryview, coding: Coding) -> NDArray[np.float32]:
    """The waveform (C, N) of ``encode``; raises zlib.error or ValueError for damaged bytes."""
    size = np.dtype(coding.dtype).itemsize
    planes = np.frombuffer(zlib.decompress(data), dtype=np.uint8).reshape(size, -1)
    counts = np.ascontiguousarray(planes.T).view(coding.dtype).reshape(len(coding.steps), coding.samples)
    for _ in range(coding.order):
        counts = np.cumsum(counts, axis=1, dtype=coding.dtype)
    waveform: NDArray[np.float64] = counts * np.array(coding.steps)[:, None]
    return waveform.astype(np.float32)
