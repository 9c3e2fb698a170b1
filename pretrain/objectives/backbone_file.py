"""A pretrained backbone on disk: one safetensors file, what `pretrain run` leaves and fine-tuning starts from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from picker.errors import ConfigError
from picker.model.config import ModelConfig
from pretrain.objectives.backbone import Backbone

BACKBONE = "backbone.safetensors"
KIND = "backbone"
SCALE = ".scale"
"""Behind the name of a matrix in 8 bits: what its rows are to be multiplied by."""


def save_backbone(
    path: Path, backbone: Backbone, provenance: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """The weights that fine-tuning starts from, named as in ``Backbone``; the file is complete or absent.

    In int8 each row of a matrix has a scale of its own, in float16 as all that is no matrix.
    """
    weights = stored(backbone.state_dict(), dtype)
    metadata = {
        "kind": KIND,
        "config": json.dumps(backbone.config.to_dict()),
        "provenance": json.dumps(dict(provenance)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    save_file(weights, beside, metadata=metadata)
    beside.replace(path)


def stored(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights as they lie in a file of ``dtype`` (float32, float16 or int8), by name."""
    weights = dict[str, Tensor]()
    for name, value in sorted(state.items()):
        exact = value.detach().cpu()
        if dtype == torch.int8 and exact.is_floating_point() and exact.ndim > 1:
            rows = exact.flatten(1)
            scale = (rows.abs().amax(dim=1, keepdim=True) / 127).to(torch.float16)
            weights[name] = (rows / _divisor(scale)).round().clamp(-127, 127).to(torch.int8).view(exact.shape)
            weights[name + SCALE] = scale.flatten()
        else:
            narrow = torch.float16 if dtype == torch.int8 else dtype
            weights[name] = exact.to(narrow if exact.is_floating_point() else None).contiguous().clone()
    return weights


def restored(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``stored``, in float32 but for what is no floating-point number."""
    scales = {name: scale for name, scale in weights.items() if name.endswith(SCALE)}
    state = dict[str, Tensor]()
    for name, value in weights.items():
        if (scale := scales.get(name + SCALE)) is not None:
            state[name] = (value.flatten(1).float() * scale.float()[:, None]).view(value.shape)
        elif name not in scales:
            state[name] = value.float() if value.is_floating_point() else value
    return state


def _divisor(scale: Tensor) -> Tensor:
    """Rows of zeros stay so."""
    return torch.where(scale == 0, 1.0, scale.float())


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
        backbone.load_state_dict(restored(weights))
        provenance: dict[str, Any] = json.loads(metadata.get("provenance", "{}"))
    except (SafetensorError, ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{path}: not a pretrained backbone ({error}); name another file") from error
    return backbone.eval(), provenance
