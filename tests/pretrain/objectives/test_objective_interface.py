"""The interface: names, settings, parameter groups, weights for the picker, and room for a momentum encoder."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from objective_data import SMALL, TINY, contrastive, generator, windows
from torch import Tensor
from torch.nn import functional as F

from picker.errors import ConfigError
from picker.model.config import ModelConfig
from picker.model.picker import Picker
from pretrain.objectives import objective as module
from pretrain.objectives.backbone import Backbone, transfer
from pretrain.objectives.objective import (
    Batch,
    NoSettings,
    Objective,
    Outcome,
    Progress,
    build,
    objectives,
    register,
)
from pretrain.objectives.views import two_views


def test_objectives_are_found_by_name() -> None:
    """Every file of the folder that registers one; the default settings of each can be built and run."""
    assert set(objectives()) == {"contrastive", "autoregressive", "reconstruction", "ntxent"}
    for name in objectives():
        objective = build(name, TINY, SMALL if name == "contrastive" else None)
        outcome = objective(windows(2, 256), Progress(), generator())
        outcome.total.backward()
        assert outcome.count > 0
        assert not any(value.requires_grad for value in outcome.statistics.values())
        assert all(value.ndim == 0 for value in objective.metrics(outcome.statistics).values())
        assert all(parameter.grad is not None for parameter in objective.parameters()), name


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("moco", {}, "objective 'moco' does not exist; choose one of autoregressive, contrastive"),
        ("contrastive", {"mask": {"shore": 0.5}}, r"mask.shore: Extra inputs are not permitted"),
        ("contrastive", {"negatives": {"kind": "near"}}, r"negatives.kind: .*same_recording.*\(is 'near'\)"),
        (
            "contrastive",
            {"quantizer": {"size": 255}},
            r"quantizer: .*size is 255; it must be a multiple of groups \(2\)",
        ),
        (
            "contrastive",
            {"delays": [17, 32]},
            r"delays are \[17, 32\] tokens; the look-ahead of 64 samples allows 0 to 16",
        ),
        ("autoregressive", {"mask": {}}, "mask: Extra inputs"),
    ],
)
def test_settings_that_cannot_be_are_refused(name: str, values: dict[str, Any], words: str) -> None:
    """One error that names the key and the mend."""
    with pytest.raises(ConfigError, match=words):
        build(name, TINY, values)


def test_defaults_are_those_of_config_2() -> None:
    """The values of the seed."""
    settings: Any = objectives()["contrastive"].Settings()
    assert (settings.mask.kind, settings.mask.share, settings.mask.length) == ("share", 0.65, 10)
    assert (settings.quantizer.groups, settings.quantizer.codes, settings.quantizer.size) == (2, 320, 256)
    assert (settings.negatives.kind, settings.negatives.count) == ("same_recording", 100)
    assert (settings.temperature.kind, settings.temperature.start, settings.similarity) == ("fixed", 0.1, "cosine")
    assert (settings.diversity_weight, settings.quantizer_rate) == (0.1, 0.5)


def test_what_is_pretrained_loads_into_the_picker_by_name() -> None:
    """Every weight of the backbone is one of the picker; after the transfer only the head is its own."""
    objective = contrastive()
    picker = Picker(TINY)
    head = {name: value.clone() for name, value in picker.head.state_dict().items()}
    transfer(objective.backbone, picker)
    weights = picker.state_dict()
    assert {name.split(".")[0] for name in weights} - {"head"} == {"encoder", "late", "unet"}
    assert set(objective.backbone.state_dict()) == {name for name in weights if not name.startswith("head.")}
    assert all(torch.equal(value, weights[name]) for name, value in objective.backbone.state_dict().items())
    assert all(torch.equal(value, head[name]) for name, value in picker.head.state_dict().items())


def test_the_backbone_computes_what_the_picker_does() -> None:
    """The context is what the picker's head gets, to the last bit."""
    backbone, picker = Backbone(TINY), Picker(TINY)
    transfer(backbone, picker)
    seen: list[Tensor] = []
    picker.head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    batch = windows(2, 256)
    batch.valid[1, 0, 50:90] = False
    batch.waveform[0, 1, 7] = torch.nan
    picker(batch.waveform, batch.valid)
    assert torch.equal(seen[0], backbone(batch.waveform, batch.valid))


