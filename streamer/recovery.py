"""The way back of one reader: carries out what ``resumption`` decides, says it and counts it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime

import structlog

from streamer.inventory import Inventory
from streamer.metrics import Metrics
from streamer.rate_limit import RateLimit
from streamer.record import Record
from streamer.resume import ResumePoint
from streamer.resumption import Kind, Ladder, Plan, Watch
from streamer.seedlink_session import Connection, Ended
from streamer.seedlink_settings import SeedLinkSettings
from streamer.station import FUTURE_NS

WARN_INTERVAL_S = 60.0

_log = structlog.get_logger(__name__)


class Recovery:
    """From where to go on, and whether what comes is whole; ``point`` is what has been received.

    Each connection: ``plan``, ``subscribed``, then for what comes ``heard``, ``check`` and ``judge``, last ``ended``.
    """

    def __init__(
        self,
        settings: SeedLinkSettings,
        metrics: Metrics,
        point: ResumePoint,
        clock_ns: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.point = point
        self.at_once = False
        """Whether the connection was ended from here, to be made again without delay."""
        self._settings, self._metrics, self._clock_ns = settings, metrics, clock_ns
        self._ladder = Ladder(round(settings.longest_resume_h * 3600e9))
        self._limit = RateLimit(WARN_INTERVAL_S, monotonic)
        self._plan = Plan(None)
        self._watch = Watch(self._plan, self._ladder, {}, settings.silence_s, 0.0)
        self._advanced = False
        self._said: Kind | None = None

    @property
    def living(self) -> set[str]:
        """Stations that delivered up to the end."""
        return self._ladder.stations | self.point.lately()[1]

    @property
    def deadline_s(self) -> float:
        """When ``judge`` is to be asked although nothing has come (event loop's time)."""
        return self._watch.deadline_s

    def plan(self, connection: Connection, stations: Collection[str] | None, inventory: Inventory) -> Plan:
        """What to ask for; ``stations`` None: they are not known one by one."""
        self._advanced = False
        self._plan = self._ladder.plan(
            self.point,
            self._clock_ns(),
            protocol=connection.protocol,
            stations=stations,
            inventory=inventory,
            window=connection.takes_times,
        )
        return self._plan

    def subscribed(self, inventory: Inventory) -> None:
        """The server has accepted what was planned."""
        plan, server = self._plan, self._settings.address
        self._watch = Watch(plan, self._ladder, inventory, self._settings.silence_s, _now_s())
        if plan.kind is None:
            return
        self._metrics.resumes.labels(plan.kind).inc()
        first, self._said = self._said is not plan.kind, plan.kind
        if plan.kind is Kind.SEQUENCE:
            _log.info("going on by sequence number", server=server, stations=len(plan.sequences))
        elif plan.since_ns is not None:
            since = datetime.fromtimestamp(plan.since_ns // 1_000_000_000, UTC).isoformat()
            _log.info("asking for what was missed", server=server, since=since, reason=plan.reason)
        else:
            tell = _log.warning if first else _log.debug
            tell("going on with new data: what was missed is lost", server=server, reason=plan.reason)

    def refused(self, reason: str) -> None:
        """The server does not go on in this way."""
        if self._plan.kind in (Kind.SEQUENCE, Kind.WINDOW):
            self._ladder.failed(self._plan.kind, reason)
            self.at_once = True
            held_back = self._limit.admit(self._plan.kind)
            if held_back is not None:
                _log.warning(
                    "resume has failed: trying another way",
                    server=self._settings.address,
                    kind=self._plan.kind.value,
                    reason=reason,
                    held_back=held_back,
                )

    def heard(self, station: str) -> None:
        """A packet has come."""
        self._watch.heard(station, _now_s())

    def check(self, record: Record, now_ns: int) -> None:
        """Look at a record before it is delivered. Raises Ended where what lies before it can be had in another way."""
        if record.start_ns > now_ns + FUTURE_NS:
            return
        before = self.point.channels.get(record.nslc)
        missing_ns = self._watch.first(record)
        if missing_ns is not None:
            if self._ladder.began(self._plan.kind, record.nslc, record.start_ns):
                _log.warning(
                    "server leaves data out where it is asked by sequence number: from now on it is asked by time",
                    server=self._settings.address,
                )
            if missing_ns > 0 and self._plan.kind is Kind.SEQUENCE:
                self._ladder.came_late(record.nslc, record.start_ns)
                self._fail(f"{missing_ns / 1e9:.1f} s of {record.nslc} are missing")
        self._advanced = self._advanced or before is None or record.end_ns > before.end_ns

    def judge(self) -> None:
        """Whether the connection has brought what was missed. Raises Ended where a station stays silent."""
        now_s = _now_s()
        silent = self._watch.silent(now_s)
        if silent is not None:
            self._fail(f"{silent} is silent")
        here = self._advanced and (self._watch.whole or self._plan.kind is Kind.LIVE)
        if here or self._watch.over(now_s):
            self._ladder.settle()
            self._plan, self._said = Plan(None), None

    def ended(self, error: Ended) -> None:
        """The connection has ended, and not from here."""
        self._ladder.ended(
            self._plan.kind, str(error), advanced=self._advanced or self._watch.idle, broken=error.broken
        )

    def _fail(self, reason: str) -> None:
        self.refused(reason)
        raise Ended(reason)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
