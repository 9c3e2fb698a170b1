"""Driving a step graph over arrays, chunk by chunk, as the daemon does: what is evaluated is what runs.

Shapes: B records, C = 3 components, N samples, P = 3 phases.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from picker.offset import first_valid, remove_offset
from picker.stepper import Stepper


def stream(
    stepper: Stepper, waveforms: NDArray[np.generic], valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Probabilities (B, P, N) of ``waveforms`` (B, C, N) at 100 Hz in any unit, from a fresh state.

    The result is aligned with the input: the look-ahead is taken off, and invalid chunks are fed after the last sample
    until every sample has its probability. ``valid`` (B, C, N) defaults to "finite"; a sample that is not finite is
    never valid.
    """
    spec = stepper.spec
    usable = np.isfinite(waveforms) if valid is None else valid & np.isfinite(waveforms)
    data = remove_offset(waveforms, first_valid(waveforms, usable))
    rows, _, samples = waveforms.shape
    steps = -(-(samples + spec.lookahead_samples) // spec.chunk_samples)
    padding = ((0, 0), (0, 0), (0, steps * spec.chunk_samples - samples))
    data = np.pad(np.where(usable, data, np.float32(0)), padding)
    usable = np.pad(usable, padding)
    state, reset = stepper.fresh_state(rows), np.zeros(rows, dtype=np.bool_)
    out = np.empty((rows, len(spec.phases), steps * spec.chunk_samples), dtype=np.float32)
    for k in range(steps):
        here = slice(k * spec.chunk_samples, (k + 1) * spec.chunk_samples)
        chunk, flags = np.ascontiguousarray(data[..., here]), np.ascontiguousarray(usable[..., here])
        out[..., here], state = stepper.step(chunk, flags, reset, state)
    return out[..., spec.lookahead_samples : spec.lookahead_samples + samples]
