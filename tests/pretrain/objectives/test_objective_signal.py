"""Autoregressive prediction and masked reconstruction: what they predict, and that they cannot have seen it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from objective_data import TINY, generator, gradients, windows
from torch.nn import functional as F

from picker.model.config import preset
from pretrain.objectives.backbone import Backbone
from pretrain.objectives.objective import Batch, Objective, Progress, build
from pretrain.objectives.signal import signal_of


def built(name: str) -> Objective:
    """An objective with fixed weights."""
    torch.manual_seed(0)
    return build(name, TINY, {})


@pytest.mark.parametrize("name", ["autoregressive", "reconstruction"])
def test_the_target_is_not_seen(name: str) -> None:
    """Other samples in the frames to be predicted change no prediction of them."""
    objective = built(name)
    features = objective.backbone.features(windows().waveform, windows().valid)
    other = features.clone()
    if name == "autoregressive":
        at = 4 * objective.backbone.horizon * 10
        other[..., at:] = torch.randn(other[..., at:].shape, generator=generator(1))
        ours, theirs = objective.predict(features), objective.predict(other)
        assert torch.equal(
            ours[:, : at // 4 - objective.backbone.horizon], theirs[:, : at // 4 - objective.backbone.horizon]
        )
    else:
        mask = torch.zeros(4, 128, dtype=torch.bool)
        mask[:, 30:50] = mask[:, 70:80] = True
        hidden = mask.repeat_interleave(4, 1)[:, None].expand_as(other)
        other[hidden] = torch.randn(int(hidden.sum()), generator=generator(1))
        ours, theirs = objective.predict(features, mask), objective.predict(other, mask)
        assert torch.equal(ours, theirs)
    assert not torch.equal(objective.backbone.tokens(features), objective.backbone.tokens(other))


def test_one_frame_less_ahead_would_have_been_seen() -> None:
    """The horizon is as short as it can be: the last frame of its own group changes a token's context."""
    backbone = Backbone(TINY)
    tokens = torch.randn(1, 32, 16, generator=generator())
    other = tokens.clone()
    other[:, 19] += torch.randn(16, generator=generator(1))
    changed = (backbone.context(tokens) != backbone.context(other)).any(-1)[0]
    assert changed.nonzero().min() == 16
    assert backbone.horizon == 4
    assert Backbone(preset("small")).horizon == 16


@pytest.mark.parametrize("name", ["autoregressive", "reconstruction"])
def test_the_loss_is_over_known_values_only(name: str) -> None:
    """A gap is neither predicted nor counted; the sum equals a plain one."""
    objective = built(name).eval()
    batch = windows(2, 256)
    batch.valid[0, 1, 100:] = False
    outcome = objective(batch, Progress(), generator())
    features = objective.backbone.features(batch.waveform, batch.valid)
    if name == "autoregressive":
        ahead = objective.backbone.horizon
        signal, known = (x[:, ahead:] for x in signal_of(features, 4))
        predicted = objective.predict(features)
        expected = F.smooth_l1_loss(predicted[known], signal[known], reduction="sum")
        assert outcome.count == known.sum() == 2 * (3 * 240 + 2 * 240 + 84)
        torch.testing.assert_close(outcome.loss_sum, expected)
    else:
        assert 0 < outcome.count <= 2 * 0.75 * batch.valid.sum()
    outcome.total.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(objective).values())
    metrics = objective.metrics(outcome.statistics)
    torch.testing.assert_close(metrics["loss"], outcome.loss_sum / outcome.count)


def test_signal_by_frame() -> None:
    """A frame holds its four samples of the six bands, and says which of them are data."""
    batch = windows(1, 64)
    batch.valid[0, 2, 8:] = False
    features = Backbone(TINY).features(batch.waveform, batch.valid)
    signal, known = signal_of(features, 4)
    assert torch.equal(signal[0, 3].view(6, 4), features[0, :6, 12:16])
    assert known[0, 3].view(6, 4).all(1).tolist() == [True, True, False] * 2
    assert known[0, 1].all()


@pytest.mark.parametrize(
    ("name", "values"), [("autoregressive", {}), ("reconstruction", {"mask": {"share": 0.2}, "delays": [16]})]
)
def test_a_short_run_learns(name: str, values: dict[str, Any]) -> None:
    """A slow tone can be foretold: more is explained after some steps."""
    torch.manual_seed(0)
    objective = build(name, TINY, values)
    time = torch.arange(512) / 100
    waveform = torch.sin(6.28 * 0.8 * time + torch.arange(12.0).view(4, 3, 1))
    batch = Batch(waveform, torch.ones(4, 3, 512, dtype=torch.bool))
    optimizer, stream, found = torch.optim.AdamW(objective.parameters(), lr=1e-2), generator(), []
    for _ in range(40):
        outcome = objective(batch, Progress(), stream)
        optimizer.zero_grad()
        (outcome.total / outcome.count).backward()
        optimizer.step()
        found.append(objective.metrics(outcome.statistics)["explained"].item())
    assert sum(found[-5:]) / 5 > 0.4 > found[0]
