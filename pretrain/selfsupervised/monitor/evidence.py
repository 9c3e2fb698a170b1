"""What the log and the settings of a run say, as the numbers that advice is given by."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from picker.errors import ConfigError
from picker.model.config import STRIDE
from pretrain.selfsupervised.monitor.alarms import FULL_CODES, FULL_GROUPS
from pretrain.selfsupervised.monitor.curves import running_median
from pretrain.selfsupervised.monitor.journal import TRAIN, VALIDATION, Entry, Kind, read_journal

SETTINGS = "settings.json"
LATEST = 15
"""Entries of training whose median is its figure now."""
DEFAULTS: Mapping[str, Any] = {
    "model.dropout": 0.1,
    "model.lookahead_samples": 64,
    "objective.name": "contrastive",
    "objective.diversity_weight": 0.1,
    "objective.dropout": 0.1,
    "objective.encoder_gradient": 0.1,
    "objective.mask.kind": "share",
    "objective.mask.length": 10,
    "objective.mask.share": 0.65,
    "objective.negatives.count": 100,
    "objective.negatives.kind": "same_recording",
    "objective.negatives.pool": 1024,
    "objective.penalty_weight": 1.0,
    "objective.projection": 256,
    "objective.quantizer.codes": 320,
    "objective.quantizer.groups": 2,
    "objective.quantizer_rate": 0.5,
    "objective.revive_every": 0,
    "objective.temperature.kind": "fixed",
    "objective.temperature.start": 0.1,
    "data.window_samples": 4096,
    "training.accumulate": 1,
    "training.batch": 64,
    "training.clip": 1.0,
    "training.rate": 1e-3,
    "training.steps": 100_000,
    "training.warmup": 0.2,
    "training.weight_decay": 0.01,
}
"""Where the run folder holds no settings: those of `configs/pretrain/base.toml`."""


@dataclass(frozen=True)
class Evidence:
    """A run: its log, its settings, and F1 of a picker fine-tuned from it and of one trained without it, if known."""

    entries: Sequence[Entry]
    asked: Mapping[str, Any] = field(default_factory=dict)
    tune_f1: float | None = None
    scratch_f1: float | None = None

    def setting(self, key: str) -> Any:
        """A setting by its dotted name; where the run does not tell, the default."""
        found: Any = self.asked
        for word in key.split("."):
            found = found.get(word) if isinstance(found, Mapping) else None
        return DEFAULTS[key] if found is None else found

    def history(self, kind: Kind, name: str) -> list[float]:
        """Every finite value of a figure, in order."""
        found = [entry[name] for entry in self.entries if entry.get("kind") == kind and name in entry]
        return [float(value) for value in found if math.isfinite(value)]

    def training(self, name: str) -> float | None:
        """The figure of training now: the median of its latest entries."""
        found = self.history(TRAIN, name)[-LATEST:]
        return median(found) if found else None

    def validation(self, name: str, data_set: str = "all") -> float | None:
        """The figure of the latest validation."""
        found = self.history(VALIDATION, f"{data_set}/{name}")
        return found[-1] if found else None

    def now(self, name: str) -> float | None:
        """The figure by which the run is judged: of the latest validation, else of training."""
        held_out = self.validation(name)
        return self.training(name) if held_out is None else held_out

    @property
    def steps(self) -> int:
        """The last step in the log."""
        return int(self.entries[-1]["step"]) if self.entries else 0

    @property
    def validations(self) -> int:
        """How often the run was validated."""
        return sum(entry.get("kind") == VALIDATION for entry in self.entries)

    @property
    def data_sets(self) -> list[str]:
        """Data sets of the latest validation."""
        last = next((entry for entry in reversed(self.entries) if entry.get("kind") == VALIDATION), {})
        found = {key.rpartition("/")[0] for key in last if "/" in key}
        return sorted(found - {"all"})

    @property
    def groups(self) -> int:
        """Groups of the codebook."""
        return int(self.setting("objective.quantizer.groups"))

    @property
    def codes(self) -> int:
        """Codes of all groups together."""
        return self.groups * int(self.setting("objective.quantizer.codes"))

    def scaled(self, perplexity: float) -> float:
        """A perplexity of 640 codes in 2 groups, in the codebook of this run."""
        share = (perplexity - FULL_GROUPS) / (FULL_CODES - FULL_GROUPS)
        return self.groups + share * (self.codes - self.groups)

    @property
    def frames(self) -> int:
        """Frames a window."""
        return int(self.setting("data.window_samples")) // STRIDE

    @property
    def masked_share(self) -> float:
        """Share of the frames that end up masked; by fairseq's meaning spans overlap, and fewer are."""
        share = float(self.setting("objective.mask.share"))
        return 1 - math.exp(-share) if self.setting("objective.mask.kind") == "fairseq" else share

    @property
    def learnt(self) -> float | None:
        """From 0 (chance) to 1: mutual information as a share of its bound, or the share that is explained."""
        information, negatives = self.now("mutual_information"), self.now("valid_negatives")
        if information is None or negatives is None:
            return self.now("explained")
        return information / math.log1p(negatives) if negatives > 0 else 0.0

    def loss_curve(self) -> list[float]:
        """The loss of the validations where there are six of them, else the running median of training."""
        held_out = self.history(VALIDATION, "all/loss")
        return held_out if len(held_out) >= 6 else running_median(self.history(TRAIN, "loss"))


def read_evidence(folder: Path, tune_f1: float | None = None, scratch_f1: float | None = None) -> Evidence:
    """The evidence of a run folder; raises ConfigError where it has no log of a pretraining run."""
    entries = read_journal(folder)
    if not any(entry.get("kind") in (TRAIN, VALIDATION) for entry in entries):
        raise ConfigError(f"{folder}: its log is not that of `pretrain run`; name the folder of a pretraining run")
    return Evidence(entries, read_settings(folder), tune_f1, scratch_f1)


def read_settings(folder: Path) -> dict[str, Any]:
    """The tables of ``settings.json``, empty where there is none; raises ConfigError where it is damaged."""
    path = folder / SETTINGS
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: not the settings of a run ({error}); remove it, and defaults are assumed"
        ) from error
