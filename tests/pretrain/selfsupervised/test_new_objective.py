"""A new objective is one file and its name in the configuration: everything else takes it as it comes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pretraining_run import toml, write_pack

import pretrain.objectives
from picker.errors import ConfigError
from pretrain.cli import main
from pretrain.objectives import objective as module
from pretrain.objectives.objective import objectives
from pretrain.selfsupervised.settings import load

ONE_FILE = '''
import torch
from pydantic import BaseModel, ConfigDict

from pretrain.objectives.objective import Objective, Outcome, register


class LevelSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = 1.0


@register("level")
class Level(Objective):
    """Tells how loud each frame is."""

    Settings = LevelSettings

    def __init__(self, config, settings):
        super().__init__(config)
        self.settings, self.head = settings, torch.nn.Linear(self.backbone.width, 1)

    def forward(self, batch, progress, generator):
        features = self.backbone.features(batch.waveform, batch.valid)
        told = self.head(self.backbone.context(self.backbone.tokens(features)))[..., 0]
        level = features[:, :6].abs().mean(1).unflatten(-1, (-1, 4)).mean(-1)
        loss = self.settings.weight * (told - level).square().sum()
        count = torch.tensor(float(told.numel()))
        return Outcome(loss, count, statistics={"loss_sum": loss.detach(), "count": count})

    def metrics(self, statistics):
        return {"loss": statistics["loss_sum"] / statistics["count"]}
'''


@pytest.fixture
def level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A pack and settings that name the objective of one more file of the folder of objectives."""
    folder = tmp_path / "objectives"
    folder.mkdir()
    (folder / "level.py").write_text(ONE_FILE)
    monkeypatch.setattr(module, "_REGISTRY", dict(objectives()))
    monkeypatch.setattr(pretrain.objectives, "__path__", [*pretrain.objectives.__path__, str(folder)])
    written = toml(tmp_path / "run.toml", write_pack(tmp_path / "pack.npz"), training={"steps": 8})
    lines = written.read_text().splitlines()
    first, last = lines.index("[objective]"), lines.index("[data]")
    lines[first + 1 : last] = ['name = "level"', "weight = 2.0"]
    written.write_text("\n".join(lines) + "\n")
    yield written
    sys.modules.pop("pretrain.objectives.level", None)
    vars(pretrain.objectives).pop("level", None)


def test_it_is_planned_run_taken_up_diagnosed_and_given_away(
    level: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By every command, in figures, checkpoints and card, without a line of the rest knowing of it."""
    run = str(tmp_path / "run")
    assert main(["plan", str(level)]) == 0
    assert main(["run", str(level), run, "--device", "cpu", "--set", "training.steps=4"]) == 0
    assert main(["run", str(level), run, "--device", "cpu", "--set", "monitoring.figures=last"]) == 0
    assert "going on from step 4" in capsys.readouterr().out
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in entries if entry["kind"] == "train"]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert entries[-1]["set 0/loss"] > 0
    assert (tmp_path / "run" / "figures" / "curves.png").is_file()
    assert main(["diagnose", run]) in (0, 1)
    assert main(["card", run, "--out", str(tmp_path / "out")]) == 0
    assert "--set objective.weight=2.0" in (tmp_path / "out" / "card.md").read_text()
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["objective"] == {"name": "level", "weight": 2.0}


def test_its_keys_are_its_own(level: Path) -> None:
    """A key that its settings do not know is refused by name; without the file there is no such objective."""
    with pytest.raises(ConfigError, match=r"objective\.wait: unknown key"):
        load(level, ["objective.wait=1"])
    (level.parent / "objectives" / "level.py").unlink()
    module._REGISTRY.pop("level")
    with pytest.raises(ConfigError, match=r"objective\.name is 'level'; choose one of autoregressive"):
        load(level)
