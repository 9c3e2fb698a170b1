"""The contrastive objective as a whole: against a plain reference, its gradients, its size, and collapse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from objective_data import ROWS, TINY, contrastive, generator, gradients, rows_of, tape, uneven, windows
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.objectives import contrastive as module
from pretrain.objectives import draws
from pretrain.objectives.contrastive import Contrastive, ContrastiveSettings
from pretrain.objectives.diversity import perplexity
from pretrain.objectives.gradient import scale_gradient
from pretrain.objectives.objective import Batch, Outcome, Progress
from pretrain.selfsupervised.monitor.alarms import Alarms, AlarmSettings


def numbers(objective: Contrastive, outcome: Outcome) -> dict[str, float]:
    """The metrics of one batch."""
    return {name: value.item() for name, value in objective.metrics(outcome.statistics).items()}


@pytest.mark.parametrize("delay", [0, 4, 8, 16])
def test_the_loss_equals_a_plain_reference(delay: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frame by frame, with all frames of the row that have another code as negatives; read ``delay`` frames later."""
    objective = contrastive(negatives={"kind": "hard", "count": 1000}, delays=(delay,)).eval()
    batch, masks = windows(2), []
    monkeypatch.setattr(module, "span_mask", lambda *a: masks.append(original(*a)) or masks[-1])
    outcome = objective(batch, Progress(), generator())
    (mask,) = masks
    backbone = objective.backbone
    tokens = backbone.tokens(backbone.features(batch.waveform, batch.valid))
    context = backbone.context(torch.where(mask[..., None], objective.mask_embedding, tokens))
    predicted = objective.project_context(objective.context_norm(context))
    codes = objective.codes(batch)
    rows = [objective.quantizer.codebook[group, codes[..., group]] for group in range(2)]
    target = objective.project_target(torch.cat(rows, -1))
    loss, count = 0.0, 0
    for row, frame in mask.nonzero().tolist():
        if frame + delay >= mask.shape[1]:
            continue
        others = [t for t in mask[row].nonzero().flatten().tolist() if t + delay < mask.shape[1]]
        negatives = [t for t in others if not torch.equal(codes[row, t], codes[row, frame])]
        similar = F.cosine_similarity(predicted[row, frame + delay], target[row, [frame, *negatives]]) / 0.1
        loss, count = loss - similar.log_softmax(0)[0].item(), count + 1
    assert outcome.count.item() == count
    assert outcome.loss_sum.item() == pytest.approx(loss, rel=1e-4)
    square = tokens[mask & (torch.arange(mask.shape[1]) < mask.shape[1] - delay)].square().mean(-1).sum().item()
    assert outcome.extras["penalty"].item() == pytest.approx(square, rel=1e-4)
    assert numbers(objective, outcome)["delay"] == delay


original = module.span_mask


def test_delays_are_drawn_among_those_that_the_lookahead_covers() -> None:
    """All of 0, 4, 8 and 16 tokens come up; a picker with less look-ahead is pretrained with less."""
    objective = contrastive()
    stream = generator()
    seen = {numbers(objective, objective(windows(1, 256), Progress(), stream))["delay"] for _ in range(40)}
    assert seen == {0, 4, 8, 16}
    assert contrastive().delays == (0, 4, 8, 16)
    short = Contrastive(module_config(lookahead_samples=32), ContrastiveSettings())
    assert short.delays == (0, 4, 8)


def module_config(**changes: Any) -> Any:
    """The tiny network with some changes."""
    return type(TINY)(**{**{k: getattr(TINY, k) for k in TINY.__dataclass_fields__}, **changes})


@pytest.mark.parametrize("kind", ["same_recording", "across_recordings", "hard", "memory_bank"])
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_every_weight_learns(kind: str, similarity: str) -> None:
    """With every strategy and similarity each parameter, the codebook among them, has a gradient that is not zero."""
    temperature = {"kind": "learned"}
    objective = contrastive(negatives={"kind": kind, "count": 10}, similarity=similarity, temperature=temperature)
    outcome = objective(windows(), Progress(), generator())
    (outcome.total / outcome.count).backward()
    for name, gradient in gradients(objective).items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name
    codebook = objective.quantizer.codebook.grad
    assert codebook is not None
    assert (codebook.abs().sum(-1) > 0).sum() >= 4


