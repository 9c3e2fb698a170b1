"""What the tracker's tests share: chunks without samples of their own, and what a model might answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from picker.spec import PickerSpec
from streamer.chunk import Chunk, StationKey
from streamer.tracker import TrackedPick, Tracker

KEY = StationKey("XX", "ONE", "", "HH")
GRID = 64 * 1_000_000
"""First sample of these tests' chunks."""


def spec(lookahead: int) -> PickerSpec:
    return PickerSpec(name="test", lookahead_samples=lookahead, state=())


def chunk(
    index: int, *, reset: bool = False, flags: tuple[str, ...] = (), valid: str = "ZNE", shift_ns: int = 0
) -> Chunk:
    mask = np.repeat(np.array([[letter in valid] for letter in "ZNE"]), 64, axis=1)
    return Chunk(
        station=KEY, first_sample=GRID + 64 * index, time_shift_ns=shift_ns, samples=np.zeros((3, 64), np.float32),
        valid=mask, reset=reset, data_complete_ns=index, flags=frozenset(flags),
    )  # fmt: skip


def probabilities(peaks: dict[str, list[int]], chunks: int, lookahead: int) -> NDArray[np.float32]:
    """What a model with ``lookahead`` answers over ``chunks``: a peak that speaks of each sample given (from 0)."""
    out = np.zeros((3, 64 * chunks), dtype=np.float32)
    for phase, samples in peaks.items():
        for sample in samples:
            for offset in range(-8, 9):
                column = sample + lookahead + offset
                if 0 <= column < out.shape[1]:
                    out["PS".index(phase), column] = 0.9 * (1 - abs(offset) / 9)
    return out


def track(tracker: Tracker, chunks: list[Chunk], values: NDArray[np.float32]) -> list[TrackedPick]:
    out = []
    for index, one in enumerate(chunks):
        out += tracker.feed(one, values[:, 64 * index : 64 * index + 64])
    return out + tracker.flush()
