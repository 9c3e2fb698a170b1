"""Tells the world how each station is: a retained message a station, log lines for what changes, and metrics.

A station's message goes out at once where its ``online``, ``attention`` or ``muted`` changes, and otherwise, when
anything has changed, every ``every_s``; see ``streamer.retained`` for what bounds all of them together.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import nsmallest

import structlog

from streamer.chunk import StationKey
from streamer.instant import utc_text
from streamer.metrics import Metrics
from streamer.retained import RetainedBoard, RetainedMessage
from streamer.station_watch import StationWatch, WatchedStation
from streamer.status_message import ATTENTION, Attention, DaemonFacts, StationStatus, daemon_status
from streamer.status_settings import StatusSettings

TURN_S = 1.0
SOON_S = 5.0
"""What changes at once is told at most so often: a station that comes and goes, a server that flaps."""
MOST_NAMED = 20
"""Stations named in one line of the log."""

State = tuple[bool, Attention, bool]
"""Of a station: online, attention, muted."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Told:
    """How a station was when last looked at, and what was last published of it, and when (monotonic clock, s)."""

    state: State
    at_s: float = float("-inf")
    message: StationStatus | None = None

    @property
    def changed(self) -> bool:
        """Whether what was published says otherwise in what matters."""
        one = self.message
        return one is not None and (one.online, one.attention, one.muted) != self.state


