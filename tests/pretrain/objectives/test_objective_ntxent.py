"""NT-Xent: views, and the loss against a plain reference."""

from __future__ import annotations

import math

import pytest
import torch
from objective_data import TINY, generator, gradients, windows
from torch.nn import functional as F

from pretrain.objectives.infonce import infonce
from pretrain.objectives.ntxent import NTXent, NTXentSettings, compare
from pretrain.objectives.objective import Batch, Progress
from pretrain.objectives.views import two_views


def test_the_loss_equals_a_plain_reference() -> None:
    """Each view against all others, its own pair being the answer; a window without data is no negative."""
    embedded = torch.randn(6, 5, generator=generator(), dtype=torch.float64)
    present = torch.tensor([True, True, False, True, True, True])
    both = torch.tensor([True, True, False, True, True, False])
    unit = F.normalize(embedded, dim=-1)
    contrast = infonce(compare(unit @ unit.T, present), 0.5, both)
    expected = 0.0
    for row in (0, 1, 3, 4):
        score = {col: math.exp((unit[row] @ unit[col]).item() / 0.5) for col in range(6) if present[col] and col != row}
        expected -= math.log(score[(row + 3) % 6] / sum(score.values()))
    assert contrast.loss_sum.item() == pytest.approx(expected)
    assert contrast.count == 4
    assert contrast.valid_negatives == 4 * 3


def test_views_differ_and_keep_their_rows() -> None:
    """Two random crops of each window, augmented each for itself, zero where not valid."""
    batch = windows(8, 512)
    views = two_views(batch, 384, generator())
    assert views.waveform.shape == (16, 3, 384)
    assert not torch.equal(views.waveform[:8], views.waveform[8:])
    assert not views.waveform[~views.valid].any()
    assert not views.valid.all()


def test_every_weight_learns_and_pairs_are_found() -> None:
    """Tones of six rates: after some steps each view's pair is found far more often than by chance."""
    torch.manual_seed(0)
    objective = NTXent(TINY, NTXentSettings(crop=1.0))
    time = torch.arange(512) / 100
    waveform = torch.stack([torch.sin(6.28 * rate * time) for rate in (0.7, 1.5, 3, 6, 12, 20)])
    batch = Batch(waveform[:, None].repeat(1, 3, 1), torch.ones(6, 3, 512, dtype=torch.bool))
    optimizer, stream, found = torch.optim.AdamW(objective.parameters(), lr=2e-3), generator(), []
    for step in range(40):
        outcome = objective(batch, Progress(), stream)
        optimizer.zero_grad()
        (outcome.total / outcome.count).backward()
        if not step:
            assert all(gradient.abs().sum() > 0 for gradient in gradients(objective).values())
        optimizer.step()
        objective.after_step(Progress(step))
        found.append({name: value.item() for name, value in objective.metrics(outcome.statistics).items()})
    assert found[0]["valid_negatives"] == 10
    assert sum(f["loss"] for f in found[-5:]) < 0.9 * sum(f["loss"] for f in found[:5])
    assert sum(f["accuracy"] for f in found[-10:]) / 10 > 2.5 / 11
