"""The quantizer: choices, gradients, schedules and revival."""

from __future__ import annotations

import pytest
import torch
from objective_data import generator
from torch.nn import functional as F

from pretrain.objectives import draws
from pretrain.objectives.quantizer import Quantizer, QuantizerSettings

SMALL = QuantizerSettings(groups=2, codes=8, size=6)


def quantizer(settings: QuantizerSettings = SMALL, features: int = 5) -> Quantizer:
    """A quantizer with fixed weights."""
    torch.manual_seed(0)
    return Quantizer(features, settings)


def frames(rows: int = 3, most: int = 7, features: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Features, and two frames of the last row that are not present."""
    present = torch.ones(rows, most, dtype=torch.bool)
    present[-1, -2:] = False
    return torch.randn(rows, most, features, generator=generator(4)), present


def test_forward_and_gradients_equal_one_hot_times_codebook() -> None:
    """The textbook form with frames x G x V x D: the same vectors, and the same gradients of every weight."""
    ours, theirs = quantizer().double(), quantizer().double()
    x, present = frames()
    x = x.double()
    probe = torch.randn(3, 7, 6, generator=generator(5), dtype=torch.float64)
    (ours(x, present, 1.3, generator(6)).vectors * probe).sum().backward()
    logits = theirs.logits(x).unflatten(-1, (2, 8))
    soft = ((logits + draws.gumbel(generator(6), logits)) / 1.3).softmax(-1)
    hard = F.one_hot(soft.argmax(-1), 8).double() - soft.detach() + soft
    vectors = (hard[..., None] * theirs.codebook).sum(3).flatten(-2)
    (vectors * probe).sum().backward()
    torch.testing.assert_close(ours(x, present, 1.3, generator(6)).vectors, vectors)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        assert mine.grad.abs().sum() > 0
        torch.testing.assert_close(mine.grad, other.grad)


def test_statistics_are_noise_free_and_of_present_frames_only() -> None:
    """Sums of softmax and of likeliest codes; the same in training and in evaluation, whatever the noise."""
    model = quantizer()
    x, present = frames()
    logits = model.logits(x).unflatten(-1, (2, 8))[present]
    expected = F.one_hot(logits.argmax(-1), 8).sum(0).float()
    for training in (True, False):
        found = model.train(training)(x, present, 2.0, generator(7))
        torch.testing.assert_close(found.soft, logits.softmax(-1).sum(0))
        assert torch.equal(found.hard, expected)


def test_evaluation_is_free_of_noise() -> None:
    """The likeliest code of each group, whatever the generator; training draws others too."""
    model = quantizer()
    x, present = frames()
    noisy = [model(x, present, 2.0, generator(seed)).codes for seed in (1, 2)]
    assert not torch.equal(*noisy)
    model.eval()
    first, second = (model(x, present, 2.0, generator(seed)) for seed in (1, 2))
    assert torch.equal(first.vectors, second.vectors)
    assert torch.equal(first.codes, model.joint(model.codes(x)))
    code = model.codes(x)[0, 0]
    torch.testing.assert_close(first.vectors[0, 0], torch.cat([model.codebook[0, code[0]], model.codebook[1, code[1]]]))


def test_joint_codes_name_every_combination_once() -> None:
    """64 combinations of two groups of eight are 64 numbers."""
    model = quantizer()
    every = torch.cartesian_prod(torch.arange(8), torch.arange(8))[None]
    assert sorted(model.joint(every)[0].tolist()) == list(range(64))


def test_it_stays_float32_under_autocast() -> None:
    """Logits, probabilities and vectors do, whatever the features are."""
    x, present = frames()
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer()(x.bfloat16(), present, 1.0, generator())
    assert {found.vectors.dtype, found.soft.dtype, found.hard.dtype} == {torch.float32}


def test_the_gumbel_temperature_falls_from_2_to_a_half() -> None:
    """By equal factors over the run, or by a factor each step, never below the end."""
    assert [QuantizerSettings().temperature(0, share) for share in (0, 0.5, 1)] == pytest.approx([2, 1, 0.5])
    early = QuantizerSettings(until=0.5)
    assert [early.temperature(0, share) for share in (0.25, 0.5, 1)] == pytest.approx([1, 0.5, 0.5])
    decay = QuantizerSettings(schedule="decay", factor=0.5)
    assert [decay.temperature(step, 0.0) for step in (0, 1, 2, 9)] == pytest.approx([2, 1, 0.5, 0.5])


def test_gumbel_noise_is_gumbel_and_finite() -> None:
    """Mean 0.577 and variance pi^2 / 6; a draw of exactly zero is no infinity."""
    noise = draws.gumbel(generator(), torch.zeros(200_000))
    assert noise.mean() == pytest.approx(0.5772, abs=0.01)
    assert noise.var() == pytest.approx(1.6449, abs=0.03)
    assert noise.isfinite().all()


def test_dead_codes_are_drawn_anew_and_win_again() -> None:
    """Codes that were used keep their weights to the last bit; the dead get others, alike for the same seed."""
    model, same = quantizer(), quantizer()
    x, present = frames(8, 50)
    dead = [[1, 2, 5], [0, 7]]
    for one in (model, same):
        bias = one.logits.bias.data.view(2, 8)
        for group, codes in enumerate(dead):
            bias[group, codes] = -50.0
        one(x, present, 1.0, generator())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model.usage == 0
    assert all(expected[group, code] for group, codes in enumerate(dead) for code in codes)
    revived = model.revive(3)
    same.revive(3)
    assert torch.equal(revived, expected)
    after = model.state_dict()
    weight = (after["logits.weight"] != before["logits.weight"]).view(2, 8, 5).all(-1)
    assert torch.equal(weight, expected)
    assert torch.equal((after["codebook"] != before["codebook"]).all(-1), expected)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in after.items())
    assert after["codebook"].abs().max() <= 1
    assert model.usage.sum() == 0
    model(x, present, 1.0, generator())
    assert (model.usage > 0)[revived].sum() >= 3


def test_a_collapsed_group_is_drawn_anew_whole() -> None:
    """Of the group in which one code wins everywhere nothing stays, that code included; the other keeps what it uses.

    With the winner left in place the fresh codes would never come up: afterwards several do.
    """
    model = quantizer()
    x, present = frames(8, 50)
    model.logits.bias.data[3] = 1000.0
    model(x, present, 1.0, generator())
    before, used = model.codebook.detach().clone(), model.usage > 0
    assert used[0].sum() == 1
    assert used[1].sum() > 3
    revived = model.revive(1)
    assert revived[0].all()
    assert torch.equal(revived[1], ~used[1])
    assert (model.codebook[0] != before[0]).all()
    assert torch.equal(model.codebook[1][used[1]], before[1][used[1]])
    assert not model.logits.bias[:8].any()
    model(x, present, 1.0, generator())
    assert (model.usage[0] > 0).sum() > 3


@pytest.mark.parametrize(("often", "whole"), [(1000, True), (1, False)])
def test_a_group_in_fair_use_keeps_its_codes(often: int, whole: bool) -> None:
    """Two codes of eight used alike are few, but no collapse; nearly always the same one is."""
    model = quantizer()
    model.usage[:, :2] = torch.tensor([float(often), 1.0])
    assert bool(model.revive(1)[:, 0].all()) == whole
