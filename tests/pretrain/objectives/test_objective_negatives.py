"""Negatives: which frames they may be, and their similarities against plain references."""

from __future__ import annotations

import pytest
import torch
from objective_data import generator, targets
from torch import Tensor

from pretrain.objectives.infonce import Candidates
from pretrain.objectives.negatives import STRATEGIES, MemoryBank, NegativeSettings, Strategy, Targets, draw_others
from pretrain.objectives.similarity import SIMILARITIES, dot

KINDS = sorted(STRATEGIES)


def strategy(kind: str, **changes: int) -> Strategy:
    """A strategy of five negatives that compares by inner products."""
    settings = NegativeSettings.model_validate({"kind": kind, "count": 5, "pool": 20, "bank": 12} | changes)
    return STRATEGIES[kind](settings, 6, dot)


def identified(given: Targets) -> Targets:
    """Targets that can be told from a similarity: flat frame f has the vector (f, 0, ...), and each its own code."""
    number = torch.arange(given.present.numel()).view_as(given.present)
    vectors = torch.zeros_like(given.vectors)
    vectors[..., 0] = number
    return Targets(vectors, number, given.present)


def ones(given: Targets) -> Tensor:
    """Predictions whose inner product with an identified target is its number."""
    predictions = torch.zeros_like(given.vectors)
    predictions[..., 0] = 1
    return predictions


