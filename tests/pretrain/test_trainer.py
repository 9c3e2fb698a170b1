"""The parts of a run: settings, learning rate, optimizer groups, averaged weights, and steps that come to nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_data import CPU, TINY, bank, quakes, trace

from picker.errors import ConfigError, OnsetError
from picker.model.checkpoint import save_picker
from picker.model.config import PRESETS
from picker.model.picker import Picker
from pretrain import trainer as module
from pretrain.average import Averaged
from pretrain.objectives.backbone import Backbone
from pretrain.objectives.backbone_file import save_backbone
from pretrain.parameter_groups import parameter_groups
from pretrain.settings import TrainSettings, rate_at
from pretrain.trainer import MOST_SKIPPED, Trainer


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)


def settings(**changes: Any) -> TrainSettings:
    """A run of eight small steps."""
    return TrainSettings(**{"pack": "", "preset": "tiny", "steps": 8, "batch": 2, "window_samples": 256} | changes)


@pytest.mark.parametrize(
    ("option", "value", "mend"),
    [
        ("window_samples", 6100, "--window-samples is 6100; it must be a multiple of 64"),
        ("window_samples", 64, "--window-samples is 64; nothing is learnt"),
        ("steps", 0, "--steps is 0; it must be at least 1"),
        ("batch", 0, "--batch is 0; it must be at least 1"),
        ("validate_every", 0, "--validate-every is 0; it must be at least 1"),
        ("rate", -1.0, "--rate is -1.0; it must be positive"),
        ("rate", math.nan, "--rate is nan; it must be positive"),
        ("dropout", 1.0, "--dropout is 1.0; it must be at least 0 and below 1"),
        ("minutes", 0.0, "--minutes is 0.0; give a positive number, or leave it out"),
        ("minutes", math.inf, "--minutes is inf; give a positive number, or leave it out"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(option: str, value: float, mend: str) -> None:
    """The option, its value and the mend, before anything is read or written."""
    with pytest.raises(ConfigError, match=mend):
        settings(**{option: value})


def test_the_learning_rate_warms_up_to_its_peak_and_ends_at_a_hundredth() -> None:
    """Linear, then half a cosine; it is never above the peak, however short the run."""
    long = settings(steps=1000, rate=2e-3, warmup=0.1)
    rates = [rate_at(step, long) for step in range(1001)]
    assert rates[0] == pytest.approx(2e-3 / 100)
    assert rates[49] == pytest.approx(1e-3)
    assert max(rates) == rates[99] == pytest.approx(2e-3)
    assert rates[550] == pytest.approx(2e-3 * (0.01 + 0.99 / 2))
    assert rates[1000] == pytest.approx(2e-5)
    assert all(a > b for a, b in pairwise(rates[100:]))
    for steps in (1, 3, 8):
        short = settings(steps=steps)
        assert max(rate_at(step, short) for step in range(steps)) <= short.rate


def test_without_warm_up_the_rate_starts_at_its_peak_and_progress_replaces_the_step() -> None:
    """A run limited by minutes follows the clock, and holds the lowest rate where it runs over."""
    assert rate_at(0, settings(warmup=0.0)) == settings().rate
    assert rate_at(0, settings(), progress=1.0) == pytest.approx(settings().rate / 100)
    assert rate_at(0, settings(), progress=1.7) == pytest.approx(settings().rate / 100)


def test_progress_is_by_steps_or_by_minutes_whichever_is_further(tmp_path: Path) -> None:
    """Half of the minutes are half of the run, at whatever step."""
    run = Trainer(settings(minutes=2.0), tmp_path, CPU)
    run.step, run.spent_s = 2, 60.0
    assert run.progress == 0.5
    run.step = 6
    assert run.progress == 0.75


def test_matrices_decay_and_norms_and_biases_do_not() -> None:
    """Each parameter is in one group; a step without any gradient shrinks matrices only."""
    model = Picker(TINY)
    groups = parameter_groups(model, 0.5)
    members = [
        {id(p) for group in groups if (group["weight_decay"] > 0) == decays for p in group["params"]}
        for decays in (True, False)
    ]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert not members[0] & members[1]
    assert members[0] | members[1] == {id(p) for p in model.parameters()}
    norms = [p for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()]
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert norms
    assert {id(p) for p in [*norms, *biases]} <= members[1]
    assert {id(m.weight) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv1d))} <= members[0]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(groups, lr=0.1).step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if parameter.ndim >= 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, msg=name)


def test_the_average_forgets_its_start_early_and_goes_slowly_later() -> None:
    """Weights 1, 1, 1 ... after a start at 0: shares of 9/11, 9/12 ..., then 1 - decay."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    averaged = Averaged(model, 0.9)
    nn.init.ones_(model.weight)
    left = 1.0
    for count in range(1, 200):
        averaged.update(model)
        left *= min(0.9, (1 + count) / (10 + count))
        assert averaged.weights["weight"].item() == pytest.approx(1 - left, abs=1e-5)


