"""Checkpoints: whole or not at all, in shards, in 16 bits, of this configuration; and the backbone by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pretraining_run import TINY, Rows, settings, trainer, weights
from torch import Tensor

from picker.errors import ConfigError
from picker.model.picker import Picker
from pretrain.objectives.backbone import Backbone, transfer
from pretrain.objectives.backbone_file import load_backbone, save_backbone
from pretrain.objectives.contrastive import Contrastive
from pretrain.selfsupervised import checkpoint
from pretrain.selfsupervised.checkpoint import (
    Form,
    load_objective,
    read_checkpoint,
    resume,
    save_checkpoint,
)
from pretrain.selfsupervised.launch import restart_advice
from pretrain.selfsupervised.settings import plain
from pretrain.selfsupervised.trainer import Trainer


def trained(steps: int = 3, **changes: dict[str, Any]) -> Trainer:
    """A trainer some steps on."""
    made = trainer(settings(**changes), Rows(2, tape=False))
    for _ in range(steps):
        made.step()
    return made


def again(folder: Path, **changes: dict[str, Any]) -> tuple[Trainer, list[str]]:
    """A fresh trainer that takes up what is in ``folder``."""
    saved = read_checkpoint(folder)
    assert saved is not None
    made = trainer(settings(**changes), Rows(2, tape=False))
    return made, resume(saved, made)


def moments(of: Trainer) -> dict[str, Tensor]:
    """All state of the optimizer by name."""
    names = {parameter: name for name, parameter in of.objective.named_parameters()}
    state = of.optimizer.adam.state
    return {f"{names[p]}/{key}": value for p, values in state.items() for key, value in values.items()}


@pytest.mark.parametrize("shard_bytes", [2**30, 8192, 1])
def test_a_round_trip_in_shards(tmp_path: Path, shard_bytes: int) -> None:
    """All comes back to the bit, from one file or many; no file of several tensors is larger than asked."""
    made = trained()
    save_checkpoint(tmp_path, made, Form(shard_bytes=shard_bytes))
    found, notes = again(tmp_path)
    assert notes == ["going on from step 3"]
    torch.testing.assert_close(weights(found), weights(made), rtol=0, atol=0)
    torch.testing.assert_close(moments(found), moments(made), rtol=0, atol=0)
    assert found.counters.step == 3
    files = list((tmp_path / "last").glob("shard-*"))
    tensors = 3 * len(list(made.objective.parameters())) + len(list(made.objective.parameters()))
    assert {2**30: len(files) == 1, 8192: 10 < len(files) < 60, 1: len(files) == tensors}[shard_bytes]
    if shard_bytes == 8192:
        # The header of a file is not counted.
        assert sum(file.stat().st_size > 8192 + 4096 for file in files) == 0
    made.step()
    found.step()
    torch.testing.assert_close(weights(found), weights(made), rtol=0, atol=0)


def test_sixteen_bits(tmp_path: Path) -> None:
    """About half the size; weights and moments come back nearly; and it says that this is not exact."""
    made = trained()
    save_checkpoint(tmp_path / "whole", made)
    save_checkpoint(tmp_path / "half", made, Form(sixteen_bit=True))
    sizes = [(tmp_path / name / "last" / "shard-000.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.65 * sizes[0]
    found, notes = again(tmp_path / "half")
    assert "nearly, not exactly" in notes[1]
    torch.testing.assert_close(weights(found), weights(made), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(moments(found), moments(made), rtol=1e-2, atol=1e-12)
    assert all(value.dtype == torch.float32 for value in moments(found).values())
    found.step()
    assert found.counters.skipped == 0


@pytest.mark.parametrize("wound", ["cut", "changed", "missing", "index"])
def test_a_damaged_one_falls_back(tmp_path: Path, wound: str) -> None:
    """To the one before, with a warning; where that is damaged too, one error that names both."""
    made = trained(2)
    save_checkpoint(tmp_path, made)
    made.step()
    save_checkpoint(tmp_path, made)

    def hurt(folder: Path) -> None:
        file = folder / ("index.json" if wound == "index" else "shard-000.safetensors")
        data = file.read_bytes()
        if wound == "missing":
            file.unlink()
        elif wound == "changed":
            file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        else:
            file.write_bytes(data[: len(data) // 2])

    hurt(tmp_path / "last")
    with pytest.warns(UserWarning, match="last is damaged .*going on from .*previous"):
        found, notes = again(tmp_path)
    assert notes == ["going on from step 2"]
    assert found.counters.step == 2
    hurt(tmp_path / "previous")
    with pytest.raises(ConfigError, match=r"last is damaged .*previous is damaged .*remove the folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("killed_at", ["shard", "index", "first rename", "second rename"])
def test_killed_while_it_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str) -> None:
    """At whatever point the writing ends there is a whole checkpoint, and the next one is written over the rest."""
    made = trained(2)
    save_checkpoint(tmp_path, made)
    made.step()
    save_checkpoint(tmp_path, made)
    made.step()
    flushed, rename = checkpoint._flushed, Path.rename

    def flush(path: Path, data: bytes) -> None:
        if killed_at == "shard" or (killed_at == "index" and path.name == "index.json"):
            path.write_bytes(data[: len(data) // 2])
            raise KeyboardInterrupt
        flushed(path, data)

    def move(self: Path, target: Path) -> Path:
        moved = {"first rename": "last", "second rename": "last.part"}.get(killed_at)
        if self.name == moved:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_flushed", flush)
        patch.setattr(Path, "rename", move)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, made)
    found, _ = again(tmp_path)
    # Where `last` has already made way, the new one lies whole beside it.
    assert found.counters.step == (4 if killed_at == "second rename" else 3)
    save_checkpoint(tmp_path, made)
    assert again(tmp_path)[0].counters.step == 4
    assert not (tmp_path / "last.part").exists()


def test_another_configuration_is_named(tmp_path: Path) -> None:
    """Every key that differs and may not, with what it was; those that change no weight may."""
    save_checkpoint(tmp_path, trained(1))
    with pytest.raises(ConfigError, match=r"model\.dropout 0\.1 \(now 0\.2\), training\.seed 0 \(now 3\); use another"):
        again(tmp_path, model={"dropout": 0.2}, training={"seed": 3})
    again(tmp_path, training={"steps": 99}, monitoring={"log_every": 1}, model={"checkpointing": True})


def test_nothing_there(tmp_path: Path) -> None:
    """An empty folder, or none, is a run that has not begun."""
    assert read_checkpoint(tmp_path) is None
    assert read_checkpoint(tmp_path / "none") is None


def test_the_index_says_where_the_data_are(tmp_path: Path) -> None:
    """Step, micro-batch, versions and settings can be read by a person."""
    save_checkpoint(tmp_path, trained(3, training={"accumulate": 2}))
    index = json.loads((tmp_path / "last" / "index.json").read_text(encoding="utf-8"))
    assert index["data"] == {"micro_batch": 6, "ranks": 1}
    assert index["settings"]["training"]["accumulate"] == 2
    assert index["versions"]["torch"] == torch.__version__


def test_the_backbone_goes_into_a_picker(tmp_path: Path) -> None:
    """Written, read and transferred it computes what it did; in 16 bits nearly."""
    made = trained()
    backbone = made.objective.backbone.eval()
    save_backbone(tmp_path / "b.safetensors", backbone, {"step": 3})
    save_backbone(tmp_path / "half.safetensors", backbone, {}, torch.float16)
    found, provenance = load_backbone(tmp_path / "b.safetensors")
    assert provenance == {"step": 3}
    assert found.config == backbone.config
    batch = Rows(2, tape=False).batch(0)
    with torch.no_grad():
        expected = backbone(batch.waveform, batch.valid)
        assert torch.equal(found(batch.waveform, batch.valid), expected)
        half, _ = load_backbone(tmp_path / "half.safetensors")
        torch.testing.assert_close(half(batch.waveform, batch.valid), expected, rtol=0.1, atol=0.1)
    picker = Picker(TINY)
    transfer(found, picker)
    torch.testing.assert_close(picker.state_dict()["late.weight"], backbone.late.weight.detach(), rtol=0, atol=0)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.7 * (tmp_path / "b.safetensors").stat().st_size


def test_the_objective_of_a_run(tmp_path: Path) -> None:
    """It comes back with its settings, in evaluation mode, and gives the same codes."""
    made = trained()
    save_checkpoint(tmp_path, made)
    objective, asked = load_objective(tmp_path)
    assert isinstance(objective, Contrastive)
    assert not objective.training
    assert plain(asked) == plain(made.settings)
    batch = Rows(2, tape=False).batch(0)
    with torch.no_grad():
        assert torch.equal(objective.codes(batch), made.objective.codes(batch))
    with pytest.raises(ConfigError, match="no checkpoint in it"):
        load_objective(tmp_path / "other")


def test_what_is_no_backbone(tmp_path: Path) -> None:
    """One error that names the file."""
    with pytest.raises(ConfigError, match=r"none\.safetensors: no such backbone"):
        load_backbone(tmp_path / "none.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(ConfigError, match=r"b\.safetensors: not a pretrained backbone"):
        load_backbone(tmp_path / "b.safetensors")
    save_backbone(tmp_path / "c.safetensors", Backbone(TINY), {})
    shutil.copy(tmp_path / "c.safetensors", tmp_path / "d.safetensors")
    assert load_backbone(tmp_path / "d.safetensors")[1] == {}


def test_buffers_of_one_module_stay_together_among_another_number_of_ranks() -> None:
    """Two banks are alike in how full they are, not in what they hold: one rank must not take the counter alone."""
    ranks = [
        {
            "buffer/bank.filled": torch.tensor(64),
            "buffer/bank.vectors": torch.full((2, 2), float(rank)),
            "buffer/quantizer.usage": torch.ones(3),
            "statistics": torch.zeros(1),
        }
        for rank in range(2)
    ]
    assert checkpoint._own_of(ranks, 0, 1).keys() == {"buffer/quantizer.usage"}
    assert checkpoint._own_of(ranks, 1, 2) is ranks[1]


def test_advice_where_torchrun_shares_its_store_over_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only there: without restarts, or with a store of each attempt, there is nothing to mend."""
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    assert restart_advice() is None
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE" in str(restart_advice())
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert restart_advice() is None
