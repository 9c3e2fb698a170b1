"""A trained picker on disk: one safetensors file whose metadata hold the configuration and where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from picker.errors import ConfigError
from picker.model.config import ModelConfig
from picker.model.picker import Picker


def save_picker(
    path: str | Path, model: Picker, provenance: dict[str, Any] | None = None, matrices: torch.dtype = torch.float32
) -> None:
    """Write weights and metadata; the file is complete or absent (written beside, then renamed).

    Vectors are float32, and so are matrices unless they are said to be of another type.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"config": json.dumps(model.config.to_dict()), "provenance": json.dumps(provenance or {})}
    weights = {
        name: value.detach().to("cpu", matrices if value.ndim >= 2 else torch.float32).contiguous()
        for name, value in model.state_dict().items()
    }
    beside = path.with_name(path.name + ".part")
    save_file(weights, beside, metadata=metadata)
    beside.replace(path)


def load_picker(path: str | Path) -> tuple[Picker, dict[str, Any]]:
    """The model in evaluation mode and its provenance; raises ConfigError that names the file and what is wrong."""
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such checkpoint; train one with `pretrain train`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = Picker(ModelConfig.from_dict(json.loads(metadata["config"])))
        model.load_state_dict(weights)
        provenance: dict[str, Any] = json.loads(metadata.get("provenance", "{}"))
    except (SafetensorError, ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{path}: not a checkpoint of a picker ({error}); train it again or name another file"
        ) from error
    return model.eval(), provenance
