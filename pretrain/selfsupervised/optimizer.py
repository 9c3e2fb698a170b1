"""AdamW over the groups of an objective, with what must not decay left out, and the schedule of the learning rate.

Of what an objective lets decay, two kinds of weights do not: pooling weights (they start as a mean, and zero is no
natural place for them) and the rows of each ``MLSTMBlock.project`` that make the gates. Those rows are part of one
matrix, so that matrix is in a group without decay, and the rest of its rows decays here by hand: exactly what AdamW
does (arXiv 1711.05101), before its update.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from picker.model.block import MLSTMBlock
from picker.model.unet import Pool, Unpool
from pretrain.objectives.objective import Objective
from pretrain.selfsupervised.settings import TrainingSettings

LAST_RATE = 0.01
"""Share of the peak that the learning rate ends at."""


def rate_share(share: float, warmup: float, one_step: float) -> float:
    """Learning rate over its peak at a ``share`` of the run: linear warm-up, then half a cosine.

    ``one_step`` is the share that a step is: the first step of a warm-up does not have rate zero.
    """
    if share < warmup:
        return min(1.0, (share + one_step) / warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (share - warmup) / (1 - warmup))))
    return LAST_RATE + (1 - LAST_RATE) * cosine


class Optimizer:
    """AdamW (one fused kernel a group on a GPU) whose step can be called off on the device, without waiting for it."""

    def __init__(self, objective: Objective, settings: TrainingSettings) -> None:
        self.settings = settings
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        groups = list(_groups(objective, settings))
        _complete(objective, groups)
        self.adam = torch.optim.AdamW(groups, lr=settings.rate, betas=settings.betas, fused=True)
        self._decayed = [
            (group, [p.detach()[:rows] for p, rows in zip(group["params"], group["rows"], strict=True)])
            for group in self.adam.param_groups
            if group["rows"]
        ]

    def set_rates(self, share: float) -> None:
        """The learning rate of every group at a share of the run."""
        settings = self.settings
        factor = rate_share(share, settings.warmup, 1 / settings.steps)
        for group in self.adam.param_groups:
            group["lr"] = settings.rate * group["share"] * factor

    def rates(self) -> dict[str, float]:
        """Learning rates for the log, by ``rate/<group>``; parts of a group share a rate."""
        return {f"rate/{group['name'].split(',')[0]}": float(group["lr"]) for group in self.adam.param_groups}

    def gradients(self) -> list[Tensor]:
        """Of all parameters that have one."""
        return [p.grad for p in self.parameters if p.grad is not None]

    def clear(self) -> None:
        """Forget the gradients."""
        self.adam.zero_grad(set_to_none=True)

    @torch.no_grad()
    def scale_and_clip(self, scale: Tensor) -> Tensor:
        """Multiply the gradients by ``scale`` (), then bring their norm down to ``clip``; returns the norm before."""
        gradients = self.gradients()
        norm = nn.utils.get_total_norm(gradients) * scale
        torch._foreach_mul_(gradients, scale * (self.settings.clip / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @torch.no_grad()
    def step(self, bad: Tensor) -> None:
        """Update all parameters, unless ``bad`` () is true: then weights, moments and step counters stay."""
        kept = (~bad).to(self.parameters[0].dtype)
        for group, rows in self._decayed:
            torch._foreach_mul_(rows, 1 - group["lr"] * self.settings.weight_decay * kept)
        # What torch.amp.GradScaler uses: the fused kernel reads it on the device.
        self.adam.found_inf = bad.float()  # type: ignore[attr-defined]
        self.adam.step()


def _groups(objective: Objective, settings: TrainingSettings) -> Iterator[dict[str, Any]]:
    """Groups of AdamW: the objective's, with gates and pooling weights split off those that decay."""
    gates, pooling = _gate_rows(objective), _pooling_weights(objective)
    for group in objective.parameter_groups():
        parts: dict[str, list[nn.Parameter]] = {
            group.name: [],
            f"{group.name}, gates": [],
            f"{group.name}, pooling": [],
        }
        first, with_gates, undecayed = parts.values()
        for parameter in group.parameters:
            if group.decay and parameter in gates:
                with_gates.append(parameter)
            elif group.decay and parameter in pooling:
                undecayed.append(parameter)
            else:
                first.append(parameter)
        for name, parameters in parts.items():
            if parameters:
                decay = settings.weight_decay if group.decay and parameters is first else 0.0
                rows = [gates[p] for p in parameters] if parameters is with_gates else []
                yield {"params": parameters, "name": name, "share": group.rate, "weight_decay": decay, "rows": rows}


def _gate_rows(objective: nn.Module) -> dict[nn.Parameter, int]:
    """Matrices whose last rows make gates, and how many rows come before those."""
    blocks = [module for module in objective.modules() if isinstance(module, MLSTMBlock)]
    weights: list[nn.Parameter] = [block.project.weight for block in blocks]  # type: ignore[misc]
    return {w: sum(block.sizes) - 2 * block.heads for w, block in zip(weights, blocks, strict=True)}


def _pooling_weights(objective: nn.Module) -> set[nn.Parameter]:
    return {module.weight for module in objective.modules() if isinstance(module, Pool | Unpool)}


def _complete(objective: Objective, groups: list[dict[str, Any]]) -> None:
    """Every trained parameter is in one group; an objective that forgets one is wrong."""
    found = [parameter for group in groups for parameter in group["params"]]
    named = {p: name for name, p in objective.named_parameters() if p.requires_grad}
    if len(found) != len(set(found)) or set(found) != set(named):
        missing = [name for p, name in named.items() if p not in set(found)]
        raise ValueError(f"{type(objective).__name__}.parameter_groups: each parameter once; missing {missing}")
