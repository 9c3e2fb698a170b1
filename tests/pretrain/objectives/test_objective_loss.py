"""Similarity, temperature, InfoNCE and diversity, each against a plain reference."""

from __future__ import annotations

import math

import pytest
import torch
from objective_data import generator, targets
from torch import Tensor
from torch.nn import functional as F

from pretrain.objectives.diversity import codebook_metrics, diversity, perplexity
from pretrain.objectives.infonce import Candidates, infonce
from pretrain.objectives.similarity import SIMILARITIES, paired
from pretrain.objectives.temperature import LEAST, Temperature, TemperatureSettings


def plain(name: str, x: Tensor, y: Tensor) -> Tensor:
    """Similarity of two vectors, as the textbook writes it."""
    if name == "cosine":
        return F.cosine_similarity(x, y, dim=0)
    return x @ y if name == "dot" else -((x - y) ** 2).sum()


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean"])
def test_similarities_equal_a_plain_reference(name: str) -> None:
    """The matrix, and each vector with its own."""
    x, y = torch.randn(2, 2, 4, 6, generator=generator(), dtype=torch.float64)
    matrix = SIMILARITIES[name](x, y)
    expected = torch.stack([plain(name, x[b, i], y[b, j]) for b in range(2) for i in range(4) for j in range(4)])
    torch.testing.assert_close(matrix.flatten(), expected)
    torch.testing.assert_close(paired(SIMILARITIES[name], x, y), matrix.diagonal(dim1=1, dim2=2))


def test_temperatures() -> None:
    """Fixed stays, annealed falls linearly from 0.5 to 0.05, learned is a weight that stays within bounds."""
    assert [Temperature(TemperatureSettings())(share) for share in (0.0, 1.0)] == [0.1, 0.1]
    annealed = Temperature(TemperatureSettings(kind="annealed"))
    assert [annealed(share) for share in (0.0, 0.5, 1.0, 1.5)] == pytest.approx([0.5, 0.275, 0.05, 0.05])
    learned = Temperature(TemperatureSettings(kind="learned"))
    assert learned.logarithm is not None
    assert learned(0.5).item() == pytest.approx(0.1)
    learned(0.5).backward()
    assert learned.logarithm.grad is not None
    assert learned.logarithm.grad.item() == pytest.approx(0.1)
    learned.logarithm.data.fill_(-20.0)
    learned.bound()
    assert learned(0.0).item() == pytest.approx(LEAST)


def test_infonce_equals_a_plain_reference() -> None:
    """Loss, accuracy, bound and valid negatives, one frame at a time."""
    given = targets((9, 4, 1, 0))
    shape = given.present.shape
    candidates = Candidates(
        torch.randn(shape, generator=generator(1)),
        torch.randn(*shape, 7, generator=generator(2)),
        (torch.rand(*shape, 7, generator=generator(3)) < 0.4) & given.present[..., None],
    )
    contrast = infonce(candidates, 0.3, given.present)
    loss, correct, negatives, bound = 0.0, 0, 0, 0.0
    for row, frame in given.present.nonzero().tolist():
        positive = candidates.positive[row, frame].item()
        others = candidates.negatives[row, frame][candidates.kept[row, frame]].tolist()
        each = -math.log(math.exp(positive / 0.3) / sum(math.exp(s / 0.3) for s in [positive, *others]))
        loss, bound = loss + each, bound + math.log(1 + len(others)) - each
        correct, negatives = correct + (bool(others) and positive > max(others)), negatives + len(others)
    expected = {"loss_sum": loss, "count": 14, "correct": correct, "valid_negatives": negatives, "bound": bound}
    found = {name: value.item() for name, value in contrast.statistics().items()}
    assert found == pytest.approx(expected, rel=1e-5)


