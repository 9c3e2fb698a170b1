"""The groups of parameters of a picker in training: what decays, and how fast each layer learns.

Fine-tuning changes what is near the output most: a layer's rate is the rate of the run times ``layer_decay`` to the
power of its distance from the head (Howard & Ruder, arXiv 1801.06146).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import nn

from picker.model.picker import Picker

HEAD = "head."


def distance_from_head(name: str, levels: int) -> int:
    """Stages between a parameter and the logits: 0 for the head, then up, down and the encoder, finest level last.

    ``name`` is that of ``Picker.named_parameters``; raises ValueError for one that belongs to no stage.
    """
    if name.startswith(HEAD):
        return 0
    if name.startswith("encoder."):
        return 2 * levels + 1
    if name.startswith("late."):
        return 1  # joins the finest level on its way up
    part, level = name.removeprefix("unet.").split(".")[:2]
    match part:
        case "up" | "unpools":
            return 1 + int(level)
        case "down":
            return 2 * levels - int(level)
        case "pools":
            return 2 * levels - 1 - int(level)
    raise ValueError(f"{name}: not a parameter of a picker")


def parameter_groups(model: Picker, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """AdamW groups: matrices decay, norms, biases and other vectors do not; ``scale`` is the factor of their rate.

    ``distance`` says how far from the head the group lies; with ``layer_decay`` 1 all of the backbone is at 1.
    """
    levels, found = len(model.config.levels), defaultdict(list)
    for name, parameter in model.named_parameters():
        distance = distance_from_head(name, levels)
        key = min(distance, 1) if layer_decay == 1 else distance
        found[key, parameter.ndim >= 2].append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if matrix else 0.0,
            "scale": layer_decay**distance,
            "distance": distance,
        }
        for (distance, matrix), parameters in sorted(found.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]


def freeze_backbone(model: nn.Module, frozen: bool) -> None:
    """Whether everything but the head stands still: no gradient is computed for it."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or name.startswith(HEAD))