def test_another_picker_is_refused() -> None:
    """Other widths, and other levels, each with one error."""
    wide = replace(TINY, levels=tuple(replace(level, width=32) for level in TINY.levels))
    deep = replace(TINY, levels=(*TINY.levels, TINY.levels[0]))
    for other in (wide, deep):
        with pytest.raises(ConfigError, match="pretrained 'tiny' does not fit the picker 'tiny'"):
            transfer(Backbone(TINY), Picker(other))


def test_windows_of_a_broken_chunk_are_refused() -> None:
    """With the length and what it must be a multiple of."""
    with pytest.raises(ValueError, match="windows have 500 samples; that must be a multiple of 64"):
        contrastive()(windows(1, 500), Progress(), generator())


@pytest.mark.parametrize("name", ["contrastive", "autoregressive", "reconstruction", "ntxent"])
def test_parameter_groups_hold_every_parameter_once(name: str) -> None:
    """Norms, biases and the codebook do not decay; the quantizer learns at half the rate."""
    objective = build(name, TINY, SMALL if name == "contrastive" else None)
    groups = objective.parameter_groups()
    held = [parameter for group in groups for parameter in group.parameters]
    assert len(held) == len(set(held))
    assert set(held) == set(objective.parameters())
    assert all(parameter.ndim >= 2 for group in groups if group.decay for parameter in group.parameters)
    if name == "contrastive":
        assert {group.name: (group.rate, group.decay) for group in groups} == {
            "backbone": (1.0, True),
            "backbone, no decay": (1.0, False),
            "quantizer": (0.5, True),
            "quantizer, no decay": (0.5, False),
            "codebook": (0.5, False),
        }


class Follower(Objective):
    """Two views and an encoder that follows (BYOL, arXiv 2006.07733): all that it needs is in one class."""

    def __init__(self, config: ModelConfig, settings: NoSettings) -> None:
        super().__init__(config)
        self.predictor = torch.nn.Linear(self.backbone.width, self.backbone.width)
        self.follower = copy.deepcopy(self.backbone).requires_grad_(False)

    def forward(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Outcome:
        """Squared distance of unit vectors."""
        views = two_views(batch, 128, generator)
        online = self.predictor(self.backbone(views.waveform, views.valid).mean(1))
        with torch.no_grad():
            target = self.follower(views.waveform, views.valid).mean(1).roll(len(batch.waveform), 0)
        loss = (2 - 2 * F.cosine_similarity(online, target)).sum()
        count = torch.tensor(float(len(online)))
        return Outcome(loss, count, statistics={"loss_sum": loss.detach(), "count": count})

    def metrics(self, statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean."""
        return {"loss": statistics["loss_sum"] / statistics["count"]}

    def after_step(self, progress: Progress) -> dict[str, Tensor]:
        """The follower follows."""
        with torch.no_grad():
            for mine, other in zip(self.follower.parameters(), self.backbone.parameters(), strict=True):
                mine.lerp_(other, 0.1)
        return {}


def test_a_momentum_encoder_on_two_views_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new objective is one registered class: it is built by name, trained, and its follower moves after a step."""
    monkeypatch.setattr(module, "_REGISTRY", dict(objectives()))
    register("follower")(Follower)
    objective = build("follower", TINY)
    assert isinstance(objective, Follower)
    trained = [p for group in objective.parameter_groups() for p in group.parameters if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    before = {name: value.clone() for name, value in objective.follower.named_parameters()}
    outcome = objective(windows(4, 256), Progress(), generator())
    outcome.total.backward()
    assert all(parameter.grad is None for parameter in objective.follower.parameters())
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in objective.follower.named_parameters())
    objective.after_step(Progress(1))
    leader = dict(objective.backbone.named_parameters())
    for name, value in objective.follower.named_parameters():
        torch.testing.assert_close(value, before[name].lerp(leader[name], 0.1))
