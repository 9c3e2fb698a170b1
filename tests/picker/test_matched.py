"""The filter behind the second look: what it does to peaks of known shape, in pieces as at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from picker.model.matched import REACH_SAMPLES, MatchedFilter


def filtered(x: np.ndarray, piece: int | None = None) -> np.ndarray:
    """The output of one row, ``piece`` samples a call, put where it belongs in time."""
    layer, given = MatchedFilter(), torch.from_numpy(x).view(1, 1, -1)
    state, out = layer.initial_state(1, given), list[Tensor]()
    for first in range(0, len(x), piece or len(x)):
        y, state = layer(given[..., first : first + (piece or len(x))], state)
        out.append(y)
    return torch.cat(out, -1).numpy()[0, 0, REACH_SAMPLES:]


def bell(deviation: float, height: float = 1.0) -> np.ndarray:
    """A Gaussian in the middle of 1,024 samples."""
    return height * np.exp(-0.5 * ((np.arange(1024) - 512) / deviation) ** 2)


def test_certain_and_uncertain_places_of_one_onset_count_alike() -> None:
    """Mass decides: half as high and twice as wide counts two thirds, a spike of full height next to nothing."""
    label, broad, spike = bell(10.0), bell(20.0, 0.5), bell(1.0)
    heights = {name: filtered(x).max() for name, x in (("label", label), ("broad", broad), ("spike", spike))}
    assert heights["label"] == pytest.approx(1 / np.hypot(1, REACH_SAMPLES / 30), abs=0.01)
    assert 0.6 < heights["broad"] / heights["label"] < 0.7
    assert heights["spike"] < 0.15 * heights["label"]
    assert filtered(label).argmax() == 512
    assert filtered(np.ones(1024))[REACH_SAMPLES:] == pytest.approx(1.0)


def test_a_flat_top_has_one_middle() -> None:
    """Rounding in the last digits moves the highest sample of a plateau anywhere, and that of the filtered one not."""
    flat = np.clip(3 * bell(12.0), 0, 0.9)
    tops = [flat + 1e-4 * np.random.default_rng(seed).standard_normal(1024) for seed in range(20)]
    assert np.ptp([top.argmax() for top in tops]) > 10
    assert {int(filtered(top).argmax()) for top in tops} == {512}


def test_pieces_are_the_whole() -> None:
    """The state carries what the next chunk needs."""
    x = np.random.default_rng(0).random(1024)
    assert filtered(x, piece=64) == pytest.approx(filtered(x), abs=1e-12)
    assert filtered(x) == pytest.approx(np.convolve(x, MatchedFilter().kernel[0, 0])[REACH_SAMPLES:1024])
