"""Settings of a simulation: how long records are, and how often what is in them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from picker.errors import ConfigError
from pretrain.data.trace import RATE_HZ

SHORTEST_S, LONGEST_S = 20.0, 600.0


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """What is simulated; every ``_share`` is a probability a record.

    ``min_snr`` is the least ratio of signal to noise (root mean square, 1-20 Hz, of the 1.5 s after an onset) of a
    label; what lies below it is doubtful. ``magnitude`` and ``distance_km`` are the lowest and the highest. Raises
    ConfigError for values that are out of range.
    """

    seconds: float = 60.0
    seed: int = 0
    min_snr: float = 2.0
    magnitude: tuple[float, float] = (0.0, 5.0)
    distance_km: tuple[float, float] = (2.0, 200.0)
    noise_share: float = 0.1
    several_share: float = 0.12
    cultural_share: float = 0.5
    teleseism_share: float = 0.02
    glitch_share: float = 0.06
    gap_share: float = 0.05
    offset_share: float = 0.4
    held_out_share: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share") and not 0 <= value <= 1:
                raise ConfigError(f"{_option(field.name)} {value:g}: it is a probability, from 0 to 1")
        if not SHORTEST_S <= self.seconds <= LONGEST_S:
            raise ConfigError(f"--seconds {self.seconds:g}: records last {SHORTEST_S:g} to {LONGEST_S:g} s")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}: it must not be negative")
        if not 0 < self.min_snr <= 100:
            raise ConfigError(f"--min-snr {self.min_snr:g}: a ratio of amplitudes above 0 and at most 100")
        for name, lowest, highest in (("magnitude", -1.0, 7.0), ("distance_km", 1.0, 400.0)):
            low, high = getattr(self, name)
            if not lowest <= low < high <= highest:
                raise ConfigError(
                    f"{_option(name)} {low:g} {high:g}: give low < high between {lowest:g} and {highest:g}"
                )

    @property
    def samples(self) -> int:
        """Length of a record."""
        return round(self.seconds * RATE_HZ)


def _option(name: str) -> str:
    return "--" + name.removesuffix("_km").replace("_", "-")
