"""The trainer's step: exact sums, rates, decay, skipped steps, and draws that follow from the step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pretraining_run import CPU, Rows, gradients, settings, trainer, weights
from torch import Tensor, nn

from picker.errors import ConfigError, OnsetError
from picker.model.block import MLSTMBlock
from picker.model.unet import Pool, Unpool
from pretrain.objectives import contrastive, draws
from pretrain.objectives.objective import Batch, Progress
from pretrain.selfsupervised.launch import compute_twice, ready_objective
from pretrain.selfsupervised.optimizer import Optimizer, rate_share

EXACT: dict[str, Any] = {"precision": "64-true", "batch": 8, "clip": 1e9}


@pytest.fixture(autouse=True)
def _own_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources of fixed windows put a tape in the place of the draws: take it out again."""
    monkeypatch.setattr(draws, "uniform", draws.uniform)


def one_step(accumulate: int, **objective: Any) -> dict[str, Tensor]:
    """Gradients of a step over eight windows in so many micro-batches."""
    asked = settings(
        model={"dropout": 0.0},
        objective={"dropout": 0.0, "encoder_gradient": 0.3, **objective},
        training={**EXACT, "accumulate": accumulate},
    )
    made = trainer(asked, Rows(accumulate))
    made.step()
    return gradients(made)


def test_micro_batches_add_up() -> None:
    """1 x 8, 2 x 4 and 4 x 2 windows give the same gradients, that of the scaled encoder included.

    The diversity is left out: it speaks of how a micro-batch as a whole uses the codebook.
    """
    whole = one_step(1, diversity_weight=0.0)
    assert all(gradient.abs().max() > 0 for gradient in whole.values())
    for accumulate in (2, 4):
        torch.testing.assert_close(one_step(accumulate, diversity_weight=0.0), whole, rtol=1e-6, atol=1e-9)


def test_the_encoder_is_scaled_once() -> None:
    """Half the factor, half the gradient of the encoder, in one micro-batch and in four."""
    for accumulate in (1, 4):
        small, large = (
            one_step(accumulate, encoder_gradient=factor, penalty_weight=0.0, diversity_weight=0.0)
            for factor in (0.25, 0.5)
        )
        for name, gradient in large.items():
            factor = 0.5 if name.startswith("backbone.encoder") else 1.0
            torch.testing.assert_close(small[name], factor * gradient, rtol=1e-9, atol=1e-12)


def test_rates_of_every_group_at_every_step() -> None:
    """Each group, split ones included, has its share of warm-up and cosine from the first step to the last."""
    asked = settings(training={"steps": 10, "warmup": 0.2, "rate": 1e-3})
    made = trainer(asked, Rows(2, tape=False))
    names = {group["name"] for group in made.optimizer.adam.param_groups}
    assert {"backbone, gates", "backbone, pooling", "quantizer", "codebook"} <= names
    shares = [0.5, 1.0, *(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8))]
    for share in shares:
        made.step()
        for group in made.optimizer.adam.param_groups:
            of_group = 0.5 if group["name"].split(",")[0] in ("quantizer", "codebook") else 1.0
            assert group["lr"] == pytest.approx(1e-3 * of_group * share), group["name"]
    assert rate_share(1.0, 0.2, 0.1) == pytest.approx(0.01)
    assert made.share == 1.0


def test_what_decays() -> None:
    """With zero gradients a step is decay alone: matrices, but neither gates nor pooling, norms, biases, codebook."""
    asked = settings(training={"rate": 0.1, "weight_decay": 0.5})
    objective, _ = ready_objective(asked, CPU)
    for block in objective.modules():
        if isinstance(block, MLSTMBlock):
            nn.init.normal_(block.project.weight)
    optimizer = Optimizer(objective, asked.training)
    optimizer.set_rates(0.2)
    before = {name: value.clone() for name, value in objective.named_parameters()}
    for parameter in optimizer.parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(torch.tensor(False))
    gates = {f"{name}.project.weight": m.heads for name, m in objective.named_modules() if isinstance(m, MLSTMBlock)}
    pooling = {f"{name}.weight" for name, m in objective.named_modules() if isinstance(m, Pool | Unpool)}
    assert len(gates) == 4
    assert len(pooling) == 2
    for name, value in objective.named_parameters():
        rate = 0.05 if name.startswith("quantizer") else 0.1
        factor = torch.full_like(value, 1 - rate * 0.5)
        if value.ndim < 2 or name in pooling or name == "quantizer.codebook":
            factor.fill_(1.0)
        if name in gates:
            factor[-2 * gates[name] :] = 1.0
        torch.testing.assert_close(value.detach(), before[name] * factor, rtol=1e-6, atol=0, msg=name)


