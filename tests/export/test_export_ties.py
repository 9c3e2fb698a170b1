"""Two peaks of one height: either may be the pick; a peak that is lower on one side is a difference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.parity import differing
from picker.spec import PickerSpec

SPEC = PickerSpec(name="t", lookahead_samples=64, state=(), thresholds={"P": 0.3, "S": 0.3})


def curve(first: float, second: float, apart: int) -> NDArray[np.float32]:
    """Probabilities (1, 3, N) with two narrow peaks of P on a plateau."""
    out = np.zeros((1, 3, 640), np.float32)
    out[0, 0, 200 : 200 + apart + 1] = 0.6
    out[0, 0, 200], out[0, 0, 200 + apart] = first, second
    return out


def test_equal_peaks_are_a_tie_and_unequal_ones_a_difference() -> None:
    """The first of two peaks here, the second there: within the tolerance that is no difference."""
    here, there = curve(0.8000, 0.7999, 12), curve(0.7999, 0.8000, 12)
    assert differing(SPEC, here, here, 1e-3) == (1, 0, 0)
    assert differing(SPEC, here, there, 1e-3) == (1, 0, 2)
    assert differing(SPEC, here, there, 1e-5) == (1, 2, 0)
    assert differing(SPEC, here, curve(0.7, 0.8, 12), 1e-3)[1] > 0, "the first peak is there on one side alone"


def test_peaks_far_apart_are_no_tie() -> None:
    """More than half a second is another onset, however tall."""
    assert differing(SPEC, curve(0.8000, 0.7999, 60), curve(0.7999, 0.8000, 60), 1e-3) == (1, 2, 0)