def test_targets_come_from_unmasked_features() -> None:
    """The encoder gets gradient through the targets too: without the context's share some is left."""
    objective = contrastive(delays=(0,), diversity_weight=0.0, penalty_weight=0.0)
    objective.project_context.weight.data.zero_()
    outcome = objective(windows(), Progress(), generator())
    outcome.total.backward()
    assert gradients(objective)["backbone.encoder.first.conv.weight"].abs().sum() > 0


def test_the_scaled_gradient_is_the_identity_forward() -> None:
    """To the last bit, in bf16 too; backward it is a factor."""
    x = torch.randn(50).bfloat16().requires_grad_()
    y = scale_gradient(x, 0.1)
    assert torch.equal(x, y)
    y.float().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.1))


def test_accumulation_of_one_by_eight_and_two_by_four_gives_equal_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder included: its factor holds once a step. Without diversity, which is of the mean of a micro-batch."""
    found, batch = [], uneven()
    for size in (8, 4):
        objective = contrastive(diversity_weight=0.0).double()
        count = torch.zeros((), dtype=torch.float64)
        for start in range(0, ROWS, size):
            rows = slice(start, start + size)
            monkeypatch.setattr(draws, "uniform", tape(rows))
            outcome = objective(rows_of(batch, rows), Progress(), generator())
            outcome.total.backward()
            count += outcome.count
        found.append({name: gradient / count for name, gradient in gradients(objective).items()})
    whole, halves = found
    torch.testing.assert_close(whole, halves, rtol=1e-9, atol=1e-12)
    monkeypatch.setattr(draws, "uniform", tape(slice(0, 8)))
    plain = contrastive(diversity_weight=0.0, encoder_gradient=1.0).double()
    outcome = plain(batch, Progress(), generator())
    outcome.total.backward()
    key = "backbone.encoder.first.conv.weight"
    torch.testing.assert_close(whole[key], 0.1 * gradients(plain)[key] / outcome.count)
    torch.testing.assert_close(whole["backbone.late.weight"], gradients(plain)["backbone.late.weight"] / outcome.count)


def test_the_weight_of_the_extras_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same windows twice: twice the count, the loss and each extra."""
    objective, batch = contrastive(quantizer={"codes": 4, "size": 8}).eval(), windows(2)
    double = Batch(batch.waveform.repeat(2, 1, 1), batch.valid.repeat(2, 1, 1))
    mask = original(torch.ones(2, 128, dtype=torch.bool), objective.settings.mask, generator())
    monkeypatch.setattr(module, "span_mask", lambda frames, *_: mask.repeat(len(frames) // 2, 1))
    objective.delays = (0,)
    once, twice = (objective(b, Progress(), generator()) for b in (batch, double))
    assert twice.count == 2 * once.count
    for name, extra in once.extras.items():
        torch.testing.assert_close(twice.extras[name], 2 * extra)


class Largest(TorchDispatchMode):
    """Watches how large any tensor gets."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Runs the operation; views with stride zero hold nothing."""
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("kind", ["same_recording", "across_recordings", "hard", "memory_bank"])
def test_nothing_is_as_large_as_stored_negatives_or_one_hot_times_codebook(kind: str) -> None:
    """Forward and backward, no tensor comes near B x T x K x D or B x T x G V x D elements."""
    objective = contrastive(
        negatives={"kind": kind, "count": 60, "pool": 256},
        quantizer={"groups": 2, "codes": 160, "size": 64},
        projection=64,
    )
    batch = windows(4, 1024)
    with Largest() as watch:
        objective(batch, Progress(), generator()).total.backward()
    frames = 4 * 256
    assert 0 < watch.elements <= frames * 2 * 160
    assert watch.elements < frames * 60 * 64 / 10


def test_one_code_raises_the_alarms_and_no_nan() -> None:
    """A dead input and a one-code quantizer: finite, no valid negatives, accuracy zero, and it is said."""
    objective = contrastive()
    for group in range(2):
        objective.quantizer.logits.bias.data.view(2, 8)[group, 3] = 1e4
    outcome = objective(windows(), Progress(), generator())
    outcome.total.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(objective).values())
    found = numbers(objective, outcome)
    assert (found["loss"], found["valid_negatives"], found["accuracy"]) == (0, 0, 0)
    assert (found["soft_perplexity"], found["hard_perplexity"]) == pytest.approx((2, 2))
    assert found["dead_codes"] == 14
    assert found["frames"] > 100
    alarms = Alarms(AlarmSettings(patience=1), groups=2, codes=16).check(1, found)
    assert [any(word in text for text in alarms) for word in ("collapsed", "tell apart", "0.00 valid")] == [True] * 3
    still = Batch(torch.full((2, 3, 256), 5.0), torch.ones(2, 3, 256, dtype=torch.bool))
    healthy = contrastive()
    outcome = healthy(still, Progress(), generator())
    assert outcome.total.isfinite()


def test_windows_without_data_count_for_nothing() -> None:
    """All gaps, and NaN or absurd samples, which the network takes as gaps: count zero and finite gradients."""
    objective = contrastive()
    waveform = torch.full((2, 3, 256), torch.nan)
    waveform[1] = 1e20
    outcome = objective(Batch(waveform, torch.ones(2, 3, 256, dtype=torch.bool)), Progress(), generator())
    assert (outcome.count.item(), outcome.total.item()) == (0, 0)
    outcome.total.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(objective).values())
    assert all(value.isfinite().all() for value in objective.metrics(outcome.statistics).values())


