"""An output depends on everything up to the end of its own chunk, and on nothing later."""

from __future__ import annotations

import pytest
import torch
from networks import CHUNK, MINIATURE, motion, network, streamed, whole, with_gate

from picker.model.config import Gate

CHUNKS = 9


@pytest.mark.parametrize("gate", ["sigmoid", "exponential"])
@pytest.mark.parametrize("chunk", [0, 1, 4, 8])
def test_a_later_chunk_changes_no_earlier_output(gate: Gate, chunk: int) -> None:
    """Noise in chunk k leaves the outputs before it as they were, to the bit, and changes those of k itself."""
    model, x = network(with_gate(MINIATURE, gate)), motion(1, CHUNKS)
    noisy, here = x.clone(), slice(chunk * CHUNK, (chunk + 1) * CHUNK)
    noisy[..., here] += 30 * torch.randn(noisy[..., here].shape, generator=torch.Generator().manual_seed(chunk))
    before, after = whole(model, x), whole(model, noisy)
    assert torch.equal(before[..., : here.start], after[..., : here.start])
    changed = (before != after)[..., here].any(1)
    assert changed.float().mean() > 0.9


def test_the_flags_of_a_later_chunk_change_no_earlier_output() -> None:
    """A gap is no different from a perturbation."""
    model, x = network(), motion(1, CHUNKS)
    valid = torch.ones_like(x, dtype=torch.bool)
    valid[..., 4 * CHUNK : 5 * CHUNK] = False
    before, after = whole(model, x), whole(model, x, valid)
    assert torch.equal(before[..., : 4 * CHUNK], after[..., : 4 * CHUNK])
    assert not torch.equal(before[..., 4 * CHUNK :], after[..., 4 * CHUNK :])


@pytest.mark.parametrize("gate", ["sigmoid", "exponential"])
@pytest.mark.parametrize("length", [1, 3, 8])
def test_a_prefix_gives_the_same_outputs(gate: Gate, length: int) -> None:
    """Nothing looks at how long the input is: float64 to 1e-9, and chunk by chunk to the bit."""
    model, x = network(with_gate(MINIATURE, gate)), motion(2, CHUNKS)
    prefix = x[..., : length * CHUNK]
    long, short = streamed(model, x, [1] * CHUNKS)[0], streamed(model, prefix, [1] * length)[0]
    assert torch.equal(long[..., : length * CHUNK], short)
    exact = model.double()
    distance = whole(exact, x.double())[..., : length * CHUNK] - whole(exact, prefix.double())
    assert distance.abs().max() < 1e-9