def test_frames_without_negatives_give_zero_loss_and_gradient_and_are_not_correct() -> None:
    """A collapsed codebook must read as failure, and never as NaN."""
    positive = torch.zeros(2, 3, requires_grad=True)
    nothing = torch.zeros(2, 3, 4, dtype=torch.bool)
    candidates = Candidates(positive, torch.zeros(2, 3, 4, requires_grad=True), nothing)
    contrast = infonce(candidates, 0.1, torch.ones(2, 3, dtype=torch.bool))
    contrast.loss_sum.backward()
    assert [value.item() for value in contrast.statistics().values()] == [0, 6, 0, 0, 0]
    assert torch.equal(positive.grad, torch.zeros(2, 3))
    assert torch.equal(candidates.negatives.grad, torch.zeros(2, 3, 4))


def test_diversity_equals_the_formula() -> None:
    """(G V - sum over groups of exp H(mean softmax)) / (G V), with gradient, on the noise-free mean."""
    logits = torch.randn(30, 2, 8, generator=generator(), dtype=torch.float64, requires_grad=True)
    softmax = logits.softmax(-1)
    spread = diversity(softmax.sum(0), torch.tensor(30.0, dtype=torch.float64), across_ranks=False)
    mean = softmax.mean(0)
    expected = (16 - torch.exp(-(mean * mean.log()).sum(-1)).sum()) / 16
    torch.testing.assert_close(spread.value, expected.detach())
    torch.testing.assert_close(spread.total, 30 * expected)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (spread.total, 30 * expected))
    torch.testing.assert_close(ours, theirs)


def test_diversity_asks_for_no_more_codes_than_it_is_told_to() -> None:
    """Below the share the loss is the formula's less a constant, with the same gradient; beyond it there is neither."""
    torch.manual_seed(0)
    logits = torch.randn(30, 2, 8, dtype=torch.float64, requires_grad=True)
    count = torch.tensor(30.0, dtype=torch.float64)
    used = float(perplexity(logits.detach().softmax(-1).mean(0)).sum() / 16)
    gradients = {}
    for until in (1.0, used + 0.01, used - 0.01):
        spread = diversity(logits.softmax(-1).sum(0), count, False, until)
        assert float(spread.value) == pytest.approx(1 - used)
        assert float(spread.total.detach()) == pytest.approx(30 * max(0.0, until - used))
        gradients[until] = torch.autograd.grad(spread.total, logits)[0]
    whole, below, beyond = gradients.values()
    assert torch.equal(whole, below)
    assert whole.any()
    assert not beyond.any()


def test_the_weight_of_diversity_does_not_depend_on_the_batch() -> None:
    """Twice the same frames: twice the sum, so the same share of a loss that is a sum over frames."""
    soft = torch.rand(2, 8, generator=generator())
    once, twice = (diversity(n * soft, torch.tensor(n * 10.0), across_ranks=False) for n in (1, 2))
    torch.testing.assert_close(once.value, twice.value)
    torch.testing.assert_close(2 * once.total, twice.total)


def test_perplexity_runs_from_one_to_all_codes() -> None:
    """One code: 1; all alike: V; and codes of probability zero leave the gradient finite."""
    one = torch.tensor([[1.0, 0, 0, 0], [0.25] * 4], requires_grad=True)
    found = perplexity(one)
    assert found.tolist() == pytest.approx([1, 4])
    found.sum().backward()
    assert one.grad is not None
    assert one.grad.isfinite().all()


def test_soft_and_hard_perplexity_are_told_apart() -> None:
    """Undecided probabilities that always favour one code: soft near V, hard one; with the dead codes counted."""
    probabilities = torch.tensor([0.28, 0.24, 0.24, 0.24]).repeat(2, 1)
    hard = torch.tensor([[10.0, 0, 0, 0], [5, 5, 0, 0]])
    found = codebook_metrics(10 * probabilities, hard, torch.tensor(10.0))
    assert found["soft_perplexity"] > 7.9
    assert [found[f"hard_perplexity{key}"].item() for key in ("_0", "_1", "")] == pytest.approx([1, 2, 3])
    assert [found[f"dead_codes{key}"].item() for key in ("_0", "_1", "")] == [3, 2, 5]
