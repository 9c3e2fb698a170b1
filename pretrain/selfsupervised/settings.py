"""The settings of a pretraining run, as `configs/pretrain/base.toml` states them.

Five tables: ``[model]``, ``[objective]``, ``[data]``, ``[training]`` and ``[monitoring]``. Descriptions of the fields
are the reference; an unknown key is an error.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from picker.errors import ConfigError
from picker.model.config import Gate, ModelConfig, preset
from pretrain.objectives.objective import Objective, build, objectives
from pretrain.selfsupervised.data_settings import DataSettings
from pretrain.selfsupervised.monitor.alarms import AlarmSettings

Precision = Literal["bf16-mixed", "32-true", "64-true"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(_Table):
    """What is pretrained. What is not given is as the preset says."""

    preset: str = Field(default="base", description="small, base or large")
    gate: Gate = Field(default="sigmoid", description="input gate of the mLSTM")
    lookahead_samples: int = Field(default=64, ge=0, multiple_of=4, description="what the picker will wait for")
    pooling: int = Field(default=4, ge=1, description="tokens a token of the next coarser level")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="of each residual branch of the backbone")
    encoder_features: int | None = Field(default=None, ge=1, description="of the convolutions; none: the preset's")
    tfla_kernels: bool = Field(
        default=True, description="Triton kernels of the mLSTM on a GPU; elsewhere plain PyTorch"
    )
    compile: bool = Field(default=True, description="torch.compile on a GPU: a slow start, faster steps")
    checkpointing: bool = Field(default=False, description="compute blocks twice instead of keeping their activations")

    def config(self) -> ModelConfig:
        """The network; raises ConfigError where it cannot be."""
        known = preset(self.preset)
        features = known.encoder_features if self.encoder_features is None else self.encoder_features
        return replace(
            known,
            gate=self.gate,
            lookahead_samples=self.lookahead_samples,
            pooling=self.pooling,
            dropout=self.dropout,
            encoder_features=features,
        )


class ObjectiveSettings(BaseModel):
    """The objective's ``name``; all other keys of the table are its own (`pretrain/objectives/<name>.py`)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(default="contrastive", description="file of pretrain/objectives that holds it")

    def values(self) -> dict[str, Any]:
        """The objective's own table."""
        return dict(self.model_extra or {})


class TrainingSettings(_Table):
    """How it is trained. ``steps`` and ``minutes`` bound a run; the rates follow whichever is further."""

    steps: int = Field(default=100_000, ge=1, description="optimizer steps")
    minutes: float | None = Field(default=None, gt=0, description="limit beside `steps`; the learning rate follows")
    batch: int = Field(default=64, ge=1, description="windows an optimizer step, over all ranks and micro-batches")
    accumulate: int = Field(default=1, ge=1, description="micro-batches a step on each rank: less memory, same step")
    rate: float = Field(default=1e-3, gt=0, description="peak learning rate; each group has its share of it")
    weight_decay: float = Field(default=0.01, ge=0, description="of matrices; not of norms, biases, gates, codebook")
    betas: tuple[float, float] = Field(default=(0.9, 0.98), description="decay of the moments of AdamW")
    warmup: float = Field(default=0.2, ge=0, lt=1, description="share of the run that leads up to the peak")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    precision: Precision = Field(default="bf16-mixed", description="gates, state, softmax and loss stay float32")
    seed: int = Field(default=0, ge=0, description="of weights, windows, masks, negatives and dropout")

    @model_validator(mode="after")
    def _betas(self) -> TrainingSettings:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}; both must be at least 0 and below 1")
        return self

    def windows(self, ranks: int) -> int:
        """Windows a micro-batch on each of ``ranks``; raises ConfigError where the batch does not divide."""
        parts = ranks * self.accumulate
        if self.batch % parts:
            raise ConfigError(
                f"training.batch is {self.batch}; it must be a multiple of ranks x training.accumulate, {parts} here"
            )
        return self.batch // parts


