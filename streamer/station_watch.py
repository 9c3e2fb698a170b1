"""What is known of each station beside its picks: fed by the picking, read by whoever publishes the status.

No clock and no I/O, and all of it in the time of the data: the same data give the same state, whatever the speed of a
replay and however the daemon was restarted between. ``saved`` is part of the snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import structlog

from streamer.chunk import Chunk, StationKey
from streamer.deadman import PickRate, RateRule, Verdict
from streamer.instant import SAMPLE_NS, sample_time_ns
from streamer.mute import Mute, MuteRule
from streamer.tracker import TrackedPick

_log = structlog.get_logger(__name__)

MINUTE_NS = 60_000_000_000
HOUR_MINUTES = 60
VERSION = 1
"""Of what ``saved`` gives; another one is not taken up."""


class HourCount:
    """How many in the last hour, to the minute."""

    def __init__(self, minutes: list[list[int]] | None = None) -> None:
        self.minutes = minutes or []
        """Pairs of a minute (counted from the epoch) and how many were in it, in order."""

    def note(self, at_ns: int) -> None:
        """One more."""
        minute = at_ns // MINUTE_NS
        if self.minutes and self.minutes[-1][0] >= minute:
            self.minutes[-1][1] += 1
        else:
            self.minutes.append([minute, 1])
            self.minutes = [one for one in self.minutes if one[0] > minute - HOUR_MINUTES]

    def until(self, now_ns: int) -> int:
        """How many in the hour to ``now_ns``."""
        earliest = now_ns // MINUTE_NS - HOUR_MINUTES
        return sum(count for minute, count in self.minutes if minute > earliest)


class WatchedStation:
    """One station. ``mute`` is None where it is never muted."""

    def __init__(self, rate: PickRate, mute: Mute | None) -> None:
        self.rate, self.mute = rate, mute
        self.last_sample_ns: int | None = None
        self.arrived_ns: int | None = None
        """When the last data came (daemon's clock)."""
        self.latency_s: float | None = None
        self.timing_quality: int | None = None
        """What the newest records say of their clock (0-100)."""
        self.flags_ns: dict[str, int] = {}
        """When each flag of the data was last seen (time of data)."""
        self.components_ns: dict[str, int] = {}
        """When each component last had data."""
        self.gaps, self.muted_picks = HourCount(), HourCount()
        self.picks: dict[str, HourCount] = {}
        self._in_gap = False
        self._open: dict[str, tuple[int, bool]] = {}
        """By phase: the crossing of a pick that was reported as provisional, and whether it was published."""

    @property
    def muted(self) -> bool:
        """Whether its picks are held back now."""
        return self.mute is not None and self.mute.muted

    @property
    def verdict(self) -> Verdict:
        """What its past says of the picks it makes now."""
        return self.rate.verdict

    def chunk(self, chunk: Chunk) -> None:
        """Data have come."""
        valid = chunk.valid.any(axis=0)
        self.arrived_ns = chunk.data_complete_ns
        if valid.any():
            last = chunk.first_sample + int(np.flatnonzero(valid)[-1])
            self.last_sample_ns = sample_time_ns(last, chunk.time_shift_ns)
            self.timing_quality = chunk.timing_quality
            self.latency_s = (chunk.data_complete_ns - self.last_sample_ns) / 1e9
        end_ns = sample_time_ns(chunk.first_sample + valid.size, chunk.time_shift_ns)
        in_gap = "gap" in chunk.flags
        if self.components_ns and not self._in_gap and (in_gap or chunk.reset):
            self.gaps.note(end_ns)
        self._in_gap = in_gap
        self.flags_ns.update(dict.fromkeys(chunk.flags, end_ns))
        present = zip("ZNE", chunk.valid, strict=True)
        self.components_ns.update({name: end_ns for name, here in present if here.any()})
        seconds = int(valid.sum()) * SAMPLE_NS / 1e9
        self.rate.advance(seconds)
        if self.mute is not None:
            self.mute.advance(seconds)

    def pick(self, tracked: TrackedPick) -> bool:
        """A revision of a pick was made: whether to publish it. The revisions of one pick share a fate."""
        phase, crossing = tracked.pick.phase, tracked.crossing.sample
        if tracked.status == "provisional":
            self._open[phase] = crossing, not self.muted
            return not self.muted
        if tracked.status == "confirmed":
            self.rate.pick()
            if self.mute is not None:
                self.mute.pick()
        begun, published = self._open.pop(phase, (crossing, not self.muted))
        published = published if begun == crossing else not self.muted
        if tracked.status == "confirmed":
            at_ns = sample_time_ns(tracked.pick.sample, tracked.time_shift_ns)
            self.picks.setdefault(phase, HourCount()).note(at_ns)
            if not published:
                self.muted_picks.note(at_ns)
        return published

    def lately(self, of: Mapping[str, int]) -> list[str]:
        """Names in ``of`` that were seen in the minute to the last sample; sorted."""
        since_ns = (self.last_sample_ns or 0) - MINUTE_NS
        return sorted(name for name, at_ns in of.items() if at_ns > since_ns)

    def saved(self) -> dict[str, Any]:
        """The state as plain values."""
        state = {name: value for name, value in vars(self).items() if name not in _PARTS}
        counts = {name: getattr(self, name).minutes for name in ("gaps", "muted_picks")}
        return {
            **state,
            **counts,
            "picks": {phase: count.minutes for phase, count in self.picks.items()},
            "rate": self.rate.saved(),
            "mute": None if self.mute is None else self.mute.saved(),
        }

    @classmethod
    def restored(cls, rate: RateRule, mute: MuteRule | None, state: dict[str, Any]) -> WatchedStation:
        """The state again, under the rules given; raises KeyError or TypeError for one of another version."""
        parts = {name: state[name] for name in _PARTS}
        one = cls(PickRate.restored(rate, parts["rate"]), None)
        if mute is not None:
            one.mute = Mute.restored(mute, parts["mute"]) if parts["mute"] else Mute(mute)
        vars(one).update({name: state[name] for name in vars(one) if name not in _PARTS})
        one.gaps, one.muted_picks = HourCount(parts["gaps"]), HourCount(parts["muted_picks"])
        one.picks = {phase: HourCount(minutes) for phase, minutes in parts["picks"].items()}
        return one


_PARTS = frozenset({"rate", "mute", "gaps", "muted_picks", "picks"})
"""Attributes of a watched station that are objects with a state of their own."""


class StationWatch:
    """All stations that are picked. ``mute_rule`` gives that of a station, None where it is never muted."""

    def __init__(
        self,
        rate_rule: RateRule | None = None,
        mute_rule: Callable[[StationKey], MuteRule | None] = lambda station: None,
    ) -> None:
        self.stations: dict[StationKey, WatchedStation] = {}
        self.muted: Counter[str] = Counter()
        """Confirmed picks that were held back, by phase."""
        self._rate_rule, self._mute_rule = rate_rule or RateRule(), mute_rule

    def chunk(self, chunk: Chunk) -> None:
        """A station has completed ``chunk``; call it before the picks that the chunk decides."""
        self._of(chunk.station).chunk(chunk)

    def pick(self, tracked: TrackedPick) -> bool:
        """Whether to publish a revision of a pick; what is not published is counted."""
        published = self._of(tracked.chunk.station).pick(tracked)
        self.muted[tracked.pick.phase] += not published and tracked.status == "confirmed"
        return published

    def forget(self, station: StationKey) -> None:
        """The station has left for good."""
        self.stations.pop(station, None)

    def saved(self) -> dict[str, Any]:
        """All states as plain values."""
        return {"version": VERSION, "stations": {key: one.saved() for key, one in self.stations.items()}}

    def restore(self, saved: Mapping[str, Any] | None) -> None:
        """Take up what ``saved`` gave. What does not fit is left, with a warning: picks do not depend on the past."""
        if saved is None:
            return
        try:
            if saved["version"] != VERSION:
                raise ValueError(f"version {saved['version']}")
            self.stations = {
                key: WatchedStation.restored(self._rate_rule, self._mute_rule(key), state)
                for key, state in saved["stations"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.stations = {}
            _log.warning("the past of stations is not taken up: it is of another version", reason=repr(error))

    def _of(self, key: StationKey) -> WatchedStation:
        one = self.stations.get(key)
        if one is None:
            rule = self._mute_rule(key)
            mute = None if rule is None else Mute(rule)
            one = self.stations[key] = WatchedStation(PickRate(rule=self._rate_rule), mute)
        return one
