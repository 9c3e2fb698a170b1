"""The mute of a station that picks without end: with hysteresis, reversible, and in data time. No clock, no I/O.

A station on its own cannot tell noise from a swarm. The densest sequences on record give some tens of picks a minute at
a near station (P and S of an earthquake every few seconds, beyond which the waves overlap), so the limit of the
settings lies above that, and the mute is off unless it is asked for. The dead time of picks itself allows 240 a minute.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class MuteRule:
    """More than ``picks`` in ``window_s`` mutes; fewer than ``release_picks`` in each such window for ``release_s``
    of data ends it. Raises ValueError where the second limit is not below the first."""

    picks: int = 1000
    window_s: float = 600.0
    release_picks: int = 100
    release_s: float = 1800.0

    def __post_init__(self) -> None:
        if not 0 < self.release_picks <= self.picks:
            raise ValueError(f"release_picks must be from 1 to picks ({self.picks}), not {self.release_picks}")


class Mute:
    """Whether one station is muted. Times are seconds of data that it delivered."""

    def __init__(self, rule: MuteRule) -> None:
        self.rule = rule
        self.muted = False
        self._now_s = 0.0
        self._quiet_since_s: float | None = None
        self._picks_s: deque[float] = deque(maxlen=rule.picks + 1)
        """When the last picks came: one more than it takes is all that need be known."""

    def pick(self) -> None:
        """A pick was made, published or not."""
        self._picks_s.append(self._now_s)
        self._look()

    def advance(self, seconds: float) -> None:
        """So much data more has come (s)."""
        self._now_s += seconds
        self._look()

    def saved(self) -> dict[str, Any]:
        """The state as plain values."""
        return {
            "muted": self.muted,
            "now_s": self._now_s,
            "quiet_since_s": self._quiet_since_s,
            "picks_s": list(self._picks_s),
        }

    @classmethod
    def restored(cls, rule: MuteRule, state: dict[str, Any]) -> Mute:
        """The state again, under ``rule``; raises KeyError for one of another version."""
        one = cls(rule)
        one.muted, one._now_s, one._quiet_since_s = state["muted"], state["now_s"], state["quiet_since_s"]
        one._picks_s.extend(state["picks_s"])
        return one

    def _look(self) -> None:
        while self._picks_s and self._picks_s[0] <= self._now_s - self.rule.window_s:
            self._picks_s.popleft()
        count = len(self._picks_s)
        if not self.muted:
            self.muted = count > self.rule.picks
            self._quiet_since_s = None
        elif count >= self.rule.release_picks:
            self._quiet_since_s = None
        elif self._quiet_since_s is None:
            self._quiet_since_s = self._now_s
        elif self._now_s - self._quiet_since_s >= self.rule.release_s:
            self.muted, self._quiet_since_s = False, None