def test_decay_by_hand_is_that_of_adamw() -> None:
    """The rows of a projection that decay end up where AdamW's own decay brings them."""
    asked = settings(training={"weight_decay": 0.5})
    objective, _ = ready_objective(asked, CPU)
    block = next(module for module in objective.modules() if isinstance(module, MLSTMBlock))
    twin = nn.Parameter(block.project.weight.detach().clone())
    optimizer = Optimizer(objective, asked.training)
    adam = torch.optim.AdamW([twin], betas=asked.training.betas, weight_decay=0.5, fused=True)
    for step in range(3):
        optimizer.set_rates(step / 20)
        adam.param_groups[0]["lr"] = 1e-3 * rate_share(step / 20, 0.2, 1 / 20)
        twin.grad = torch.randn(twin.shape, generator=torch.Generator().manual_seed(step))
        optimizer.clear()
        block.project.weight.grad = twin.grad.clone()
        optimizer.step(torch.tensor(False))
        adam.step()
    rows = -2 * block.heads
    torch.testing.assert_close(block.project.weight[:rows], twin[:rows], rtol=1e-6, atol=0)
    assert not torch.equal(block.project.weight[rows:], twin[rows:])


def test_the_norm_is_logged_before_clipping() -> None:
    """What is logged is the norm before; what is applied has a norm of at most ``clip``."""
    made = trainer(settings(training={"clip": 0.01}), Rows(2, tape=False))
    made.step()
    values = made.figures()
    applied = torch.cat([gradient.flatten() for gradient in gradients(made).values()]).norm()
    assert values["gradient_norm"] > 0.1
    assert applied.item() == pytest.approx(0.01, rel=1e-3)


def test_a_step_that_is_not_finite_is_skipped_and_counted() -> None:
    """Weights, moments and statistics are as if it had not been, and the next step works."""
    made = trainer(settings(), Rows(2, tape=False))
    made.step()
    before, expected = weights(made), made.sums.vector
    moments = {p: {k: v.clone() for k, v in s.items()} for p, s in made.optimizer.adam.state.items()}
    poison = made.objective.backbone.late.weight.register_hook(lambda gradient: gradient * math.nan)
    made.step()
    poison.remove()
    assert made.counters.step == 2
    assert (made.counters.skipped, made.counters.in_a_row) == (1, 1)
    after = weights(made)
    parameters = dict(made.objective.named_parameters())
    assert all(torch.equal(after[name], before[name]) for name in parameters)
    for parameter, state in made.optimizer.adam.state.items():
        assert all(torch.equal(value, moments[parameter][key]) for key, value in state.items())
    torch.testing.assert_close(made.sums.vector, expected, rtol=0, atol=0)
    made.step()
    values = made.figures()
    assert not torch.equal(weights(made)["project_context.weight"], before["project_context.weight"])
    assert values["skipped_steps"] == 1
    assert made.counters.in_a_row == 0
    assert all(math.isfinite(value) for value in values.values())


def test_many_in_a_row_end_the_run() -> None:
    """The error says how many, and what to lower."""
    made = trainer(settings(monitoring={"alarms": {"stop_skipped_in_a_row": 3}}), Rows(2, tape=False))
    made.objective.backbone.late.weight.register_hook(lambda gradient: gradient * math.inf)
    made.step()
    made.step()
    with pytest.raises(OnsetError, match=r"3 steps in a row, up to step 3.*training\.rate"):
        made.step()


