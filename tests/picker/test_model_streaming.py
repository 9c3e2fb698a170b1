"""Offline is streaming from a fresh state: any split into chunks equals the whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import MINIATURE, motion, network, streamed, whole, with_gate

from picker.model.checkpoint import load_picker
from picker.model.config import PRESETS, Gate
from picker.model.picker import Picker

SHIPPED = Path(__file__).parents[2] / "models" / "checkpoints" / "small.safetensors"
TEN_MINUTES = 938
GATES: tuple[Gate, ...] = ("sigmoid", "exponential")
MODELS: dict[tuple[Gate, int], Picker] = {
    (gate, pooling): network(replace(MINIATURE, gate=gate, pooling=pooling)).double()
    for gate in GATES
    for pooling in (2, 4)
}


def ten_minutes() -> torch.Tensor:
    """Noise, three quiet minutes, one of digital silence, noise, and an event in the middle: (1, 3, 60032)."""
    x = motion(1, TEN_MINUTES)
    x[..., 6400:19200] *= 1e-3
    x[..., 19200:25600] = 0
    return x


@settings(max_examples=15, deadline=None)
@given(
    chunks=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    gate=st.sampled_from(GATES),
    pooling=st.sampled_from((2, 4)),
    seed=st.integers(0, 99),
)
def test_any_split_equals_the_whole(chunks: list[int], gate: Gate, pooling: int, seed: int) -> None:
    """In float64 to 1e-9, for both gates and both poolings."""
    model, x = MODELS[gate, pooling], motion(2, sum(chunks), seed).double()
    assert (streamed(model, x, chunks)[0] - whole(model, x)).abs().max() < 1e-9


@pytest.mark.parametrize("lookahead", [0, 16, 64, 128])
def test_any_lookahead(lookahead: int) -> None:
    """Delay lines shorter than, as long as and longer than a chunk stream alike."""
    model, x = network(replace(MINIATURE, lookahead_samples=lookahead)).double(), motion(1, 9).double()
    assert (streamed(model, x, [1, 3, 1, 4])[0] - whole(model, x)).abs().max() < 1e-9


def test_gaps_stream_alike() -> None:
    """Valid flags are part of the input: a gap across borders of chunks changes nothing of this."""
    model, x = MODELS["sigmoid", 4], motion(2, 12).double()
    valid = torch.ones_like(x, dtype=torch.bool)
    valid[0, :, 100:300] = False
    valid[1, 2] = False
    assert (streamed(model, x, [1] * 12, valid)[0] - whole(model, x, valid)).abs().max() < 1e-9


@pytest.mark.parametrize("gate", GATES)
def test_ten_minutes_in_float64(gate: Gate) -> None:
    """The preset small over ten minutes, in unequal pieces: 1e-9."""
    model, x = network(with_gate(PRESETS["small"], gate)).double(), ten_minutes().double()
    pieces = [1, 1, 2, 3, 5, 88, 200, 138, 250, 250]
    assert (streamed(model, x, pieces)[0] - whole(model, x)).abs().max() < 1e-9


@pytest.mark.parametrize("gate", GATES)
def test_ten_minutes_in_float32(gate: Gate) -> None:
    """The preset small over ten minutes, chunk by chunk as it is served: probabilities to 1e-4 of the whole.

    Untrained weights may exceed this at a few isolated samples, where a normaliser crosses zero; a trained network
    stays far below it.
    """
    model, x = network(with_gate(PRESETS["small"], gate)), ten_minutes()
    at_once, served = whole(model, x).softmax(1), streamed(model, x, [1] * TEN_MINUTES)[0].softmax(1)
    assert at_once.amax() - at_once.amin() > 0.2  # a constant would pass
    apart = (served - at_once).abs()
    assert (apart >= 1e-4).sum() <= 5
    assert apart.max() < 1e-3


def test_ten_minutes_of_the_shipped_network_in_float32() -> None:
    """The weights that are served, over quiet and an event: probabilities to 1e-4 of the whole."""
    model, _ = load_picker(SHIPPED)
    x = ten_minutes()
    at_once, served = whole(model, x).softmax(1), streamed(model, x, [1] * TEN_MINUTES)[0].softmax(1)
    assert at_once[:, :2].amax() > 0.3  # something is picked
    assert (served - at_once).abs().max() < 1e-4
