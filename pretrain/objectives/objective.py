"""The interface of an objective.

One thing is minimised: the sum of ``Outcome.total`` over micro-batches and ranks, divided by the sum of their
``count``. So a trainer calls ``backward`` on ``total``, adds gradients up over micro-batches and ranks, and divides
them once by the global count: exact however unequal the counts are.

To add an objective, write one file in this folder with a class that is registered by name, and name it in the
configuration:

    @register("mine")
    class Mine(Objective):
        Settings = MySettings

What it needs beyond one backbone it makes itself: several augmented views of a batch (``views.py``), a second encoder
that follows the first (move it in ``after_step``).
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from picker.errors import ConfigError
from picker.model.config import ModelConfig
from pretrain.objectives.backbone import Backbone


@dataclass(frozen=True)
class Batch:
    """Windows: ``waveform`` (B, 3, N) with the offset removed, and where it is ``valid`` (B, 3, N) bool."""

    waveform: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Progress:
    """Optimizer steps so far, and the ``share`` of training that is over (0 to 1)."""

    step: int = 0
    share: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What a batch came to.

    ``loss_sum`` and the weighted ``extras`` are sums over ``count`` things; ``statistics`` are sums without gradient
    that may be added up over micro-batches, ranks and the batches of a validation before ``Objective.metrics``.
    """

    loss_sum: Tensor
    count: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """What to call ``backward`` on: a sum, to be divided by the global count afterwards."""
        return self.loss_sum + torch.stack([*self.extras.values()]).sum() if self.extras else self.loss_sum


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate (``rate`` times the peak) and whether they ``decay``."""

    name: str
    parameters: list[nn.Parameter]
    rate: float = 1.0
    decay: bool = True


class NoSettings(BaseModel):
    """Nothing to set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Objective(nn.Module, ABC):
    """A backbone and what it is trained for. ``Settings`` is a frozen pydantic model that refuses unknown keys."""

    Settings: ClassVar[type[BaseModel]] = NoSettings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config)

    @abstractmethod
    def forward(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Outcome:
        """One micro-batch. Every draw but dropout's is from ``generator``, which differs between ranks.

        In training mode every rank must call it equally often: some sums go over ranks.
        """

    @abstractmethod
    def metrics(self, statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars to log, from statistics added up over whatever they are to speak of."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """Every parameter once; matrices decay, norms, biases and other vectors do not."""
        return split_groups("backbone", self.parameters())

    def after_step(self, progress: Progress) -> dict[str, Tensor]:
        """To be called once after each optimizer step (not each micro-batch), on every rank; returns what to log.

        Here live a momentum encoder, a queue, a revival of dead codes.
        """
        return {}


def split_groups(name: str, parameters: Iterable[nn.Parameter], rate: float = 1.0) -> list[ParameterGroup]:
    """Two groups, those that decay and those that do not; an empty one is left out."""
    known = list(parameters)
    matrices = ParameterGroup(name, [p for p in known if p.ndim >= 2], rate, True)
    vectors = ParameterGroup(f"{name}, no decay", [p for p in known if p.ndim < 2], rate, False)
    return [group for group in (matrices, vectors) if group.parameters]


_REGISTRY: dict[str, type[Objective]] = {}
Registered = TypeVar("Registered", bound=type[Objective])


def register(name: str) -> Callable[[Registered], Registered]:
    """Class decorator: makes an objective known by ``name``."""

    def keep(cls: Registered) -> Registered:
        _REGISTRY[name] = cls
        return cls

    return keep


def objectives() -> dict[str, type[Objective]]:
    """All objectives by name, found by importing every file of this folder."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    return dict(_REGISTRY)


def build(name: str, config: ModelConfig, values: Mapping[str, Any] | None = None) -> Objective:
    """The objective of that name with settings from plain values (a table of TOML).

    Raises ConfigError that names the key and the mend.
    """
    known = objectives()
    if name not in known:
        raise ConfigError(f"objective {name!r} does not exist; choose one of {', '.join(sorted(known))}")
    try:
        settings = known[name].Settings.model_validate(dict(values or {}))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (is {e['input']!r})" for e in error.errors())
        raise ConfigError(f"objective {name!r}: {wrong}") from error
    cls: Callable[..., Objective] = known[name]
    return cls(config, settings)
