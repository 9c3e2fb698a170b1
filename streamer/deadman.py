"""Whether a station picks as its own past says: silent for far too long, or picking far too often.

No clock and no I/O. Time is that of the data which the station delivered, in seconds: what did not come says nothing of
silence. It is cut into bins of ten minutes, and everything is decided when one ends.

**Silent.** Picks come in clusters (P and S, aftershocks), so bins with a pick are counted rather than picks: n of them
in T seconds, both forgotten exponentially. Under a Poisson process whose rate is known that well, a silence of t s has
the probability ``(1 + t / T) ** -n`` (the gamma-Poisson predictive). A station is silent when that is below
``RARE``, the silence has lasted ``silent_least_s``, and it is twice as long as the longest of its past: nights and
weekends are long silences too, and rates that follow them are not Poisson.

**Noisy.** The picks of the last hour against mean and variance of the hours before, as a negative binomial; its tail
is bounded after Chernoff. A station is noisy when the bound is below ``RARE`` and there are ``noisy_least`` picks at
least, until they are below half of what made it noisy, or the past has come to say so.

Of what made a station silent or noisy no more than the limit is learnt, so that a fault does not become the past at
once; a change for good becomes it in a few rounds, or weeks. Nothing is said before ``learn_s`` of data.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

BIN_S = 600.0
HOUR_BINS = 6
ACCEPT_S = 7 * 86400.0
"""What is noisy for so long begins to be learnt as it is."""
RARE = 1e-6
"""Probability below which a silence or a rate is no chance."""
MARGIN = 2.0
"""A silence is long when it is so many times the longest of the past."""
LONGEST_MEMORY = 4.0
"""The longest silence is forgotten so many times more slowly than rates: it must outlast some weekends."""

Verdict = Literal["none", "silent", "noisy"]


@dataclass(frozen=True, kw_only=True)
class RateRule:
    """What counts as silent and noisy. ``memory_s`` is the time in which the past fades to 1/e."""

    memory_s: float = 14 * 86400.0
    learn_s: float = 7 * 86400.0
    silent_least_s: float = 6 * 3600.0
    noisy_least: int = 60
    """Picks in an hour."""


@dataclass
class PickRate:
    """The past of one station and its present verdict. All attributes but ``rule`` are plain numbers: its state."""

    rule: RateRule = field(default_factory=RateRule)
    verdict: Verdict = "none"
    observed_s: float = 0.0
    """Data seen in all."""
    in_bin_s: float = 0.0
    in_bin: int = 0
    hour: list[int] = field(default_factory=list)
    """Picks of the last bins that have ended, up to five."""
    active: float = 0.0
    """Bins with a pick, faded."""
    exposure_s: float = 0.0
    """Data up to the end of the last of them, faded alike."""
    quiet_bins: int = 0
    """Bins since."""
    longest_s: float = 0.0
    """Longest silence of the past, faded."""
    noisy_at: float = 0.0
    """Picks in an hour that made it noisy."""
    noisy_cap: float = 0.0
    """What is learnt of an hour at most while it is noisy, and for how many bins it has been."""
    noisy_bins: int = 0
    recent: list[float] = field(default_factory=list)
    """Picks in an hour, one value a bin, that are not learnt yet."""
    weight: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    """Of the picks in an hour, one value a bin: how many values, their sum, that of their squares; faded."""

    def pick(self) -> None:
        """A pick was made."""
        self.in_bin += 1

    def advance(self, seconds: float) -> None:
        """So much data more has come (s)."""
        self.observed_s += seconds
        self.in_bin_s += seconds
        while self.in_bin_s >= BIN_S:
            self.in_bin_s -= BIN_S
            count, self.in_bin = self.in_bin, 0
            self._end_bin(count)

    @property
    def allowed_s(self) -> float:
        """Longest silence that is still no sign of anything; infinite before enough is known."""
        if self.observed_s < self.rule.learn_s or not self.active:
            return math.inf
        exponent = -math.log(RARE) / self.active
        by_chance_s = self.exposure_s * math.expm1(exponent) if exponent < 50 else math.inf
        return max(self.rule.silent_least_s, MARGIN * self.longest_s, by_chance_s)

    @property
    def mean_hour(self) -> float:
        """Picks in an hour of the past, faded; never 0."""
        return (self.total + HOUR_BINS) / (self.weight + HOUR_BINS)

    @property
    def unusual_from(self) -> float:
        """Picks in an hour that are no chance; infinite before enough is known."""
        if self.observed_s < self.rule.learn_s or not self.weight:
            return math.inf
        hours = self.weight / HOUR_BINS
        mean = self.mean_hour
        variance = self.squares / self.weight - (self.total / self.weight) ** 2
        spread = max(0.0, (variance - mean) / mean**2) + 1 / (hours + 1)
        low, high = mean, 2 * mean + 1
        while tail_bound(high, mean, 1 / spread) > RARE:
            low, high = high, 2 * high
        while high - low > 0.5:
            middle = (low + high) / 2
            low, high = (middle, high) if tail_bound(middle, mean, 1 / spread) > RARE else (low, middle)
        return high

    def saved(self) -> dict[str, Any]:
        """The state as plain values."""
        state = asdict(self)
        del state["rule"]
        return state

    @classmethod
    def restored(cls, rule: RateRule, state: dict[str, Any]) -> PickRate:
        """The state again, under ``rule``; raises TypeError for one of another version."""
        return cls(rule=rule, **state)

    def _end_bin(self, count: int) -> None:
        unusual_from = self.unusual_from
        hour = sum(self.hour) + count
        self.hour = [*self.hour, count][-(HOUR_BINS - 1) :]
        fade = math.exp(-BIN_S / self.rule.memory_s)
        self._learn(hour, unusual_from, fade)
        self.longest_s *= math.exp(-BIN_S / (LONGEST_MEMORY * self.rule.memory_s))
        if count:
            self._end_silence(fade)
        else:
            self.quiet_bins += 1
        self._judge(hour, unusual_from)

    def _end_silence(self, fade: float) -> None:
        """A bin with a pick has ended: learn the silence before it."""
        allowed_s = self.allowed_s
        bins = self.quiet_bins + 1
        faded = fade**bins
        self.longest_s = max(self.longest_s, min(self.quiet_bins * BIN_S, MARGIN * allowed_s))
        self.exposure_s = self.exposure_s * faded + BIN_S * (1 - faded) / (1 - fade)
        self.active = self.active * faded + 1
        self.quiet_bins = 0

    def _learn(self, hour: int, unusual_from: float, fade: float) -> None:
        """Take up the value of an hour ago, so that what is judged is not yet part of the past."""
        if self.verdict == "noisy":
            self.noisy_bins += 1
            unusual_from = self.noisy_cap if self.noisy_bins * BIN_S < ACCEPT_S else math.inf
        self.recent = [*self.recent, min(float(hour), unusual_from)]
        if len(self.recent) > HOUR_BINS:
            learnt, self.recent = self.recent[0], self.recent[1:]
            self.weight = self.weight * fade + 1
            self.total = self.total * fade + learnt
            self.squares = self.squares * fade + learnt**2

    def _judge(self, hour: int, unusual_from: float) -> None:
        if self.quiet_bins * BIN_S > self.allowed_s:
            self.verdict = "silent"
        elif self.verdict == "noisy" and hour >= max(self.noisy_at / 2, 2 * self.mean_hour):
            pass
        elif hour >= max(unusual_from, self.rule.noisy_least):
            self.verdict, self.noisy_bins = "noisy", 0
            self.noisy_at, self.noisy_cap = max(unusual_from, self.rule.noisy_least), unusual_from
        else:
            self.verdict = "none"


def tail_bound(count: float, mean: float, shape: float) -> float:
    """Chernoff's bound of the probability that a negative binomial of ``mean`` and ``shape`` is ``count`` or more."""
    if count <= mean:
        return 1.0
    exponent = count * math.log(count / mean) - (count + shape) * math.log1p((count - mean) / (mean + shape))
    return math.exp(-exponent)
