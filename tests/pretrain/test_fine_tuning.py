"""Fine-tuning: stages, rates by layer, carried state, label fractions, weights of phases, and when it is over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_data import CPU, TINY, bank, quake, quakes, trace, write_pack

from picker.errors import ConfigError
from picker.model.checkpoint import save_picker
from picker.model.config import PRESETS
from picker.model.picker import Picker
from pretrain import train as command
from pretrain.cli import main
from pretrain.data.folds import label_fraction
from pretrain.data.trace import SIMULATED
from pretrain.labels import pick_loss
from pretrain.parameter_groups import distance_from_head, parameter_groups
from pretrain.settings import TrainSettings, rate_at
from pretrain.train import shares_of, train
from pretrain.trainer import Trainer


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)


def settings(**changes: Any) -> TrainSettings:
    """A run of eight small steps."""
    return TrainSettings(**{"pack": "", "preset": "tiny", "steps": 8, "batch": 2, "window_samples": 256} | changes)


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    """A copy of every parameter."""
    return {name: p.detach().clone() for name, p in run.model.named_parameters()}


def test_distance_grows_from_the_head_to_the_encoder() -> None:
    """Each stage is one further than what it feeds; every parameter of a picker has a place."""
    model, levels = Picker(TINY), len(TINY.levels)
    stages = {name.split(".", 1)[0] for name, _ in model.named_parameters()}
    assert stages == {"encoder", "late", "unet", "head"}
    found = {name: distance_from_head(name, levels) for name, _ in model.named_parameters()}
    assert {d for name, d in found.items() if name.startswith("head.")} == {0}
    assert {d for name, d in found.items() if name.startswith("encoder.")} == {max(found.values())}
    assert distance_from_head("unet.up.0.0.out.weight", 3) == 1
    assert [distance_from_head(f"unet.up.{k}.0.x", 3) for k in range(3)] == [1, 2, 3]
    assert [distance_from_head(f"unet.down.{k}.0.x", 3) for k in range(3)] == [6, 5, 4]
    with pytest.raises(ValueError, match="quantizer"):
        distance_from_head("quantizer.codes.0.x", 3)


def test_every_group_follows_the_schedule_at_every_step() -> None:
    """Stage one: the head alone, at its own rate. Stage two: each layer at its share of the schedule."""
    run = Trainer(settings(freeze_steps=3, head_rate=5e-4, layer_decay=0.5, rate=1e-3, warmup=0.4), Path(), CPU)
    data = bank(*quakes())
    for step in range(8):
        run.train_step(data)
        for group in run.optimizer.param_groups:
            wanted = rate_at(step, run.settings) * 0.5 ** group["distance"]
            if step < 3:
                wanted = 5e-4 if group["distance"] == 0 else 0.0
            assert group["lr"] == pytest.approx(wanted), (step, group["distance"])
    assert rate_at(3, run.settings) == pytest.approx(1e-3 * (1 / 8) / 0.4), "the warm-up begins where the freeze ends"
    assert len({group["distance"] for group in run.optimizer.param_groups}) == 2 * len(TINY.levels) + 2


def test_a_frozen_backbone_does_not_move_and_then_does() -> None:
    """Neither a gradient nor weight decay reaches it while the head learns alone."""
    run, data = Trainer(settings(freeze_steps=2, weight_decay=0.5), Path(), CPU), bank(*quakes())
    before = weights(run)
    run.train_step(data)
    run.train_step(data)
    after = weights(run)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("head.") for name in moved)
    run.train_step(data)
    assert any(not torch.equal(after[name], p) for name, p in weights(run).items() if not name.startswith("head."))


def test_one_decay_for_all_layers_is_the_plain_optimizer() -> None:
    """The default has two groups a kind: the head and the rest, all at the rate of the run."""
    groups = parameter_groups(Picker(TINY), 0.1)
    assert {group["scale"] for group in groups} == {1.0}
    assert {group["distance"] for group in groups} == {0, 1}


def test_windows_in_a_row_carry_their_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second window is given what the first one left, detached; the next sequence starts afresh."""
    run, data = Trainer(settings(windows=2), Path(), CPU), bank(*quakes())
    given: list[Any] = []
    forward = Picker.forward

    def spy(self: Picker, chunk: Any, valid: Any, reset: Any = None, state: Any = None) -> Any:
        given.append(state)
        return forward(self, chunk, valid, reset, state)

    monkeypatch.setattr(Picker, "forward", spy)
    for _ in range(4):
        run.train_step(data)
    assert [state is None for state in given] == [True, False, True, False]
    assert not given[1].unet.blocks[0].memory.requires_grad
    assert given[1].unet.blocks[0].memory.abs().sum() > 0


