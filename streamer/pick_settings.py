"""What the daemon is told about picks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from picker.decision import PhaseRule
from picker.errors import ConfigError
from picker.spec import PickerSpec
from streamer.section import Section
from streamer.station_rules import StationRules

Pattern = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[A-Za-z0-9?*\[\]!-]+$")]


class Thresholds(Section):
    """[picks.thresholds]: probability at which a phase becomes a pick."""

    P: float | None = Field(default=None, gt=0, lt=1, description="Threshold of P; unset means the bundle's own.")
    S: float | None = Field(default=None, gt=0, lt=1, description="Threshold of S; unset means the bundle's own.")


class StationThresholds(Section):
    """[[picks.stations]]: thresholds of some stations; of several tables that fit a station the first holds."""

    network: Pattern = Field(default="*", description="Network code; ?, * and [ ] are wildcards.")
    station: Pattern = Field(default="*", description="Station code; ?, * and [ ] are wildcards.")
    thresholds: Thresholds = Field(description="Thresholds here; a phase left unset has that of picks.thresholds.")


class PickSettings(Section):
    """[picks]: how probabilities become picks."""

    thresholds: Thresholds = Field(
        default_factory=Thresholds, description="Probability at which each phase becomes a pick."
    )
    stations: tuple[StationThresholds, ...] = Field(
        default=(), description="Stations with thresholds of their own: a list of {network, station, thresholds}."
    )
    release: float = Field(
        default=0.5, gt=0, lt=1, description="A pick is decided when its probability falls to this part of its peak."
    )
    dead_time_s: float = Field(
        default=0.5, ge=0, description="No second pick of the same phase sooner than this after one (s)."
    )
    longest_s: float = Field(
        default=1.0, gt=0, description="A pick is decided at the latest so long after its peak (s)."
    )
    provisional: bool = Field(
        default=False, description="Whether a pick is published when it begins too, before its peak is known."
    )
    latency_high_s: float = Field(
        default=10.0, gt=0, description="A pick published so long after its data is marked, latency.high (s)."
    )

    def rules(self, spec: PickerSpec) -> dict[str, PhaseRule]:
        """The rule of each phase that the bundle picks, with the bundle's threshold where none is set.

        Raises ConfigError for a threshold of a phase that it does not pick.
        """
        return self._rules(spec, self.thresholds, "picks.thresholds")

    def station_rules(self, spec: PickerSpec) -> StationRules:
        """``rules`` by station; raises ConfigError as it does."""
        default = self.rules(spec)
        exceptions = []
        for index, one in enumerate(self.stations):
            here = one.thresholds.model_dump(exclude_none=True)
            thresholds = self.thresholds.model_copy(update=here)
            rules = self._rules(spec, thresholds, f"picks.stations[{index}].thresholds")
            exceptions.append((one.network, one.station, rules))
        return StationRules(default, tuple(exceptions))

    def _rules(self, spec: PickerSpec, thresholds: Thresholds, key: str) -> dict[str, PhaseRule]:
        for phase, threshold in thresholds:
            if threshold is not None and phase not in spec.thresholds:
                raise ConfigError(f"{key}.{phase}: this bundle picks {', '.join(spec.thresholds)} only")
        return {
            phase: PhaseRule(
                threshold=getattr(thresholds, phase, None) or spec.thresholds[phase],
                release=self.release,
                dead_time_s=self.dead_time_s,
                longest_s=self.longest_s,
            )
            for phase in spec.thresholds
        }
