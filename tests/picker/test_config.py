"""Sizes of the presets, bad configurations, gate biases, checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import CHUNK, MINIATURE, motion, network, whole
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from picker.errors import ConfigError
from picker.model.block import FORGET_BIAS, INPUT_BIAS
from picker.model.checkpoint import load_picker, save_picker
from picker.model.config import PRESETS, LevelConfig, ModelConfig, preset
from picker.model.picker import Picker
from picker.model.state import describe

SIZES = {"small": (1.0e6, 1.6e6, 20e6, 0.25e6), "base": (5e6, 8e6, 70e6, 0.6e6), "large": (16e6, 24e6, 200e6, 1e6)}
"""Fewest and most parameters, most multiply-adds a station-second, most bytes of state: DESIGN.md."""


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_their_sizes(name: str) -> None:
    """Parameters, multiply-adds a station-second as served, and bytes of state."""
    fewest, most, operations, state_bytes = SIZES[name]
    model = Picker(preset(name)).eval()
    assert model.config.name == name
    assert fewest <= sum(p.numel() for p in model.parameters()) <= most
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, CHUNK), torch.ones(1, 3, CHUNK, dtype=torch.bool))
    assert operations / 4 < counter.get_total_flops() / 2 * 100 / CHUNK <= operations
    assert state_bytes / 4 < sum(t.size_bytes for t in describe(model.initial_state(1))) <= state_bytes


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"gate": "softmax"}, "softmax"),
        ({"key_size": 24}, "key_size"),
        ({"value_size": 8}, "value_size"),
        ({"lookahead_samples": -4}, "lookahead_samples"),
        ({"lookahead_samples": 30}, "lookahead_samples"),
        ({"pooling": 3}, "chunk"),
        ({"pooling": 0}, "pooling"),
        ({"chunk_samples": 0}, "chunk_samples"),
        ({"head_features": 0}, "head_features"),
        ({"stride": 2}, "stride"),
        ({"levels": ()}, "levels"),
    ],
)
def test_a_bad_configuration_is_refused(change: dict[str, Any], names: str) -> None:
    """With an error that names the model and the key."""
    with pytest.raises(ConfigError, match=names) as error:
        replace(MINIATURE, **change)
    assert "miniature" in str(error.value)


@pytest.mark.parametrize("change", [{"width": 0}, {"heads": 0}, {"down_blocks": -1}, {"up_blocks": -1}])
def test_a_bad_level_is_refused(change: dict[str, int]) -> None:
    """Sizes below the smallest that work."""
    with pytest.raises(ConfigError, match="at least 1"):
        replace(LevelConfig(width=8, heads=1, down_blocks=1, up_blocks=1), **change)


def test_an_unknown_preset_lists_the_known() -> None:
    """The error is the help."""
    with pytest.raises(ConfigError, match="small, base, large"):
        preset("tiny")


def test_configuration_round_trip() -> None:
    """Through JSON, as in a checkpoint."""
    for config in (MINIATURE, *PRESETS.values()):
        assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", ["small", "base"])
def test_gate_biases_survive_the_build(name: str) -> None:
    """After the whole network is built: forget biases spread over the heads, input biases low, gate weights zero."""
    for block in Picker(PRESETS[name]).unet.blocks():
        heads = block.heads
        assert torch.equal(block.project.bias[-heads:], torch.linspace(*FORGET_BIAS, heads))
        assert (block.project.bias[-2 * heads : -heads] == INPUT_BIAS).all()
        assert (block.project.weight[-2 * heads :] == 0).all()
        assert (block.project.weight[: -2 * heads] != 0).any()
    assert (FORGET_BIAS, INPUT_BIAS) == ((3.0, 6.0), -2.0)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    """The same outputs to the bit, the same configuration, the provenance, and nothing left beside the file."""
    model, x = network(seed=3), motion(1, 4)
    save_picker(tmp_path / "deep" / "p.safetensors", model, {"steps": 7, "data": ["a"]})
    loaded, provenance = load_picker(tmp_path / "deep" / "p.safetensors")
    assert torch.equal(whole(loaded, x), whole(model, x))
    assert not loaded.training
    assert loaded.config == model.config
    assert provenance == {"steps": 7, "data": ["a"]}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["p.safetensors"]


def wrong_files(folder: Path) -> dict[str, Path]:
    """Files that are no checkpoint, each in its own way."""
    model = network()
    good = folder / "good"
    save_picker(good, model)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    config = model.config.to_dict()
    files = {name: folder / name for name in ("text", "empty", "cut")}
    files["text"].write_text("no checkpoint")
    files["empty"].touch()
    files["cut"].write_bytes(good.read_bytes()[:5000])
    metadata = {
        "plain": None,
        "broken": {"config": "{"},
        "unknown key": {"config": json.dumps({**config, "colour": 1})},
        "bad value": {"config": json.dumps({**config, "gate": "softmax"})},
        "other sizes": {"config": json.dumps({**config, "head_features": 12})},
        "provenance": {"config": json.dumps(config), "provenance": "{"},
    }
    for name, values in metadata.items():
        files[name] = folder / name
        save_file(weights, files[name], metadata=values)
    return {"absent": folder / "absent", **files}


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    """Absent, damaged, another network's, or with a configuration that is none: ConfigError names the file."""
    files = wrong_files(tmp_path)
    assert len(files) == 10
    for name, path in files.items():
        with pytest.raises(ConfigError) as error:
            load_picker(path)
        assert str(path) in str(error.value), name
    assert load_picker(tmp_path / "good")[0].config == MINIATURE