def test_a_whole_row_is_one_step_from_a_fresh_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows of 256 samples are one of 512, and no state is carried into the next."""
    run, data = Trainer(settings(windows=2, whole=True), Path(), CPU), bank(*quakes())
    given: list[Any] = []
    forward = Picker.forward

    def spy(self: Picker, chunk: Any, valid: Any, reset: Any = None, state: Any = None) -> Any:
        given.append((tuple(chunk.shape), state))
        return forward(self, chunk, valid, reset, state)

    monkeypatch.setattr(Picker, "forward", spy)
    run.train_step(data)
    run.train_step(data)
    assert given == [((2, 3, 512), None)] * 2
    with pytest.raises(ConfigError, match="--whole is True; it needs --windows of 2 or more"):
        settings(whole=True)


def test_a_run_stopped_inside_a_sequence_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    """The windows that wait and the carried state are part of what is saved."""
    pack = write_pack(tmp_path / "p.npz", [*quakes(), quake(500, 800, 1200, name="t", fold="tune")])
    asked = settings(pack=pack, windows=3, steps=6, validate_every=6)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(asked, whole, CPU)
    train(replace(asked, steps=6), parts, CPU, iter([False] * 4 + [True] * 9).__next__)
    train(asked, parts, CPU)
    ends = [torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (whole, parts)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_fraction_of_the_labels_is_drawn_by_event_and_nested() -> None:
    """Smaller fractions are parts of larger ones, each source keeps some, another seed draws others."""
    records = [quake(300, 500, 900, name=f"{source}{k}") for source in "ab" for k in range(20)]
    records = [replace(r, source=r.name[0], group=r.name, status="manual") for r in records]
    others = [replace(records[0], status=SIMULATED, name="s", group="s"), trace(500, name="n")]
    few, more = (label_fraction([*records, *others], share) for share in (0.1, 0.5))
    names = [{t.name for t in chosen} - {"s", "n"} for chosen in (few, more)]
    assert [len(found) for found in names] == [4, 20]
    assert names[0] < names[1]
    assert {name[0] for name in names[0]} == {"a", "b"}
    assert {t.name for t in few} >= {"s", "n"}
    assert {t.name for t in label_fraction(records, 0.1, seed=1)} != names[0]
    assert len(label_fraction(records, 1e-6)) == 2


def test_weights_of_phases_scale_the_loss_at_their_onsets_only() -> None:
    """A heavier S changes the loss where there is an S, and nothing where there is none."""
    data = bank(*quakes())
    windows = data.draw(4, 512, 1.0, torch.Generator().manual_seed(0))
    logits = torch.randn(4, 3, 512, generator=torch.Generator().manual_seed(1))
    plain, heavy = pick_loss(logits, windows, 64), pick_loss(logits, windows, 64, (1.0, 5.0))
    assert not torch.isclose(plain, heavy)
    no_s = windows.but(positions=torch.where(windows.phases == 1, -1e6, windows.positions))
    assert torch.equal(pick_loss(logits, no_s, 64), pick_loss(logits, no_s, 64, (1.0, 5.0)))


def test_a_run_ends_when_it_stops_getting_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two validations without a better one end it; the best weights stay."""
    pack = write_pack(tmp_path / "p.npz", [*quakes(), quake(500, 800, 1200, name="t", fold="tune")])
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    monkeypatch.setattr(command, "summary", lambda found: {"f1": next(scores)})
    asked = settings(pack=pack, steps=50, validate_every=1, patience=2)
    assert train(asked, tmp_path / "run", CPU)["f1"] == 0.3
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(lines) == 4


def test_shares_are_read_and_refused_by_name() -> None:
    """A kind that is not there, or no number, is named."""
    assert shares_of(["pseudo=0", "noise=0.5"]) == {"pseudo": 0.0, "noise": 0.5}
    assert settings(shares={"pseudo": 0.0}).drawn["pseudo"] == 0
    with pytest.raises(ConfigError, match=r"--share pseudo: write it as KIND=NUMBER"):
        shares_of(["pseudo"])
    with pytest.raises(ConfigError, match=r"--share robots: no such kind of trace"):
        settings(shares={"robots": 1.0})


@pytest.mark.parametrize(
    ("option", "value"), [("windows", 0), ("label_fraction", 0.0), ("freeze_steps", 9), ("layer_decay", 1.5)]
)
def test_what_cannot_be_is_refused_by_name(option: str, value: float) -> None:
    """The option and its value."""
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} is {value}"):
        settings(**{option: value})


def test_the_command_fine_tunes_a_picker_in_two_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the weights of another run, by its own defaults; without weights it says what to name."""
    pack = write_pack(tmp_path / "p.npz", [*quakes(), quake(500, 800, 1200, name="t", fold="tune")])
    quick = ["--preset", "tiny", "--batch", "2", "--window-samples", "256", "--device", "cpu", "--validate-every", "4"]
    assert main(["finetune", pack, str(tmp_path / "run"), *quick]) == 2
    assert "--initial is missing" in capsys.readouterr().err
    save_picker(tmp_path / "picker.safetensors", Picker(replace(TINY, second_look_samples=128)))
    more = ["--initial", str(tmp_path / "picker.safetensors"), "--steps", "4", "--freeze-steps", "2"]
    assert main(["finetune", pack, str(tmp_path / "run"), *quick, *more]) == 0
    asked = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (asked["rate"], asked["layer_decay"], asked["patience"], asked["freeze_steps"]) == (1e-4, 0.8, 8, 2)
