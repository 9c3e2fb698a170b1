"""The odds of S after a P: how much, how long, from when on, and in pieces as at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from picker.model.after_p import GAP_SAMPLES, HALF_LIFE_SAMPLES, USUAL, WEIGHT, AfterP

LATER = 160


def weighed(p: np.ndarray, s: np.ndarray, piece: int | None = None) -> np.ndarray:
    """S of one row, ``piece`` samples a call."""
    layer, size = AfterP(LATER), piece or len(p)
    state, out = layer.initial_state(1, torch.zeros(1, dtype=torch.float64)), list[Tensor]()
    for first in range(0, len(p), size):
        pieces = (torch.from_numpy(x[first : first + size]).view(1, 1, -1) for x in (p, s))
        y, state = layer(*pieces, state)
        out.append(y)
    return torch.cat(out, -1).numpy()[0, 0]


def spike(at: int, height: float = 1.0, samples: int = 8192) -> np.ndarray:
    """P at one sample."""
    p = np.zeros(samples)
    p[at] = height
    return p


def logit(x: np.ndarray) -> np.ndarray:
    return np.log(x / (1 - x))


def test_odds_rise_after_a_p_and_fade_by_half_lives() -> None:
    """Not before the P, nor for GAP_SAMPLES after it; then by WEIGHT, half of it a half-life later; certainty stays."""
    s = np.full(8192, 0.3)
    shift = logit(weighed(spike(1000), s)) - logit(s)
    begins = 1000 + LATER + GAP_SAMPLES
    assert shift[:begins] == pytest.approx(-WEIGHT * USUAL)
    assert shift[begins] == pytest.approx(WEIGHT * (1 - USUAL))
    assert shift[begins + HALF_LIFE_SAMPLES] == pytest.approx(WEIGHT * (0.5 - USUAL))
    assert weighed(spike(1000), np.ones(8192)) == pytest.approx(1.0)
    assert weighed(spike(1000), np.zeros(8192)) == pytest.approx(0.0)


def test_a_fainter_p_does_not_hide_a_surer_one() -> None:
    """The maximum of what is left of each counts."""
    s = np.full(8192, 0.3)
    both, sure = weighed(spike(1000) + spike(1500, 0.3), s), weighed(spike(1000), s)
    assert both == pytest.approx(sure)
    later = weighed(spike(1000) + spike(1500, 0.99), s)
    assert (later[1500 + LATER + GAP_SAMPLES :] > sure[1500 + LATER + GAP_SAMPLES :]).all()


@pytest.mark.parametrize("piece", [64, 192, 1024])
def test_pieces_are_the_whole(piece: int) -> None:
    """The state carries what the next chunk needs."""
    draws = np.random.default_rng(0)
    p, s = draws.random(3072) ** 8, draws.random(3072)
    assert weighed(p, s, piece) == pytest.approx(weighed(p, s), abs=1e-12)
    slow = [max(p[: t + 1] * 0.5 ** ((t - np.arange(t + 1)) / HALF_LIFE_SAMPLES)) for t in range(0, 2800, 97)]
    late = np.array([0, *range(0, 2800, 97)]) + LATER + GAP_SAMPLES
    shift = logit(weighed(p, s)) - logit(s)
    assert shift[late[1:]] == pytest.approx(WEIGHT * (np.array(slow) - USUAL))