class StationReporter:
    """Looks at the stations of ``watch`` and puts their messages on ``board``. ``run`` is its task.

    ``topic`` gives a station's topic. ``facts`` are those of the daemon's own status, at ``daemon_topic``; what it says
    of attention is added here.
    """

    def __init__(
        self,
        watch: StationWatch,
        board: RetainedBoard,
        settings: StatusSettings,
        topic: Callable[[StationKey], str],
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.attention: Counter[Attention] = Counter()
        """Stations by the attention that they need."""
        self.muted = 0
        """Stations that are muted."""
        self._watch, self._board, self._settings, self._topic = watch, board, settings, topic
        self._clock_ns, self._monotonic = clock_ns, monotonic
        self._begun_ns = clock_ns()
        self._told: dict[StationKey, _Told] = {}
        self._daemon_told: tuple[float, DaemonFacts | None] = float("-inf"), None
        self._changes: dict[tuple[str, str], list[StationKey]] = {}
        self._muted_picks: dict[str, int] = {}
        self._sent: dict[str, int] = {}

    def register(self, metrics: Metrics) -> None:
        """Serve what is known of stations as metrics."""
        metrics.add_gauges(
            "stations_attention", "Stations that need attention, by kind",
            lambda: {kind: float(self.attention[kind]) for kind in ATTENTION}, label="kind",
        )  # fmt: skip
        metrics.add_gauge("stations_muted", "Stations whose picks are held back", lambda: self.muted)
        metrics.add_counters("picks_muted", "Picks held back by a mute", lambda: self._muted_picks, label="phase")
        metrics.add_counters("status_messages", "Retained messages", lambda: self._sent, label="kind")

    async def run(self, daemon_topic: str, facts: Callable[[], DaemonFacts]) -> None:
        """Until cancelled: look, publish, log."""
        while True:
            self.turn()
            self.tell_daemon(daemon_topic, facts())
            await asyncio.sleep(TURN_S)

    def turn(self) -> None:
        """Look at every station once."""
        now_ns, now_s = self._clock_ns(), self._monotonic()
        attention: Counter[Attention] = Counter()
        due: list[tuple[bool, float, StationKey]] = []
        for key, one in list(self._watch.stations.items()):
            away_s = (now_ns - max(one.arrived_ns or 0, self._begun_ns)) / 1e9
            if away_s > self._settings.forget_after_h * 3600:
                self._forget(key)
                continue
            if (one.arrived_ns or 0) < self._begun_ns and away_s < self._settings.offline_after_s:
                continue  # known from a snapshot; whether it is there is not known yet
            told = self._look(key, one, away_s)
            attention[told.state[1]] += 1
            if now_s - told.at_s >= (SOON_S if told.changed else self._settings.every_s):
                due.append((not told.changed, told.at_s, key))
        if self._settings.enabled:
            # Changes first, then who has waited longest; not more than can be sent, so that no turn takes long.
            for _, _, key in nsmallest(math.ceil(self._settings.most_per_s * TURN_S), due):
                self._publish(key, self._watch.stations[key], replace(self._told[key], at_s=now_s))
        self.attention = attention
        self.muted = sum(one.muted for one in self._watch.stations.values())
        self._muted_picks, self._sent = dict(self._watch.muted), dict(self._board.counts)
        self._say_changes()

    def tell_daemon(self, topic: str, facts: DaemonFacts) -> None:
        """Publish the daemon's own status where it has changed."""
        now_s = self._monotonic()
        at_s, before = self._daemon_told
        if facts != before and now_s - at_s >= SOON_S:
            self._daemon_told = now_s, facts
            self._board.put(RetainedMessage(topic=topic, payload=daemon_status("online", facts, self._clock_ns())))

    def _look(self, key: StationKey, one: WatchedStation, away_s: float) -> _Told:
        told = self._told.get(key)
        before = None if told is None else told.state
        state = away_s < self._settings.offline_after_s, self._attention(one, away_s, before), one.muted
        self._note_changes(key, before or (True, "none", False), state)
        told = self._told[key] = _Told(state=state) if told is None else replace(told, state=state)
        return told

    def _publish(self, key: StationKey, one: WatchedStation, told: _Told) -> None:
        """On the board, where it says anything new; the broker clears what nobody renews, also without us (MQTT 5)."""
        self._told[key] = told
        try:
            message = station_status(key, one, told.state, self._clock_ns())
        except (ValueError, OverflowError, OSError) as error:  # data from beyond the calendar
            self._board.counts["unusable"] += 1
            _log.debug("status of a station cannot be told", station=str(key), reason=str(error))
            return
        if told.message is not None and message == told.message.model_copy(update={"updated": message.updated}):
            return
        self._told[key] = replace(told, message=message)
        expiry_s = max(1, round(self._settings.forget_after_h * 3600))
        self._board.put(RetainedMessage(topic=self._topic(key), payload=message.encode(), expiry_s=expiry_s))

    def _attention(self, one: WatchedStation, away_s: float, before: State | None) -> Attention:
        if away_s >= self._settings.offline_after_s:
            return "offline"
        late_s = self._settings.late_after_s
        if before is not None and before[1] == "late":
            late_s /= 2  # so that it does not go to and fro at the limit
        return "late" if one.latency_s is not None and one.latency_s > late_s else one.verdict

    def _forget(self, key: StationKey) -> None:
        self._watch.forget(key)
        if self._settings.enabled:
            self._board.clear(self._topic(key))
        if self._told.pop(key, None) is not None:
            self._changes.setdefault(("stations forgotten: offline for too long", ""), []).append(key)

    def _note_changes(self, key: StationKey, before: State, now: State) -> None:
        if before[1] != now[1]:
            if before[1] != "none":
                self._changes.setdefault(("stations need this attention no more", before[1]), []).append(key)
            if now[1] != "none":
                self._changes.setdefault(("stations need attention", now[1]), []).append(key)
        if before[2] != now[2]:
            event = "stations muted: too many picks" if now[2] else "stations no longer muted"
            self._changes.setdefault((event, ""), []).append(key)

    def _say_changes(self) -> None:
        """One line for each kind of change, however many stations it happened to."""
        changes, self._changes = self._changes, {}
        for (event, kind), keys in changes.items():
            names = " ".join(str(key) for key in keys[:MOST_NAMED])
            more = {"more": len(keys) - MOST_NAMED} if len(keys) > MOST_NAMED else {}
            grave = event in ("stations need attention", "stations muted: too many picks")
            say = _log.warning if grave else _log.info
            say(event, **({"kind": kind} if kind else {}), stations=names, **more)


def station_status(key: StationKey, one: WatchedStation, state: State, now_ns: int) -> StationStatus:
    """The message of a station; ``state`` is whether it is online, its attention, and whether it is muted."""
    until_ns = one.last_sample_ns or 0
    quality = one.lately(one.flags_ns)
    here = one.lately(one.components_ns)
    return StationStatus(
        schema_version=1,
        **key._asdict(),
        online=state[0],
        attention=state[1],
        muted=state[2],
        last_sample=None if one.last_sample_ns is None else utc_text(one.last_sample_ns),
        latency_s=None if one.latency_s is None else round(one.latency_s, 3),
        components="".join(name for name in "ZNE" if name in here),
        timing="questionable" if "clock_questionable" in quality else "good",
        timing_quality=one.timing_quality,
        quality=quality,
        gaps=one.gaps.until(until_ns),
        picks={phase: count.until(until_ns) for phase, count in sorted(one.picks.items())},
        picks_muted=one.muted_picks.until(until_ns),
        updated=utc_text(now_ns),
    )
