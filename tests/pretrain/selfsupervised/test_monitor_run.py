"""A tiny run of `pretrain run`, watched from its first step: journal, board, pictures, advice and codebook."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from matplotlib.image import imread
from pretraining_run import settings, write_pack
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from picker.errors import ConfigError
from pretrain.selfsupervised.checkpoint import Form
from pretrain.selfsupervised.launch import open_fabric
from pretrain.selfsupervised.monitor import codebook, diagnose
from pretrain.selfsupervised.monitor.journal import read_journal
from pretrain.selfsupervised.run import pretrain

WATCHED = {"log_every": 2, "validate_every": 4, "tensorboard": True, "figures": "last"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps."""
    place = tmp_path_factory.mktemp("watched")
    pack = str(write_pack(place / "pack.npz"))
    asked = settings(pack, training={"steps": 8}, monitoring=WATCHED)
    pretrain(asked, place / "run", open_fabric(asked, "cpu"), lambda: False, Form())
    return place / "run"


def options(module: object, *words: str) -> argparse.Namespace:
    """As the command line gives them."""
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)  # type: ignore[attr-defined]
    return parser.parse_args(list(words))


def test_it_is_watched(folder: Path) -> None:
    """Figures of training and of each data set, in the log and on the board; pictures at the end."""
    entries = read_journal(folder)
    kinds = [(entry["step"], entry["kind"]) for entry in entries if entry["kind"] != "event"]
    assert [step for step, kind in kinds if kind == "train"] == [2, 4, 6, 8]
    assert [step for step, kind in kinds if kind == "validation"] == [4, 8]
    last = [entry for entry in entries if entry["kind"] == "validation"][-1]
    assert {key.split("/")[0] for key in last if "/" in key} == {"all", "set 0", "set 1"}
    assert "accuracy" in entries[0]
    tags = EventAccumulator(str(folder / "tensorboard")).Reload().Tags()
    assert {"task/loss", "codebook/hard_perplexity", "validation set 1/accuracy"} <= set(tags["scalars"])
    assert {"codebook", "curves"} <= set(tags["images"])
    assert {"codebook.png", "curves.png"} <= {path.name for path in (folder / "figures").iterdir()}


def test_it_can_be_diagnosed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the settings that it was started with."""
    assert diagnose.run(options(diagnose, str(folder), "--json")) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["validations"]) == (8, 2)
    assert "early" in {finding["name"] for finding in found["findings"]}
    assert {f["name"]: f["healthy"] for f in found["figures"]}["hard_perplexity"] == "8 to 13 of 16"


def test_its_codebook_can_be_looked_at(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Codes and their windows on a page, as JSON and as a table; the same twice."""
    words = [str(folder), "--codes", "3", "--json", str(folder / "codes.json")]
    assert codebook.run(options(codebook, *words)) == 0
    assert "codes.png" in capsys.readouterr().out
    assert (imread(folder / "figures" / "codes.png")[..., :3] < 0.9).any(-1).mean() > 0.05
    first = (folder / "codes.json").read_text()
    found = json.loads(first)
    assert found["frames"] > 100
    codes = found["groups"][1]["codes"]
    assert 1 <= len(codes) <= 3
    assert {window["trace"] for code in codes for window in code["windows"]} <= {"t6", "t7"}
    assert codebook.run(options(codebook, *words)) == 0
    assert (folder / "codes.json").read_text() == first


def test_what_has_no_codebook_is_refused(folder: Path, tmp_path: Path) -> None:
    """In one line: no run, no data, an objective without codes."""
    with pytest.raises(ConfigError):
        codebook.run(options(codebook, str(tmp_path)))
    with pytest.raises(ConfigError, match="missing"):
        codebook.run(options(codebook, str(folder), "--data", str(tmp_path / "missing.npz")))
    with pytest.raises(ConfigError, match="--codes"):
        codebook.run(options(codebook, str(folder), "--codes", "0"))
    pack = str(write_pack(tmp_path / "pack.npz"))
    asked = settings(pack, training={"steps": 1})
    asked = asked.model_copy(update={"objective": type(asked.objective)(name="autoregressive")})
    pretrain(asked, tmp_path / "run", open_fabric(asked, "cpu"), lambda: False, Form())
    with pytest.raises(ConfigError, match="no codebook"):
        codebook.run(options(codebook, str(tmp_path / "run")))