def test_validation_repeats_and_statistics_add_up() -> None:
    """Same seed, same figures in evaluation; sums of two batches are the figures of both together."""
    objective = contrastive().eval()
    first, again = (objective(windows(), Progress(), generator(4)).statistics for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = objective(windows(2, seed=9), Progress(), generator(5)).statistics
    both = objective.metrics({name: value + other[name] for name, value in first.items()})
    assert both["frames"] == first["count"] + other["count"]
    loss = (first["loss_sum"] + other["loss_sum"]) / (first["count"] + other["count"])
    torch.testing.assert_close(both["loss"], loss)
    used = (first["hard"] + other["hard"]) / (first["count"] + other["count"])
    torch.testing.assert_close(both["hard_perplexity"], perplexity(used).sum())
    assert objective.quantizer.usage.sum() == 0


def test_losses_stay_float32_under_autocast() -> None:
    """As bf16-mixed training runs it: sums and gradients in float32, and near those without autocast."""
    plain = contrastive()(windows(), Progress(), generator())
    objective = contrastive()
    with torch.autocast("cpu", torch.bfloat16):
        outcome = objective(windows(), Progress(), generator())
    outcome.total.backward()
    assert {outcome.loss_sum.dtype, outcome.total.dtype, outcome.count.dtype} == {torch.float32}
    assert outcome.count == plain.count
    assert outcome.loss_sum.item() == pytest.approx(plain.loss_sum.item(), rel=0.05)
    assert all(gradient.isfinite().all() for gradient in gradients(objective).values())


def test_after_a_step_dead_codes_are_revived_when_it_is_time() -> None:
    """At multiples of ``revive_every`` only."""
    objective = contrastive(revive_every=10)
    objective.quantizer.logits.bias.data.view(2, 8)[:, :3] = -1e4
    objective(windows(), Progress(), generator())
    assert objective.after_step(Progress(step=9)) == {}
    assert objective.after_step(Progress(step=10))["revived_codes"] >= 6


def test_a_short_run_learns() -> None:
    """Sweeping tones, fixed codes: a masked frame is told from negatives three times as often as by chance."""
    objective = contrastive(negatives={"count": 20}, delays=(16,), mask={"share": 0.3}, diversity_weight=0.0)
    objective.quantizer.requires_grad_(False)
    objective.backbone.encoder.requires_grad_(False)
    time = torch.arange(512) / 100
    waveform = torch.stack([torch.sin(6.28 * 0.4 * time * (1 + 0.3 * time) + row) for row in range(4)])
    batch = Batch(waveform[:, None].repeat(1, 3, 1), torch.ones(4, 3, 512, dtype=torch.bool))
    learning = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer, stream, found = torch.optim.AdamW(learning, lr=5e-3), generator(), []
    for step in range(60):
        outcome = objective(batch, Progress(step, step / 60), stream)
        optimizer.zero_grad()
        (outcome.total / outcome.count).backward()
        optimizer.step()
        objective.after_step(Progress(step + 1, step / 60))
        found.append(numbers(objective, outcome))
    assert sum(f["accuracy"] for f in found[-10:]) / 10 > 3 / 21
    assert sum(f["loss"] for f in found[-10:]) < 0.95 * sum(f["loss"] for f in found[5:15])
