"""Soft labels and the loss: distributions, the look-ahead, and what does not count."""

from __future__ import annotations

import torch
from training_data import generator, windows

from pretrain.bank import UNSEEN
from pretrain.labels import ONSET_WEIGHT, WIDTH_S, pick_loss, soft_labels

LOOKAHEAD = 64


def late(target: torch.Tensor, by: int) -> torch.Tensor:
    """Logits of a model that says ``target`` ``by`` samples late."""
    return torch.roll(target, by, dims=-1).clamp(min=1e-6).log()


def test_targets_are_distributions_that_peak_at_the_onsets() -> None:
    """P, S and noise sum to one everywhere and are never negative; far from onsets it is all noise."""
    target = soft_labels(windows(2, labels=[(0, 100.0), (1, 300.0)]))
    torch.testing.assert_close(target.sum(1), torch.ones(2, 512))
    assert target.min() >= 0
    assert target.argmax(-1)[:, :2].tolist() == [[100, 300]] * 2
    assert target[0, :2, [100, 300]].diagonal().tolist() == [1.0, 1.0]
    assert target[0, 2, 200] == 1
    for phase, (onset, width_s) in enumerate(zip((100, 300), WIDTH_S.values(), strict=True)):
        sigma = round(width_s * 100)
        torch.testing.assert_close(target[0, phase, onset + sigma], torch.tensor(-0.5).exp())


def test_an_onset_between_two_samples_lifts_both_alike() -> None:
    """Labels keep their fraction."""
    target = soft_labels(windows(1, labels=[(0, 100.5)]))[0, 0]
    assert target[100] == target[101] == target.max()


def test_labels_that_are_not_there_leave_only_noise() -> None:
    """An unseen label, or one beyond the window, is no onset."""
    for position in (UNSEEN, -200.0, 900.0):
        target = soft_labels(windows(1, labels=[(0, position), (1, position)]))
        assert (target[:, 2] == 1).all()


def test_an_s_just_after_its_p_leaves_a_distribution() -> None:
    """0.2 s apart the curves overlap: still P before S, nothing negative, a sum of one."""
    target = soft_labels(windows(1, labels=[(0, 100.0), (1, 120.0)]))[0]
    torch.testing.assert_close(target.sum(0), torch.ones(512))
    assert target.min() >= 0
    assert target[0, 100] > 0.7 > 0.3 > target[1, 100]
    assert target[1, 120] > 0.9
    at_once = soft_labels(windows(1, labels=[(0, 100.0), (1, 100.0)]))[0]
    assert at_once[:, 100].tolist() == [0.5, 0.5, 0.0]


def test_of_two_events_in_a_window_each_onset_has_its_peak() -> None:
    """The nearest label of a phase decides."""
    target = soft_labels(windows(1, labels=[(0, 100.0), (0, 400.0), (1, 130.0), (1, 450.0)]))[0]
    assert target[0, 100] > 0.9
    assert target[0, 400] > 0.99
    assert target[1, 450] == 1


def test_the_loss_wants_the_answer_late_by_the_look_ahead() -> None:
    """The right answer 64 samples late costs least: less than on time, than a little early, than a little late."""
    batch = windows(4, labels=[(0, 100.0), (1, 300.0)])
    target = soft_labels(batch)
    cost = {by: pick_loss(late(target, by), batch, LOOKAHEAD).item() for by in (0, 54, 63, 64, 65, 74)}
    assert min(cost, key=cost.__getitem__) == LOOKAHEAD
    assert cost[64] < 0.2 * cost[0]


def test_what_no_output_speaks_of_yet_costs_nothing() -> None:
    """The first outputs speak of time before the window: whatever they say is free; so are labels at the very end."""
    batch = windows(4, labels=[(0, 100.0)])
    logits = torch.randn(4, 3, 512, generator=generator())
    other = logits.clone()
    other[..., :LOOKAHEAD] = 50.0 * torch.randn(4, 3, LOOKAHEAD, generator=generator(1))
    assert pick_loss(logits, batch, LOOKAHEAD) == pick_loss(other, batch, LOOKAHEAD)
    other[..., LOOKAHEAD] += torch.tensor([3.0, 0.0, 0.0])[:, None].T
    assert pick_loss(logits, batch, LOOKAHEAD) != pick_loss(other, batch, LOOKAHEAD)
    end = windows(4, labels=[(0, 100.0), (1, 505.0)])
    far = windows(4, labels=[(0, 100.0), (1, UNSEEN)])
    end_loss, far_loss = pick_loss(logits, end, LOOKAHEAD), pick_loss(logits, far, LOOKAHEAD)
    torch.testing.assert_close(end_loss, far_loss)


def test_samples_without_trust_or_without_any_valid_component_do_not_count() -> None:
    """They change neither loss nor gradient; one valid component is enough to count."""
    batch = windows(2, labels=[(0, 100.0)])
    trust, valid = batch.trust.clone(), batch.valid.clone()
    trust[:, 200:300] = 0
    valid[:, :, 350:400] = False
    valid[:, 1:, 400:] = False
    partly = batch.but(trust=trust, valid=valid)
    logits = torch.randn(2, 3, 512, generator=generator()).requires_grad_()
    pick_loss(logits, partly, LOOKAHEAD).backward()
    assert logits.grad is not None
    counted = logits.grad.abs().sum(1) > 0
    expected = torch.ones(512, dtype=torch.bool)
    for start, stop in ((0, 0), (200, 300), (350, 400)):
        expected[start + LOOKAHEAD : stop + LOOKAHEAD] = False
    expected[:LOOKAHEAD] = False
    assert torch.equal(counted, expected.expand(2, -1))


def test_trust_weighs_and_onsets_weigh_more() -> None:
    """Half the trust, half the pull; at an onset ``ONSET_WEIGHT`` times the pull of a sample of noise."""
    batch = windows(1, labels=[(0, 200.0)])
    trust = batch.trust.clone()
    trust[:, 400] = 0.5
    logits = torch.zeros(1, 3, 512, requires_grad=True)
    pick_loss(logits, batch.but(trust=trust), LOOKAHEAD).backward()
    assert logits.grad is not None
    pull = logits.grad[0].abs().sum(0).roll(-LOOKAHEAD)
    torch.testing.assert_close(pull[400], pull[399] / 2)
    torch.testing.assert_close(pull[200], pull[399] * ONSET_WEIGHT)


def test_a_batch_with_nothing_valid_costs_nothing_and_leaves_a_finite_gradient() -> None:
    """Nothing divides by zero, even where the logits are far out."""
    batch = windows(2, labels=[(0, 100.0)])
    logits = (1e4 * torch.randn(2, 3, 512, generator=generator())).requires_grad_()
    loss = pick_loss(logits, batch.but(valid=torch.zeros_like(batch.valid)), LOOKAHEAD)
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_loss_is_float32_for_half_precision_logits() -> None:
    """A bfloat16 model is judged in float32."""
    batch = windows(2, labels=[(0, 100.0)])
    logits = torch.randn(2, 3, 512, generator=generator()).bfloat16()
    loss = pick_loss(logits, batch, LOOKAHEAD)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, pick_loss(logits.float(), batch, LOOKAHEAD))
