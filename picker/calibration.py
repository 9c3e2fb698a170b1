"""What a bundle says of its picks beyond the network: how far its probabilities and peak widths may be believed.

Thresholds, peaks and the choice between two phases work on the raw probability of the network, so that no calibration
adds, drops or moves a pick. What is stated of a pick is calibrated, by phase:

    probability = sigmoid(logit(raw) / temperature + bias)
    uncertainty = sqrt((width_factor * width)^2 + floor^2)

Temperature scaling: Guo et al. 2017, arXiv 1706.04599; with the bias it is Platt's. Without a calibration what is
stated is what was found. ``Calibration`` is the file that carries it, with the thresholds that were chosen beside it,
from ``pretrain calibrate`` to ``python -m export build``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from picker.errors import ConfigError
from picker.pick import Pick

CALIBRATION_VERSION = 1
_LEAST = 1e-7
"""Probabilities are kept this far from 0 and 1, where the logit has no end."""


@dataclass(frozen=True, kw_only=True)
class PhaseCalibration:
    """How the picks of one phase are stated, see the top of this file; the default changes nothing.

    Raises ValueError for a number that is not finite, a temperature that is not positive, and negative widths.
    """

    temperature: float = 1.0
    bias: float = 0.0
    width_factor: float = 1.0
    floor_samples: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, not {value!r}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, not {self.temperature}")
        if min(self.width_factor, self.floor_samples) < 0 or self.width_factor + self.floor_samples == 0:
            raise ValueError(
                f"width_factor {self.width_factor} and floor_samples {self.floor_samples} must not be negative, "
                "nor both zero"
            )

    def __str__(self) -> str:
        return (
            f"sigmoid(logit(p) / {self.temperature:.3g} {self.bias:+.3g}); "
            f"sqrt(({self.width_factor:.3g} width)^2 + {self.floor_samples:.3g}^2) samples"
        )

    def probability(self, raw: float) -> float:
        """The probability that a pick with the peak ``raw`` is right."""
        if self.temperature == 1 and self.bias == 0:
            return raw
        inside = min(1 - _LEAST, max(_LEAST, raw))
        return 1 / (1 + math.exp(-(math.log(inside / (1 - inside)) / self.temperature + self.bias)))

    def uncertainty(self, width_samples: float) -> float:
        """The standard deviation in samples of a pick whose peak is as wide as a Gaussian of ``width_samples``."""
        return math.hypot(self.width_factor * width_samples, self.floor_samples)

    def stated(self, pick: Pick) -> Pick:
        """``pick`` as it is told: calibrated where it was raw."""
        width = pick.uncertainty_samples
        return replace(
            pick,
            probability=self.probability(pick.probability),
            uncertainty_samples=None if width is None else self.uncertainty(width),
        )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Thresholds and calibrations by phase, fitted for one checkpoint; ``fitted`` says on what, and how well."""

    thresholds: Mapping[str, float]
    phases: Mapping[str, PhaseCalibration]
    checkpoint_sha256: str | None = None
    fitted: Mapping[str, Any] = field(default_factory=dict)
    version: int = CALIBRATION_VERSION

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> Calibration:
        """Read the file; raises ConfigError that names ``source`` and what is wrong in it."""
        mend = "write it again with `pretrain calibrate`"
        try:
            values = json.loads(text)
            if values["version"] != CALIBRATION_VERSION:
                raise ConfigError(
                    f"{source}: version is {values['version']!r}, this Onset reads {CALIBRATION_VERSION}; {mend}"
                )
            read = cls(**{**values, "phases": phases_of(values["phases"])})
            for phase, threshold in read.thresholds.items():
                if not 0 < threshold < 1:
                    raise ConfigError(f"{source}: threshold of {phase} is {threshold}, not between 0 and 1; {mend}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{source}: not a calibration ({error!r}); {mend}") from error
        return read


def phases_of(values: Mapping[str, Mapping[str, float]]) -> dict[str, PhaseCalibration]:
    """Calibrations by phase from plain values; TypeError and ValueError where they are wrong."""
    return {phase: PhaseCalibration(**of_phase) for phase, of_phase in values.items()}