def drawn(kind: str, given: Targets, seed: int = 0) -> Candidates:
    """What a strategy draws, similarities being frame numbers."""
    return strategy(kind)(ones(given), given, generator(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_negatives_are_other_masked_frames(kind: str) -> None:
    """For every frame: never itself, always a masked frame, of the same recording unless the kind says otherwise."""
    given = identified(targets())
    rows, most = given.present.shape
    crossed = False
    for seed in range(20):
        candidates = drawn(kind, given, seed)
        assert torch.equal(candidates.positive.long(), given.codes)
        for row in range(rows):
            for frame in range(most):
                chosen = candidates.negatives[row, frame][candidates.kept[row, frame]].long()
                assert (chosen != row * most + frame).all()
                assert given.present.flatten()[chosen].all()
                crossed |= bool((chosen // most != row).any())
                if not given.present[row, frame]:
                    assert not len(chosen)
    assert crossed == (kind in ("across_recordings", "memory_bank"))


@pytest.mark.parametrize("kind", ["same_recording", "across_recordings"])
def test_every_other_frame_is_drawn_alike(kind: str) -> None:
    """Over many draws each allowed negative of a frame comes up about equally often."""
    given = identified(targets())
    counts = torch.zeros(given.present.numel())
    for seed in range(400):
        candidates = drawn(kind, given, seed)
        assert candidates.kept[0, 3].all()
        counts.index_add_(0, candidates.negatives[0, 3].long(), torch.ones(5))
    others = given.present.clone()
    others[0, 3] = False
    if kind == "same_recording":
        others[1:] = False
    often = counts[others.flatten()]
    assert counts.sum() == often.sum() == 2000
    assert (often - often.mean()).abs().max() < 5 * often.mean().sqrt()


@pytest.mark.parametrize("kind", KINDS)
def test_a_negative_with_the_code_of_the_positive_is_none(kind: str) -> None:
    """By code number, not by vector: equal vectors of other codes stay, other vectors of the same code go."""
    given = identified(targets((9, 9)))
    codes = given.codes % 3
    candidates = strategy(kind)(ones(given), Targets(given.vectors, codes, given.present), generator())
    chosen = codes.flatten()[candidates.negatives.long()]
    same = chosen == codes[..., None]
    assert torch.equal(candidates.kept, ~same)
    assert kind == "hard" or same.any()
    alike = Targets(torch.zeros_like(given.vectors), given.codes, given.present)
    assert strategy(kind)(ones(given), alike, generator()).kept.sum() >= 4 * given.present.numel()


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_masked_frames(kind: str) -> None:
    """A batch with one masked frame, and one with none, has no negatives and breaks nothing."""
    for counts in ((1,), (0,)):
        given = identified(targets(counts))
        candidates = drawn(kind, given)
        assert not candidates.kept.any()
        assert candidates.negatives.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("similarity", sorted(SIMILARITIES))
def test_similarities_are_of_the_frames_own_prediction(kind: str, similarity: str) -> None:
    """Against a plain loop: the positive is that of prediction and own target, each negative that of the same
    prediction and an allowed target, and all allowed targets come up where there are many draws."""
    given = identified(targets((6, 4)))._replace(vectors=torch.randn(2, 9, 6, generator=generator(7)))
    predictions = torch.randn(2, 9, 6, generator=generator(8))
    alike = SIMILARITIES[similarity]
    settings = NegativeSettings.model_validate({"kind": kind, "count": 200, "pool": 40, "bank": 12})
    found = STRATEGIES[kind](settings, 6, alike)(predictions, given, generator(9))
    for row, frame in given.present.nonzero().tolist():
        mine = predictions[row, frame][None]
        torch.testing.assert_close(found.positive[row, frame], alike(mine, given.vectors[row, frame][None])[0, 0])
        allowed = given.present.clone() if kind in ("across_recordings", "memory_bank") else given.present & False
        allowed[row] = given.present[row]
        allowed[row, frame] = False
        expected = alike(mine, given.vectors[allowed])[0].sort().values
        kept = found.negatives[row, frame][found.kept[row, frame]]
        distinct = kept.sort().values[torch.diff(kept.sort().values, prepend=torch.tensor([-1e9])) > 1e-4]
        torch.testing.assert_close(distinct, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("similarity", sorted(SIMILARITIES))
def test_hard_negatives_equal_a_plain_reference(similarity: str) -> None:
    """The most similar of the row's masked frames with another code, one frame at a time."""
    given = targets((9, 6))
    predictions = torch.randn(given.vectors.shape, generator=generator(5))
    hard = STRATEGIES["hard"](NegativeSettings(kind="hard", count=3), 6, SIMILARITIES[similarity])
    candidates = hard(predictions, given, generator())
    for row, frame in given.present.nonzero().tolist():
        others = given.present[row] & (given.codes[row] != given.codes[row, frame])
        values = SIMILARITIES[similarity](predictions[row, frame][None], given.vectors[row][others])[0]
        expected = values.sort(descending=True).values[:3]
        found = candidates.negatives[row, frame][candidates.kept[row, frame]]
        torch.testing.assert_close(found, expected)


def test_numbers_below_a_count_never_hit_the_own() -> None:
    """Also where rounding would reach the count, where nothing is left, and where the own is not among them."""
    count, own = torch.tensor([[3], [1], [0], [2]]), torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 7]])
    for seed in range(20):
        number, some = draw_others(count, own, 50, generator(seed))
        assert ((number < count[..., None]) | ~some).all()
        assert ((number != own[..., None]) | ~some).all()
    assert some[..., 0].tolist() == [[True] * 3, [False, True, True], [False] * 3, [True] * 3]


def test_the_bank_gives_earlier_targets_and_forgets_the_oldest() -> None:
    """Filled once a step, in training only; then negatives come from it alone, with the codes they had."""
    bank = strategy("memory_bank", pool=8)
    assert isinstance(bank, MemoryBank)
    given = identified(targets((4, 3), most=4))
    bank(ones(given), given, generator())
    assert bank.filled == 0
    bank.after_step()
    assert (bank.filled, bank.cursor) == (7, 7)
    assert sorted(bank.codes[:7].tolist()) == [0, 1, 2, 3, 4, 5, 6]
    later = Targets(given.vectors + 100, given.codes + 100, given.present)
    candidates = bank(ones(given), later, generator(1))
    assert set(candidates.negatives[candidates.kept].tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0}
    same = bank(ones(given), given, generator(1))
    assert same.kept.sum() < candidates.kept.sum()
    assert not bank.codes[7:].any()
    bank.waiting.pop()
    bank.after_step()
    assert (bank.filled, bank.cursor) == (12, 2)
    assert sorted(bank.codes.tolist()) == sorted([*bank.codes[2:7].tolist(), *range(100, 107)])
    bank.eval()(ones(given), given, generator())
    assert not bank.waiting
