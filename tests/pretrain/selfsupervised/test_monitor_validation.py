"""A validation is the same each time, speaks of each data set, and leaves training as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from monitor_data import SAMPLES, labelled, tiny_objective, two_sets
from torch.optim import SGD

from pretrain.objectives.objective import Batch, Objective, Progress, build
from pretrain.selfsupervised.monitor.validation import evaluating, flat, judged, validate


def trained(validated: bool) -> dict[str, torch.Tensor]:
    """Weights after three steps with dropout, with or without a validation between them."""
    objective = tiny_objective()
    optimizer, draws = SGD(objective.parameters(), 0.01), torch.Generator().manual_seed(5)
    for step in range(3):
        outcome = objective(labelled("a", 2, step).batch, Progress(step), draws)
        optimizer.zero_grad()
        (outcome.total / outcome.count).backward()
        optimizer.step()
        if validated:
            validate(objective, two_sets(), 0)
    return objective.state_dict()


def test_training_goes_on_as_if_there_had_been_no_validation() -> None:
    """Same weights and usage of codes to the bit, dropout included: no random state and no buffer was touched."""
    plain, other = trained(False), trained(True)
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_it_repeats_itself_and_the_seed_decides() -> None:
    """Whatever was drawn in between, in training mode or not; another seed draws other masks and delays."""
    objective = tiny_objective()
    first = validate(objective, two_sets(), 7)
    torch.rand(100)
    assert objective.training
    assert validate(objective.eval(), two_sets(), 7) == first
    assert not objective.training
    assert validate(objective, two_sets(), 8)["all/loss"] != first["all/loss"]


def test_figures_are_of_sums_by_data_set_and_over_all() -> None:
    """A data set's loss is that of its batches together, weighted by frames; counts add up."""
    objective, batches = tiny_objective(), two_sets()
    found = validate(objective, batches, 3)
    assert {name.split("/")[0] for name in found} == {"all", "north", "south"}
    assert found["all/frames"] == found["north/frames"] + found["south/frames"]
    weighted = sum(found[f"{name}/loss"] * found[f"{name}/frames"] for name in ("north", "south"))
    assert found["all/loss"] == pytest.approx(weighted / found["all/frames"])
    for data_set in ("all", "north", "south"):
        hard, soft, dead = (f"{data_set}/{name}" for name in ("hard_perplexity", "soft_perplexity", "dead_codes"))
        for group in ("_0", "_1"):
            assert 1 <= found[hard + group] <= 8 - found[dead + group]
            assert 1 < found[soft + group] <= 8
        assert found[hard] == pytest.approx(found[f"{hard}_0"] + found[f"{hard}_1"])
        assert found[hard] != pytest.approx(found[soft])
    assert found["north/hard_perplexity"] != found["south/hard_perplexity"]
    sums = judged(objective, batches, 3)
    assert flat(objective, sums) == found
    assert sums["all"]["hard"].sum() == 2 * found["all/frames"]


def test_every_module_gets_its_mode_back() -> None:
    """Also where an error ends the validation, and where a part was frozen in evaluation mode."""
    objective = tiny_objective()
    objective.backbone.encoder.eval()
    modes = [module.training for module in objective.modules()]
    with evaluating(objective):
        assert not any(module.training for module in objective.modules())
    with pytest.raises(ValueError, match="samples"):
        validate(objective, [replace(labelled("odd"), batch=Batch(torch.zeros(1, 3, 30), torch.ones(1, 3, 30)))], 0)
    assert [module.training for module in objective.modules()] == modes
    assert len(set(modes)) == 2
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["autoregressive", "reconstruction", "ntxent", "contrastive"])
def test_every_objective_can_be_validated(name: str) -> None:
    """By way of its own statistics and metrics."""
    torch.manual_seed(0)
    objective: Objective = build(name, tiny_objective().backbone.config)
    found = validate(objective, two_sets(), 0)
    assert found["all/loss"] > 0
    assert found == validate(objective, two_sets(), 0)


def test_no_batches_and_no_data_give_no_nan() -> None:
    """Nothing from nothing; zeros where no frame has data."""
    assert validate(tiny_objective(), [], 0) == {}
    empty = labelled("gap")
    batch = Batch(torch.zeros(3, 3, SAMPLES), torch.zeros(3, 3, SAMPLES, dtype=torch.bool))
    nothing = replace(empty, batch=batch)
    found = validate(tiny_objective(), [nothing], 0)
    assert found["gap/frames"] == 0
    assert all(value == value for value in found.values())
