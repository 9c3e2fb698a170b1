"""What shapes a training run: its settings, and the learning rate that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from picker.errors import ConfigError
from picker.model.config import Gate

MAY_CHANGE = ("pack", "steps", "minutes", "log_every", "validate_every", "compile")
"""Settings that may differ when a run goes on; the schedule of the learning rate follows new ``steps``."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that shapes a run; raises ConfigError that names the option which cannot be.

    ``rate`` is the peak learning rate, ``warmup`` the share of the run that leads up to it, ``clip`` the largest norm
    of a gradient, ``average`` the decay of the averaged weights, ``minutes`` a limit beside ``steps``; ``initial`` is a
    checkpoint whose weights the run starts from.
    """

    pack: str
    initial: str | None = None
    preset: str = "small"
    gate: Gate = "sigmoid"
    pooling: int = 4
    lookahead_samples: int = 64
    steps: int = 6000
    batch: int = 64
    window_samples: int = 6144
    rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    dropout: float = 0.1
    clip: float = 1.0
    average: float = 0.999
    seed: int = 0
    log_every: int = 50
    validate_every: int = 500
    minutes: float | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        must = {
            "window_samples": (self.window_samples % 64 == 0, "it must be a multiple of 64"),
            "steps": (self.steps >= 1, "it must be at least 1"),
            "batch": (self.batch >= 1, "it must be at least 1"),
            "validate_every": (self.validate_every >= 1, "it must be at least 1"),
            "log_every": (self.log_every >= 1, "it must be at least 1"),
            "rate": (0 < self.rate < math.inf, "it must be positive"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "it must not be negative"),
            "dropout": (0 <= self.dropout < 1, "it must be at least 0 and below 1"),
            "warmup": (0 <= self.warmup < 1, "it must be at least 0 and below 1"),
            "minutes": (self.minutes is None or 0 < self.minutes < math.inf, "give a positive number, or leave it out"),
        }
        for name, (holds, mend) in must.items():
            if not holds:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; {mend}")
        if self.window_samples <= self.lookahead_samples:
            raise ConfigError(
                f"--window-samples is {self.window_samples}; nothing is learnt from windows that are no longer than "
                f"the look-ahead of {self.lookahead_samples} samples"
            )


def rate_at(step: int, settings: TrainSettings, progress: float | None = None) -> float:
    """Learning rate: linear warm-up, then half a cosine to 1 % of the peak; ``progress`` overrides step / steps."""
    share = step / settings.steps if progress is None else progress
    if share < settings.warmup:
        return settings.rate * min(1.0, (share + 1 / settings.steps) / settings.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (share - settings.warmup) / (1 - settings.warmup))))
    return settings.rate * (0.01 + 0.99 * cosine)