def test_a_batch_without_data_changes_nothing() -> None:
    """Windows without a valid sample have nothing to predict: the step is skipped, decay included."""

    class Dead(Rows):
        def batch(self, index: int) -> Batch:
            batch = super().batch(index)
            return Batch(torch.zeros_like(batch.waveform), torch.zeros_like(batch.valid))

    made = trainer(settings(), Dead(2, tape=False))
    before = weights(made)
    made.step()
    assert made.counters.skipped == 1
    assert all(torch.equal(value, before[name]) for name, value in made.objective.named_parameters())


def test_after_step_comes_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many micro-batches there are; what it returns is logged, added up."""
    made = trainer(settings(training={"accumulate": 2}), Rows(4, tape=False))
    seen: list[int] = []

    def after_step(progress: Progress) -> dict[str, Tensor]:
        seen.append(progress.step)
        return {"revived_codes": torch.tensor(2)}

    monkeypatch.setattr(made.objective, "after_step", after_step)
    made.step()
    made.step()
    assert seen == [1, 2]
    assert made.figures()["revived_codes"] == 4
    assert "revived_codes" not in made.figures()


def masks_of(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every mask that is drawn from now on, as bytes."""
    found: list[bytes] = []
    draw = contrastive.span_mask

    def span_mask(*arguments: Any) -> Tensor:
        mask = draw(*arguments)
        found.append(mask.numpy().tobytes())
        return mask

    monkeypatch.setattr(contrastive, "span_mask", span_mask)
    return found


def test_draws_follow_from_seed_rank_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mask comes twice; the same step gives the same; another rank, another seed, another sequence."""
    masks = masks_of(monkeypatch)

    def drawn(seed: int = 0, rank: int = 0, first: int = 0) -> list[bytes]:
        made = trainer(settings(training={"seed": seed}), Rows(2, tape=False))
        monkeypatch.setattr(type(made.fabric), "global_rank", rank)
        made.counters.step = first
        masks.clear()
        for _ in range(4 - first):
            made.step()
        return list(masks)

    whole = drawn()
    assert len(set(whole)) == 4
    assert drawn(first=2) == whole[2:]
    assert not set(drawn(rank=1)) & set(whole)
    assert not set(drawn(seed=1)) & set(whole)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_computing_twice_gives_the_same_gradients(dropout: float) -> None:
    """Activation checkpointing changes memory and time, and nothing else, not even what is dropped."""
    found = []
    for checkpointing in (False, True):
        asked = settings(model={"dropout": dropout, "checkpointing": checkpointing}, training=EXACT)
        made = trainer(asked, Rows(1, tape=False))
        made.step()
        found.append(gradients(made))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=0)


def test_computing_twice_keeps_less() -> None:
    """Bytes kept for the way back are fewer."""
    kept = []
    for checkpointing in (False, True):
        objective, _ = ready_objective(settings(), CPU)
        if checkpointing:
            compute_twice(objective)
        seen: dict[int, int] = {}

        def note(tensor: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        batch = Rows(1, tape=False).batch(0)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outcome = objective(batch, Progress(), torch.Generator().manual_seed(0))
        kept.append(sum(seen.values()))
        outcome.total.backward()
    assert kept[1] < 0.6 * kept[0]


def test_a_batch_must_divide() -> None:
    """The error says by what."""
    with pytest.raises(ConfigError, match=r"training\.batch is 4; it must be a multiple of ranks x .*, 6 here"):
        settings(training={"accumulate": 3}).training.windows(2)


def test_an_hour_is_the_same_for_all_ranks() -> None:
    """The schedule follows minutes where they are further than the steps, and goes on from the time spent."""
    made = trainer(settings(training={"minutes": 10.0, "steps": 1000}), Rows(2, tape=False))
    made.counters.spent_s = 300.0
    made.begin_part()
    assert made.share == pytest.approx(0.5)
    made.step()
    assert 0.5 < made.share < 0.6
    made.counters.spent_s = 601.0
    made.begin_part()
    assert made.share == 1.0