class MonitoringSettings(_Table):
    """How often a run says how it fares, and when it saves."""

    log_every: int = Field(default=50, ge=1, description="steps between lines of the log")
    validate_every: int = Field(default=1000, ge=1, description="steps between validations")
    checkpoint_every: int = Field(default=1000, ge=1, description="steps between checkpoints")
    checkpoint_minutes: float | None = Field(default=10.0, gt=0, description="most minutes between checkpoints")
    tensorboard: bool = Field(default=True, description="write RUN/tensorboard")
    figures: Literal["each", "last", "none"] = Field(
        default="each", description="draw RUN/figures at each validation (seconds, t-SNE mostly), at the last, or never"
    )
    alarms: AlarmSettings = Field(default=AlarmSettings(), description="from where on something is wrong")


class RunSettings(_Table):
    """Everything that shapes a run."""

    model: ModelSettings = ModelSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    data: DataSettings
    training: TrainingSettings = TrainingSettings()
    monitoring: MonitoringSettings = MonitoringSettings()

    def make(self) -> Objective:
        """The objective with fresh weights (of the global random state); raises ConfigError where it cannot be."""
        return build(self.objective.name, self.model.config(), self.objective.values())


MAY_CHANGE = (
    "model.tfla_kernels",
    "model.compile",
    "model.checkpointing",
    "data.pack",
    "data.on_device",
    "data.device_limit_gib",
    "data.workers",
    "data.prefetch",
    "data.held_out_windows",
    "training.steps",
    "training.minutes",
    "monitoring",
)
"""Keys, or whole tables, that may differ when a run goes on."""


def load(path: str | Path, changes: Sequence[str] = ()) -> RunSettings:
    """Settings from a TOML file, with ``changes`` such as ``training.steps=100`` on top.

    A relative ``data.pack`` is relative to the folder of the file, unless a change gives it. Raises ConfigError that
    names the file, the key and the mend.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); see configs/pretrain/base.toml") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML ({error}); see configs/pretrain/base.toml") from error
    data = tables.get("data")
    if isinstance(data, dict) and isinstance(data.get("pack"), str):
        data["pack"] = str(path.parent / data["pack"])
    for change in changes:
        _set(tables, change)
    settings = _validated(RunSettings, tables, path)
    try:
        settings.model.config()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    known, name = objectives(), settings.objective.name
    if name not in known:
        raise ConfigError(f"{path}: objective.name is {name!r}; choose one of {', '.join(sorted(known))}")
    _validated(known[name].Settings, settings.objective.values(), path, "objective.")
    return settings


def _set(tables: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    names = key.strip().split(".")
    if not equals or len(names) < 2:
        raise ConfigError(f"--set {change}: write it as table.key=value, for example training.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        value = text.strip()
    *folders, last = names
    for name in folders:
        tables = tables.setdefault(name, {})
        if not isinstance(tables, dict):
            raise ConfigError(f"--set {change}: {name} is not a table")
    tables[last] = value


Model = TypeVar("Model", bound=BaseModel)


def _validated(model: type[Model], tables: dict[str, Any], path: Path, prefix: str = "") -> Model:
    try:
        return model.model_validate(tables)
    except ValidationError as error:
        first = error.errors()[0]
        key = prefix + (".".join(map(str, first["loc"])) or "settings")
        if first["type"] == "extra_forbidden":
            mend = f"{key}: unknown key; remove it or correct its spelling"
        elif first["type"] == "missing":
            mend = f"{key} is missing: give it"
        else:
            mend = f"{key} is {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
        raise ConfigError(f"{path}: {mend}") from error


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with names such as ``training.rate``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def plain(settings: RunSettings) -> dict[str, Any]:
    """What goes into ``settings.json`` and a checkpoint: the settings with every default written out."""
    values: dict[str, Any] = json.loads(settings.model_dump_json())
    own = objectives()[settings.objective.name].Settings.model_validate(settings.objective.values())
    values["objective"] = {"name": settings.objective.name, **json.loads(own.model_dump_json())}
    return values


def differing(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What of two plain settings differs and may not: ``key was (now)``."""
    before, now = flat(theirs), flat(mine)
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    return [
        f"{key} {before.get(key)!r} (now {now.get(key)!r})"
        for key in keys
        if not any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)
    ]
