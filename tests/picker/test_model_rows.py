"""Rows of a batch are stations that know nothing of each other: to the last bit, in torch and in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import CHUNK, motion
from numpy.typing import NDArray

from picker.model.picker import Picker
from picker.model.state import named, replace
from picker.stepper import OnnxStepper

ROWS, CHUNKS, SICK = 4, 8, 1
Run = Callable[[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.float32]]
"""Samples (B, 3, N), valid (B, 3, N), reset (B, chunks) to probabilities (B, 3, N), one chunk a call."""


@pytest.fixture(params=["torch", "onnxruntime"])
def run(request: pytest.FixtureRequest, miniature: Picker, stepper: OnnxStepper) -> Run:
    """Both engines behind one face."""

    def pieces(
        x: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_]
    ) -> list[tuple[np.ndarray, ...]]:
        borders = range(0, x.shape[-1], CHUNK)
        cut = [[np.ascontiguousarray(part[..., at : at + CHUNK]) for part in (x, valid)] for at in borders]
        return [(*pair, np.ascontiguousarray(reset[:, k])) for k, pair in enumerate(cut)]

    @torch.no_grad()
    def on_torch(*inputs: np.ndarray) -> NDArray[np.float32]:
        state, out = miniature.initial_state(len(inputs[0])), []
        for piece in pieces(*inputs):
            probabilities, state = miniature.probabilities(*(torch.from_numpy(part) for part in piece), state)
            out.append(probabilities.numpy())
        return np.concatenate(out, -1)

    def on_onnxruntime(*inputs: np.ndarray) -> NDArray[np.float32]:
        state, out = stepper.fresh_state(len(inputs[0])), []
        for piece in pieces(*inputs):
            probabilities, state = stepper.step(*piece, state)
            out.append(probabilities)
        return np.concatenate(out, -1)

    return on_torch if request.param == "torch" else on_onnxruntime


@pytest.fixture
def healthy() -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Four stations without a fault."""
    x = motion(ROWS, CHUNKS).numpy()
    return x, np.ones(x.shape, np.bool_), np.zeros((ROWS, CHUNKS), np.bool_)


def spoil(kind: str, x: NDArray[np.float32], reset: NDArray[np.bool_]) -> None:
    """Do one thing to one row, in its third chunk."""
    sample = (SICK, 1, 2 * CHUNK + 17)
    if kind == "reset":
        reset[SICK, 2] = True
    elif kind == "loud":
        x[SICK] *= 100
    else:
        x[sample] = {"nan": np.nan, "inf": -np.inf, "1e30": 1e30}[kind]


@pytest.mark.parametrize("kind", ["reset", "nan", "inf", "1e30", "loud"])
def test_a_fault_in_one_row_leaves_the_others(run: Run, healthy: tuple[np.ndarray, ...], kind: str) -> None:
    """Whatever one station sends, the others' probabilities are the same bits, and its own stay finite for ever."""
    x, valid, reset = (part.copy() for part in healthy)
    spoil(kind, x, reset)
    before, after = run(*healthy), run(x, valid, reset)
    others = [row for row in range(ROWS) if row != SICK]
    assert np.array_equal(before[others], after[others])
    assert not np.array_equal(before[SICK], after[SICK])
    assert np.isfinite(after).all()


@pytest.mark.parametrize("kind", ["nan", "inf", "1e30"])
def test_a_bad_sample_is_a_missing_sample(run: Run, healthy: tuple[np.ndarray, ...], kind: str) -> None:
    """The row goes on as if that sample had been marked not valid."""
    (x, valid, reset), (y, gap, _) = (tuple(part.copy() for part in healthy) for _ in range(2))
    spoil(kind, x, reset)
    gap[SICK, 1, 2 * CHUNK + 17] = False
    assert np.array_equal(run(x, valid, reset), run(y, gap, reset))


def test_a_reset_row_is_a_fresh_row(run: Run, healthy: tuple[np.ndarray, ...]) -> None:
    """From the chunk of the reset on, the row is a station that starts there."""
    x, valid, reset = healthy
    reset[SICK, 2] = True
    late = run(x, valid, reset)[SICK, :, 2 * CHUNK :]
    fresh = run(x[..., 2 * CHUNK :], valid[..., 2 * CHUNK :], np.zeros((ROWS, CHUNKS - 2), np.bool_))
    assert np.array_equal(late, fresh[SICK])


def test_reset_heals_a_state_full_of_nan(miniature: Picker, stepper: OnnxStepper) -> None:
    """Both engines: whatever the state holds, a reset row is fresh, and a row that is not reset keeps its own."""
    x = motion(2, 1)
    flags, reset = torch.ones_like(x, dtype=torch.bool), torch.tensor([True, False])
    fresh = miniature.initial_state(2)
    broken = replace(fresh, [tensor.clone().index_fill_(0, torch.tensor([0]), torch.nan) for _, tensor in named(fresh)])
    with torch.no_grad():
        healed, after = miniature.probabilities(x, flags, reset, broken)
        assert torch.equal(healed, miniature.probabilities(x, flags)[0])
        assert not miniature.probabilities(x, flags, None, broken)[0][0].isfinite().all()
    assert all(tensor.isfinite().all() for _, tensor in named(after))
    chunk, valid = x.numpy(), flags.numpy()
    poison = tuple(tensor.numpy() for _, tensor in named(broken))
    served, _ = stepper.step(chunk, valid, reset.numpy(), poison)
    assert np.array_equal(served, stepper.step(chunk, valid, np.zeros(2, np.bool_), stepper.fresh_state(2))[0])
