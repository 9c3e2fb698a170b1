"""What a picker is, for everyone who may not import torch: rates, orders, sizes and the name of each state tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from picker.calibration import PhaseCalibration, phases_of
from picker.errors import BundleError

SPEC_VERSION = 2
READ_VERSIONS = (1, 2)
"""2 may give a phase a second look; 1 is the same without one."""
DEFAULT_THRESHOLDS: Mapping[str, float] = {"P": 0.3, "S": 0.3}


@dataclass(frozen=True, kw_only=True)
class StateTensor:
    """One tensor of recurrent state; ``shape`` leaves out the batch axis, which comes first."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size_bytes(self) -> int:
        """Bytes a station."""
        return math.prod(self.shape) * (2 if self.dtype == "float16" else 4)


@dataclass(frozen=True, kw_only=True)
class PickerSpec:
    """The contract between a step graph and whoever drives it.

    A step takes ``chunk_samples`` samples of each component and yields as many probabilities of each phase; the
    probability at output sample t speaks of input sample ``t - lookahead_samples``, and that of a phase with a second
    look of so many samples less again (``lookahead_of``).
    ``thresholds`` are for the raw probability, ``calibration`` (by phase; what is not named is stated raw) for what is
    told of a pick.
    """

    name: str
    lookahead_samples: int
    state: tuple[StateTensor, ...]
    sampling_rate_hz: float = 100.0
    components: str = "ZNE"
    chunk_samples: int = 64
    phases: tuple[str, ...] = ("P", "S", "N")
    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_THRESHOLDS))
    second_look_samples: Mapping[str, int] = field(default_factory=dict)
    calibration: Mapping[str, PhaseCalibration] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    version: int = SPEC_VERSION

    @property
    def state_bytes(self) -> int:
        """Bytes of state a station."""
        return sum(tensor.size_bytes for tensor in self.state)

    def lookahead_of(self, phase: str) -> int:
        """Samples between an instant and the output that speaks of ``phase`` at it."""
        return self.lookahead_samples + self.second_look_samples.get(phase, 0)

    @property
    def longest_lookahead_samples(self) -> int:
        """Of all phases."""
        return max(self.lookahead_of(phase) for phase in self.phases)

    def to_json(self) -> str:
        """The text of ``spec.json``."""
        values = asdict(self)
        for key in ("calibration", "second_look_samples"):
            if not values[key]:  # so that a bundle from before there were any keeps its text and its digest
                del values[key]
        return json.dumps(values, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "spec.json") -> PickerSpec:
        """Read ``spec.json``; raises BundleError that names ``source`` and the key."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise BundleError(f"{source}: not JSON ({error}); export the bundle again") from error
        version = values.get("version") if isinstance(values, dict) else None
        if version not in READ_VERSIONS:
            raise BundleError(
                f"{source}: version is {version!r}, this Onset reads version {SPEC_VERSION}; "
                "upgrade Onset or export the bundle again"
            )
        try:
            values["state"] = tuple(
                StateTensor(name=t["name"], shape=tuple(t["shape"]), dtype=t["dtype"]) for t in values["state"]
            )
            values["phases"] = tuple(values["phases"])
            values["calibration"] = phases_of(values.get("calibration", {}))
            for key in ("thresholds", "calibration", "second_look_samples"):
                if unknown := sorted(values.get(key, {}).keys() - set(values["phases"])):
                    raise BundleError(f"{source}: {key} names {', '.join(unknown)}, which phases lacks; mend spec.json")
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{source}: {error}; export the bundle again") from error
