"""By which rules each station is picked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from picker.decision import PhaseRule
from streamer.chunk import StationKey

PhaseRules = Mapping[str, PhaseRule]


@dataclass(frozen=True)
class StationRules:
    """The rule of each phase, by station: called with a station it gives those of the first pattern that fits.

    ``exceptions`` are (network, station, rules) with the wildcards of ``fnmatch``; ``default`` is for all others.
    """

    default: PhaseRules
    exceptions: tuple[tuple[str, str, PhaseRules], ...] = ()

    def __call__(self, station: StationKey) -> PhaseRules:
        """The rules of ``station``."""
        for network, name, rules in self.exceptions:
            if fnmatchcase(station.network, network) and fnmatchcase(station.station, name):
                return rules
        return self.default
