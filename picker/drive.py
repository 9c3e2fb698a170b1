"""Driving a step graph over arrays, chunk by chunk, as the daemon does: what is evaluated is what runs.

Shapes: B records, C = 3 components, N samples, P = 3 phases.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from picker.offset import first_valid, remove_offset
from picker.spec import PickerSpec
from picker.stepper import Stepper


def stream(
    stepper: Stepper, waveforms: NDArray[np.generic], valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Probabilities (B, P, N + E) of ``waveforms`` (B, C, N) at 100 Hz in any unit, from a fresh state.

    The look-ahead is taken off, and invalid chunks are fed after the last sample until every sample has its
    probability: column t speaks of sample t, and of sample t - E for a phase with a second look of E samples, as
    ``Decider.feed`` takes it. Without one E is 0; phases that are through with the input are zero. ``valid`` (B, C, N)
    defaults to "finite"; a sample that is not finite is never valid.
    """
    spec = stepper.spec
    usable = np.isfinite(waveforms) if valid is None else valid & np.isfinite(waveforms)
    data = remove_offset(waveforms, first_valid(waveforms, usable))
    rows, _, samples = waveforms.shape
    steps = -(-(samples + spec.longest_lookahead_samples) // spec.chunk_samples)
    padding = ((0, 0), (0, 0), (0, steps * spec.chunk_samples - samples))
    data = np.pad(np.where(usable, data, np.float32(0)), padding)
    usable = np.pad(usable, padding)
    state, reset = stepper.fresh_state(rows), np.zeros(rows, dtype=np.bool_)
    out = np.empty((rows, len(spec.phases), steps * spec.chunk_samples), dtype=np.float32)
    for k in range(steps):
        here = slice(k * spec.chunk_samples, (k + 1) * spec.chunk_samples)
        chunk, flags = np.ascontiguousarray(data[..., here]), np.ascontiguousarray(usable[..., here])
        out[..., here], state = stepper.step(chunk, flags, reset, state)
    return of_samples(spec, out[..., spec.lookahead_samples :], samples)


def of_samples(spec: PickerSpec, probabilities: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """Of probabilities (..., P, at least N + E) as ``stream`` returns them, those of the first N samples."""
    out = probabilities[..., : samples + spec.longest_lookahead_samples - spec.lookahead_samples].copy()
    for row, phase in enumerate(spec.phases):
        out[..., row, samples + spec.second_look_samples.get(phase, 0) :] = 0
    return out


def aligned(spec: PickerSpec, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities (..., P, N + E) as ``stream`` returns them, for the eye: (..., P, N), column t speaks of t."""
    longest = spec.longest_lookahead_samples - spec.lookahead_samples
    samples = probabilities.shape[-1] - longest
    later = [spec.second_look_samples.get(phase, 0) for phase in spec.phases]
    return np.stack([probabilities[..., row, k : k + samples] for row, k in enumerate(later)], axis=-2)
