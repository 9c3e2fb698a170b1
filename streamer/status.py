"""How the daemon is: a log line every minute, and the counts that others keep as metrics."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from streamer.outbox import FAILURES, GIVEN_UP

if TYPE_CHECKING:
    from streamer.daemon import Daemon

LINE_EVERY_S = 60.0
REFRESH_EVERY_S = 2.0

_log = structlog.get_logger(__name__)


async def report_status(daemon: Daemon) -> None:
    """Until cancelled: refresh the metrics that are kept elsewhere, and log one line a minute."""
    kept = _Kept(daemon)
    kept.register()
    nothing_told = False
    while True:
        for _ in range(round(LINE_EVERY_S / REFRESH_EVERY_S)):
            kept.refresh()
            await asyncio.sleep(REFRESH_EVERY_S)
        _log.info("status", **kept.line())
        if not daemon.picking.engine.stations and not nothing_told:
            nothing_told = True
            _log.warning("no station is picked: see the warnings above for servers and channels, and seedlink.streams")


class _Kept:
    """Counts of other parts, copied on the event loop because metrics are read in another thread."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._stations: Counter[str] = Counter()
        self._engine: Counter[str] = Counter()
        self._picking: Counter[str] = Counter()
        self._publisher: dict[str, int] = {}
        self._given_up = dict.fromkeys(GIVEN_UP, 0)
        self._failures = dict.fromkeys(FAILURES, 0)
        self._oldest_s, self._unwritten = 0.0, 0
        self._last_line: Counter[str] = Counter()
        self._tasks = 0

    def register(self) -> None:
        daemon, metrics = self._daemon, self._daemon.metrics
        metrics.add_counters("station_decisions", "Decisions of stations about data", lambda: self._stations)
        metrics.add_counters("engine", "Work of the engine", lambda: self._engine, label="kind")
        metrics.add_counters("tracker", "Picks made by phase, and those not made", lambda: self._picking, label="kind")
        metrics.add_counters("publisher", "Work of the publisher", lambda: self._publisher, label="kind")
        metrics.add_gauge("tasks", "Tasks of the event loop", lambda: self._tasks)
        metrics.add_gauge("queue_records", "Records that wait to be worked off", lambda: daemon.picking.depth)
        outbox = daemon.publisher.outbox
        metrics.add_gauge("outbox_picks", "Picks that wait for the broker", lambda: len(outbox))
        metrics.add_gauge("outbox_bytes", "Their topics and messages", lambda: outbox.held_bytes)
        metrics.add_gauge("outbox_oldest_seconds", "How long the oldest of them has waited", lambda: self._oldest_s)
        metrics.add_gauge("outbox_unwritten_picks", "Those that a killed daemon would lose", lambda: self._unwritten)
        metrics.add_gauge(
            "outbox_on_disk", "Whether picks are written to a file, and the disk takes them", lambda: outbox.on_disk
        )
        metrics.add_counters("outbox_given_up", "Picks lost because a limit was reached", lambda: self._given_up)
        metrics.add_counters("outbox_failures", "Failures of the outbox's file", lambda: self._failures, label="kind")
        metrics.add_gauge("stations", "Stations that are picked", lambda: daemon.picking.engine.stations)
        metrics.add_gauge(
            "broker_connected", "Whether the broker is there (0 or 1)", lambda: daemon.publisher.connected
        )

    def refresh(self) -> None:
        daemon = self._daemon
        self._tasks = len(asyncio.all_tasks())
        if daemon.shadow is not None:
            daemon.shadow.refresh()
        self._stations = daemon.picking.stations.counts
        self._engine = Counter(daemon.picking.engine.counts)
        self._picking = Counter(daemon.picking.counts)
        outbox = daemon.publisher.outbox
        self._publisher = {**vars(daemon.publisher.counters), "dropped": outbox.given_up.total()}
        # With a zero for what has not happened yet, so that an alarm sees the first time too.
        self._given_up = {reason: outbox.given_up[reason] for reason in GIVEN_UP}
        self._failures = {kind: outbox.failures[kind] for kind in FAILURES}
        self._unwritten, oldest_ns = outbox.unwritten, outbox.oldest_ns
        self._oldest_s = 0.0 if oldest_ns is None else max(0.0, (daemon.clock_ns() - oldest_ns) / 1e9)

    def line(self) -> dict[str, object]:
        """What the line of the minute says; counts are those since the last one."""
        daemon, outbox = self._daemon, self._daemon.publisher.outbox
        self.refresh()
        total = Counter({"steps": self._engine["steps"], "acknowledged": self._publisher["acknowledged"]})
        total.update({f"picks_{phase}": self._picking[phase] for phase in daemon.picking.phases})
        total.update({"picks_given_up": sum(self._given_up.values()), "disk_failures": sum(self._failures.values())})
        since = total - self._last_line
        self._last_line = total
        return {
            "servers": f"{sum(reader.receiving for reader in daemon.readers)}/{len(daemon.readers)}",
            "stations": daemon.picking.engine.stations,
            **{name: since[name] for name in total},
            "records_waiting": daemon.picking.depth,
            "broker": daemon.publisher.connected,
            "picks_held": len(outbox),
            "held_bytes": outbox.held_bytes,
            "oldest_held_s": round(self._oldest_s, 1),
            "picks_unwritten": self._unwritten,
        }
