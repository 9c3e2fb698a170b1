"""A pretrained backbone on disk: one safetensors file, what `pretrain run` leaves and fine-tuning starts from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from picker.errors import ConfigError
from picker.model.config import ModelConfig
from pretrain.objectives.backbone import Backbone

BACKBONE = "backbone.safetensors"
KIND = "backbone"


def save_backbone(
    path: Path, backbone: Backbone, provenance: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """The weights that fine-tuning starts from, named as in ``Backbone``; the file is complete or absent."""
    weights = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous().clone()
        for name, value in sorted(backbone.state_dict().items())
    }
    metadata = {
        "kind": KIND,
        "config": json.dumps(backbone.config.to_dict()),
        "provenance": json.dumps(dict(provenance)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    save_file(weights, beside, metadata=metadata)
    beside.replace(path)


def is_backbone(path: str | Path) -> bool:
    """Whether a file is one that ``save_backbone`` wrote, and not the checkpoint of a whole picker."""
    try:
        with safe_open(path, framework="pt") as file:
            return bool((file.metadata() or {}).get("kind") == KIND)
    except (SafetensorError, OSError):
        return False


def load_backbone(path: str | Path) -> tuple[Backbone, dict[str, Any]]:
    """A pretrained backbone in evaluation mode (in float32 however it was written), and its provenance.

    Raises ConfigError that names the file and what is wrong. ``objectives.backbone.transfer`` puts it into a picker.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such backbone; pretrain one with `pretrain run`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        backbone = Backbone(ModelConfig.from_dict(json.loads(metadata["config"])))
        backbone.load_state_dict(weights)
        provenance: dict[str, Any] = json.loads(metadata.get("provenance", "{}"))
    except (SafetensorError, ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{path}: not a pretrained backbone ({error}); name another file") from error
    return backbone.eval(), provenance
