"""What the daemon is told about the status of stations, and about muting them."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pydantic import Field, model_validator

from streamer.chunk import StationKey
from streamer.deadman import RateRule
from streamer.mute import MuteRule
from streamer.pick_settings import Pattern
from streamer.section import Section


class StatusSettings(Section):
    """[status]: the retained message of each station, and when a station needs attention."""

    enabled: bool = Field(default=True, description="Whether the status of each station is published.")
    every_s: float = Field(
        default=60.0, ge=5, le=86400, description="A station's status is published at most so often (s)."
    )
    most_per_s: float = Field(
        default=20.0, gt=0, le=1000, description="Status messages of all stations in a second at most."
    )
    offline_after_s: float = Field(
        default=120.0, ge=5, le=86400, description="A station without data for so long is offline (s)."
    )
    late_after_s: float = Field(
        default=60.0, gt=0, le=86400, description="A station whose data come so long after their time is late (s)."
    )
    forget_after_h: float = Field(
        default=168.0, ge=0.01, le=8760, description="The status of a station offline for so long is cleared (h)."
    )
    memory_days: float = Field(
        default=14.0, ge=1, le=365, description="Time in which a station's past of picks fades to 1/e (days)."
    )
    silent_least_h: float = Field(
        default=6.0, ge=1, le=8760, description="No station is silent with less data than this without a pick (h)."
    )
    noisy_least: int = Field(
        default=60, ge=1, le=100_000, description="No station is noisy with fewer picks than this in an hour."
    )

    def rate_rule(self) -> RateRule:
        """What counts as silent and noisy."""
        return RateRule(
            memory_s=self.memory_days * 86400,
            silent_least_s=self.silent_least_h * 3600,
            noisy_least=self.noisy_least,
        )


class MutedStations(Section):
    """[[mute.stations]]: the mute of some stations; of several tables that fit a station the first holds."""

    network: Pattern = Field(default="*", description="Network code; ?, * and [ ] are wildcards.")
    station: Pattern = Field(default="*", description="Station code; ?, * and [ ] are wildcards.")
    enabled: bool = Field(description="Whether these stations may be muted.")
    picks: int | None = Field(
        default=None, ge=1, le=100_000, description="mute.picks here; unset is that of the table above."
    )
    release_picks: int | None = Field(
        default=None, ge=1, le=100_000, description="mute.release_picks here; unset is that of the table above."
    )


class MuteSettings(Section):
    """[mute]: a station that picks without end is not published until it has calmed down."""

    enabled: bool = Field(
        default=False,
        description="Whether stations may be muted; a station alone cannot tell noise from an earthquake swarm.",
    )
    picks: int = Field(default=1000, ge=1, le=100_000, description="More picks than this in the window mute a station.")
    window_min: float = Field(default=10.0, gt=0, le=1440, description="Length of the window (minutes of data).")
    release_picks: int = Field(
        default=100, ge=1, le=100_000, description="Fewer picks than this in each window end the mute ..."
    )
    release_min: float = Field(default=30.0, ge=0, le=10080, description="... after so long (minutes of data).")
    stations: tuple[MutedStations, ...] = Field(
        default=(), description="Stations treated otherwise: a list of {network, station, enabled, picks}."
    )

    @model_validator(mode="after")
    def _hysteresis(self) -> MuteSettings:
        if self.release_picks > self.picks:
            raise ValueError("release_picks must not be above picks, or the mute would end as it begins")
        for number, one in enumerate(self.stations):
            if (one.release_picks or self.release_picks) > (one.picks or self.picks):
                raise ValueError(f"stations[{number}]: release_picks must not be above picks")
        return self

    def rule(self, station: StationKey) -> MuteRule | None:
        """How ``station`` is muted, None where it never is."""
        fitting = (
            one
            for one in self.stations
            if fnmatchcase(station.network, one.network) and fnmatchcase(station.station, one.station)
        )
        own = next(fitting, None)
        if not (self.enabled if own is None else own.enabled):
            return None
        return MuteRule(
            picks=(own and own.picks) or self.picks,
            window_s=self.window_min * 60,
            release_picks=(own and own.release_picks) or self.release_picks,
            release_s=self.release_min * 60,
        )