def test_the_average_is_lent_to_the_model_and_taken_back_whatever_happens() -> None:
    """An error inside the block leaves the model's own weights in place."""
    model = nn.Linear(2, 2)
    averaged = Averaged(model, 0.9)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    averaged.weights = {name: value + 1 for name, value in own.items()}

    def fail_within() -> None:
        with averaged.applied(model):
            assert torch.equal(model.weight, own["weight"] + 1)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_within()
    assert torch.equal(model.weight, own["weight"])
    assert torch.equal(averaged.weights["weight"], own["weight"] + 1)


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Losses of these steps (from zero) are NaN."""
    count = iter(range(1000))

    def loss(logits: torch.Tensor, *rest: Any) -> torch.Tensor:
        return logits.float().mean() * (math.nan if next(count) in steps else 1.0)

    monkeypatch.setattr(module, "pick_loss", loss)


def test_a_step_whose_gradient_is_not_finite_changes_nothing_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, averages and optimizer stay to the last bit; the next batch is another one and is learnt from."""
    poison(monkeypatch, {1})
    run, of = Trainer(settings(), tmp_path, CPU), bank(*quakes(2), trace(600))
    run.train_step(of)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    mean = {name: value.clone() for name, value in run.averaged.weights.items()}
    stream = run.generator.get_state()
    _, norm = run.train_step(of)
    assert norm.isnan()
    assert (run.step, run.skipped, run.averaged.count) == (2, 1, 1)
    assert all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())
    assert all(torch.equal(mean[name], value) for name, value in run.averaged.weights.items())
    assert {int(state["step"]) for state in run.optimizer.state.values()} == {1}
    assert not torch.equal(stream, run.generator.get_state())
    run.train_step(of)
    assert (run.step, run.skipped, run.skipped_in_a_row) == (3, 1, 0)
    assert not all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())


def test_twenty_such_steps_in_a_row_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not nineteen and one good and nineteen more; the error says what to do."""
    poison(monkeypatch, set(range(1000)) - {MOST_SKIPPED - 1})
    run, of = Trainer(settings(steps=100), tmp_path, CPU), bank(*quakes(2), trace(600))
    for _ in range(2 * MOST_SKIPPED - 1):
        run.train_step(of)
    with pytest.raises(OnsetError, match=r"not finite for 20 steps in a row, up to step 40; .* lower --rate"):
        run.train_step(of)
    assert run.skipped == 2 * MOST_SKIPPED - 1


def test_a_save_of_an_older_version_can_be_gone_on_from(tmp_path: Path) -> None:
    """It has no count of skipped steps, no random state of a device, and minutes without an end."""
    run = Trainer(settings(), tmp_path, CPU)
    run.train_step(bank(*quakes(2), trace(600)))
    run.save()
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    del state["skipped"], state["device_random"]
    state["settings"]["minutes"] = math.inf
    torch.save(state, tmp_path / "last.pt")
    again = Trainer(settings(), tmp_path, CPU)
    again.resume()
    assert (again.step, again.skipped) == (1, 0)


def test_a_damaged_save_is_named(tmp_path: Path) -> None:
    """Cut, empty, text, or of another model: a ConfigError with the path and the mend."""
    run = Trainer(settings(), tmp_path, CPU)
    run.save()
    whole = (tmp_path / "last.pt").read_bytes()
    torch.save({"settings": {}}, tmp_path / "other.pt")
    stranger = (tmp_path / "other.pt").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text"):
        (tmp_path / "last.pt").write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"last\.pt: damaged or not of a run .*; remove it to start afresh"):
            run.resume()
    (tmp_path / "last.pt").write_bytes(stranger)
    with pytest.raises(ConfigError, match=r"last\.pt: this run was started with other settings: .*batch None"):
        run.resume()


def test_a_run_can_start_from_trained_weights_of_the_same_shape_only(tmp_path: Path) -> None:
    """The weights are those of the checkpoint, whatever its dropout; another look-ahead is refused by name."""
    torch.manual_seed(3)
    trained = Picker(replace(TINY, dropout=0.3))
    save_picker(tmp_path / "trained.safetensors", trained)
    initial = str(tmp_path / "trained.safetensors")
    started = Trainer(settings(initial=initial), tmp_path, CPU).model.state_dict()
    assert all(torch.equal(value, started[name]) for name, value in trained.state_dict().items())
    with pytest.raises(ConfigError, match=r"trained\.safetensors: a picker of another shape"):
        Trainer(settings(initial=initial, lookahead_samples=32), tmp_path, CPU)


def test_a_run_can_start_from_a_pretrained_backbone(tmp_path: Path) -> None:
    """All weights but the head's are those of the backbone; a backbone of another gate is refused by name."""
    torch.manual_seed(4)
    pretrained = Backbone(replace(TINY, dropout=0.3))
    save_backbone(tmp_path / "backbone.safetensors", pretrained, {})
    fresh = Trainer(settings(), tmp_path, CPU).model.state_dict()
    started = Trainer(settings(initial=str(tmp_path / "backbone.safetensors")), tmp_path, CPU).model.state_dict()
    weights = pretrained.state_dict()
    assert {name for name, value in started.items() if not torch.equal(value, fresh[name])} <= weights.keys()
    assert all(torch.equal(value, started[name]) for name, value in weights.items())
    save_backbone(tmp_path / "other.safetensors", Backbone(PRESETS["small"]), {})
    with pytest.raises(ConfigError, match="pretrained 'small' does not fit the picker"):
        Trainer(settings(initial=str(tmp_path / "other.safetensors")), tmp_path, CPU)
