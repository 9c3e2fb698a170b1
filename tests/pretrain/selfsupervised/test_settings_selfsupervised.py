"""Settings of a run: what is shipped is complete, and what is wrong is named with its mend."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from pretraining_run import settings, toml, write_pack

from picker.errors import ConfigError
from pretrain.cli import main
from pretrain.selfsupervised.run import _memory_named
from pretrain.selfsupervised.settings import RunSettings, differing, flat, load, plain

BASE = Path(__file__).parents[3] / "configs" / "pretrain" / "base.toml"
RECIPE = {
    "objective.mask.share": 0.65,
    "objective.mask.length": 10,
    "objective.quantizer.groups": 2,
    "objective.quantizer.codes": 320,
    "objective.quantizer.size": 256,
    "objective.quantizer.warm": 2.0,
    "objective.quantizer.sharp": 0.5,
    "objective.negatives.count": 100,
    "objective.temperature.start": 0.1,
    "objective.similarity": "cosine",
    "objective.diversity_weight": 0.1,
    "objective.quantizer_rate": 0.5,
    "data.window_samples": 4096,
    "training.rate": 1e-3,
    "training.warmup": 0.2,
    "training.clip": 1.0,
    "training.precision": "bf16-mixed",
    "model.tfla_kernels": True,
}


def test_base_states_everything() -> None:
    """configs/pretrain/base.toml has every key but those without a default value, each with a comment, as it is."""
    text = BASE.read_text(encoding="utf-8")
    stated, all_keys = flat(tomllib.loads(text)), flat(plain(load(BASE)))
    assert all_keys.keys() - stated.keys() == {"model.encoder_features", "training.minutes"}
    assert load(BASE).model.config().encoder_features == 256
    assert [line for line in text.splitlines() if "=" in line and "#" not in line] == []
    assert {key: all_keys[key] for key in RECIPE} == RECIPE
    defaults = flat(plain(RunSettings.model_validate({"data": {"pack": str(BASE)}})))
    assert [key for key in defaults if key != "data.pack" and defaults[key] != all_keys[key]] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.stepz=3", "training.stepz: unknown key; remove it"),
        ("objective.mask.shares=0.5", "objective.mask.shares: unknown key"),
        ("objective.mask.share=3", "objective.mask.share is 3: Input should be less than 1"),
        ("objective.name=byol", "objective.name is 'byol'; choose one of autoregressive, contrastive"),
        ("model.preset=huge", "model preset 'huge' does not exist; choose one of small"),
        ("model.pooling=3", "a chunk of 64 samples does not hold"),
        ("training.betas=[0.9, 1.0]", "training is .*both must be at least 0 and below 1"),
        ("monitoring.alarms.patience=0", "monitoring.alarms.patience is 0"),
    ],
)
def test_what_is_wrong_is_named(change: str, said: str) -> None:
    """File, key and mend, on one line."""
    with pytest.raises(ConfigError, match=said) as error:
        load(BASE, [change])
    assert str(error.value).startswith(f"{BASE}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", ["steps", "steps=3", "training.steps.more=3"])
def test_a_change_must_be_one(change: str) -> None:
    """What cannot be a change of a key is refused with an example."""
    with pytest.raises(ConfigError, match=r"--set .*(training\.steps=100|not a table)"):
        load(BASE, [change])


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing file, and one that is not TOML."""
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read .*base\.toml"):
        load(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_text("[model\n")
    with pytest.raises(ConfigError, match=r"a\.toml: not TOML"):
        load(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("[model]\n")
    with pytest.raises(ConfigError, match=r"b\.toml: data is missing: give it"):
        load(tmp_path / "b.toml")


def test_changes_and_paths(tmp_path: Path) -> None:
    """Words need no quotes; a pack named in the file lies beside it, one named on the command line where one is."""
    config = toml(tmp_path / "run.toml", Path("pack.npz"))
    asked = load(config, ["training.steps=7", "objective.similarity=dot", "objective.mask.share=0.7"])
    assert asked.training.steps == 7
    assert plain(asked)["objective"]["similarity"] == "dot"
    assert plain(asked)["objective"]["mask"] == {"kind": "share", "share": 0.7, "length": 10}
    assert asked.data.pack == str(tmp_path / "pack.npz")
    assert load(config, ["data.pack=other.npz"]).data.pack == "other.npz"


def test_what_may_change() -> None:
    """A default that is written out is no difference; a new key of an older run is one."""
    mine = plain(settings())
    assert differing(mine, plain(settings(objective={"similarity": "cosine"}, monitoring={"log_every": 9}))) == []
    older = plain(settings())
    del older["training"]["clip"]
    assert differing(mine, older) == ["training.clip None (now 1.0)"]


def test_too_little_memory_says_what_to_lower() -> None:
    """The GPU's error becomes one line with the settings that help."""
    said = r"too little memory \(CUDA .*\): raise training\.accumulate .*checkpointing = true.*data\.hold"
    with pytest.raises(ConfigError, match=said), _memory_named(settings()):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_help_needs_no_torch() -> None:
    """The list of commands is there before PyTorch is."""
    code = "import sys, pretrain.cli; pretrain.cli.parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=BASE.parents[2], check=False).returncode == 0


@pytest.mark.parametrize("command", ["run", "plan", "diagnose", "codebook"])
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With examples."""
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"pretrain {command}" in capsys.readouterr().out.partition("examples:")[2]


def test_errors_of_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong key, and a pack that is not there: one line on standard error, exit status 2, and no folder."""
    config = toml(tmp_path / "run.toml", tmp_path / "none.npz")
    assert main(["run", str(config), str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert "none.npz: no such pack" in capsys.readouterr().err
    write_pack(tmp_path / "none.npz")
    assert main(["run", str(config), str(tmp_path / "run"), "--device", "cpu", "--set", "training.batch=3.5"]) == 2
    assert "training.batch is 3.5" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
