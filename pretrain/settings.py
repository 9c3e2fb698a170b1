"""What shapes a training run: its settings, and the learning rate that follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from picker.errors import ConfigError
from picker.model.config import Gate
from pretrain.augment_settings import PLAIN, AugmentSettings

SHARES = {"manual": 0.30, "auto": 0.10, "manual_lowq": 0.05, "simulated": 0.15, "pseudo": 0.25, "noise": 0.15}
"""How often each kind of trace is drawn: analysts' picks most, whatever their number; a kind that a pack lacks leaves
its share to the others."""

AUGMENTATIONS = {"live": AugmentSettings(), "plain": PLAIN}
"""How windows are changed in training, by name."""

MAY_CHANGE = ("pack", "more", "steps", "minutes", "log_every", "validate_every", "compile", "tfla_kernels", "patience")
"""Settings that may differ when a run goes on; the schedule of the learning rate follows new ``steps``."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that shapes a run; raises ConfigError that names the option which cannot be.

    ``rate`` is the peak learning rate, ``warmup`` the share of the run that leads up to it, ``clip`` the largest norm
    of a gradient, ``average`` the decay of the averaged weights, ``minutes`` a limit beside ``steps``; ``initial`` is a
    checkpoint whose weights the run starts from. ``more`` are further packs, ``shares`` what differs from SHARES.

    For ``freeze_steps`` only the head learns, at ``head_rate``; then all of it, each layer by ``layer_decay`` slower
    than the one above it. ``windows`` consecutive windows are trained on with the state carried from one to the next
    and detached between them, or, where ``whole``, in one pass whose gradient reaches through all of them. ``weight_p``
    and ``weight_s`` multiply the loss near an onset of the phase. A run ends after ``patience`` validations without a
    better one; 0 is never.
    """

    pack: str
    more: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    label_fraction: float = 1.0
    augmentation: str = "live"
    initial: str | None = None
    preset: str = "small"
    gate: Gate = "sigmoid"
    pooling: int = 4
    lookahead_samples: int = 64
    second_look_samples: int = 0
    steps: int = 6000
    batch: int = 64
    window_samples: int = 6144
    windows: int = 1
    whole: bool = False
    rate: float = 2e-3
    head_rate: float = 1e-3
    freeze_steps: int = 0
    layer_decay: float = 1.0
    weight_p: float = 1.0
    weight_s: float = 1.0
    weight_decay: float = 0.05
    warmup: float = 0.1
    dropout: float = 0.1
    clip: float = 1.0
    average: float = 0.999
    seed: int = 0
    log_every: int = 50
    validate_every: int = 500
    minutes: float | None = None
    patience: int = 0
    compile: bool = False
    tfla_kernels: bool = True

    def __post_init__(self) -> None:
        must = {
            "window_samples": (self.window_samples % 64 == 0, "it must be a multiple of 64"),
            "steps": (self.steps >= 1, "it must be at least 1"),
            "batch": (self.batch >= 1, "it must be at least 1"),
            "validate_every": (self.validate_every >= 1, "it must be at least 1"),
            "log_every": (self.log_every >= 1, "it must be at least 1"),
            "windows": (self.windows >= 1, "it must be at least 1"),
            "whole": (self.windows > 1 or not self.whole, "it needs --windows of 2 or more"),
            "label_fraction": (0 < self.label_fraction <= 1, "it must be above 0 and at most 1"),
            "freeze_steps": (0 <= self.freeze_steps <= self.steps, "it must lie between 0 and --steps"),
            "layer_decay": (0 < self.layer_decay <= 1, "it must be above 0 and at most 1"),
            "patience": (self.patience >= 0, "it must not be negative"),
            "head_rate": (0 < self.head_rate < math.inf, "it must be positive"),
            "weight_p": (0 < self.weight_p < math.inf, "it must be positive"),
            "weight_s": (0 < self.weight_s < math.inf, "it must be positive"),
            "rate": (0 < self.rate < math.inf, "it must be positive"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "it must not be negative"),
            "dropout": (0 <= self.dropout < 1, "it must be at least 0 and below 1"),
            "warmup": (0 <= self.warmup < 1, "it must be at least 0 and below 1"),
            "minutes": (self.minutes is None or 0 < self.minutes < math.inf, "give a positive number, or leave it out"),
        }
        for name, (holds, mend) in must.items():
            if not holds:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; {mend}")
        if self.window_samples <= self.lookahead_samples + self.second_look_samples:
            raise ConfigError(
                f"--window-samples is {self.window_samples}; nothing is learnt from windows that are no longer than "
                f"the look-ahead of {self.lookahead_samples + self.second_look_samples} samples"
            )
        if self.augmentation not in AUGMENTATIONS:
            raise ConfigError(f"--augmentation is {self.augmentation!r}; choose one of {', '.join(AUGMENTATIONS)}")
        if unknown := sorted(self.shares.keys() - SHARES.keys()):
            raise ConfigError(f"--share {unknown[0]}: no such kind of trace; there are {', '.join(SHARES)}")
        if any(not 0 <= share < math.inf for share in self.shares.values()):
            raise ConfigError("--share: a share must not be negative")

    @property
    def drawn(self) -> dict[str, float]:
        """The shares in use."""
        return SHARES | dict(self.shares)


def rate_at(step: int, settings: TrainSettings, progress: float | None = None) -> float:
    """Learning rate of the head: ``head_rate`` while the rest is frozen; then a linear warm-up, and half a cosine to
    1 % of the peak. ``progress`` overrides step / steps.
    """
    if step < settings.freeze_steps:
        return settings.head_rate
    share = step / settings.steps if progress is None else progress
    frozen = settings.freeze_steps / settings.steps
    share = max(0.0, share - frozen) / (1 - frozen) if frozen < 1 else 1.0
    if share < settings.warmup:
        return settings.rate * min(1.0, (share + 1 / settings.steps) / settings.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (share - settings.warmup) / (1 - settings.warmup))))
    return settings.rate * (0.01 + 0.99 * cosine)
