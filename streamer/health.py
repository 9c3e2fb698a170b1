"""How the daemon is, for ``/healthz``: a verdict, the reasons for it as stable words, and what it knows of itself.

It is looked at once a second on the event loop and told in the thread of the HTTP server, so that a blocked event loop
is told as well. A reason counts when it has held for as long as LIMITS_S says; docs/operations.md says what to do.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from picker.version import installed_version
from streamer.picking import QUEUE_RECORDS
from streamer.sqlite_outbox import SqliteOutbox
from streamer.watchdog import Progress, Watchdog

if TYPE_CHECKING:
    from streamer.daemon import Daemon

LIMITS_S = {
    "no_server": 120.0,
    "broker_absent": 120.0,
    "queue_full": 60.0,
    "no_chunk": 120.0,
    "outbox_not_on_disk": 0.0,
    "no_progress": 0.0,
}
"""How long each may hold before it is a reason (s); ``event_loop_blocked`` comes on top of them."""
BLOCKED_S = 10.0
"""So long without a look at itself, and the event loop is blocked."""
FLOWING_S = 60.0
"""Records flow if one was worked off in this time."""
TICK_S = 1.0
REASONS = (*LIMITS_S, "event_loop_blocked")


@dataclass(frozen=True)
class Look:
    """What was seen at one moment. ``held_s``: since when each condition holds (s, monotonic clock)."""

    at_s: float
    held_s: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Health:
    """Looks at a daemon. ``run`` is its task, which also keeps the watchdog; ``report`` may be called in any thread."""

    def __init__(self, daemon: Daemon, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.watchdog = Watchdog(Progress(lambda: daemon.picking, monotonic), monotonic)
        self._daemon, self._monotonic = daemon, monotonic
        self._begun_s = monotonic()
        self._absent_s = {reader.settings.address: self._begun_s for reader in daemon.readers}
        self._worked = _Change(self._begun_s)
        self._stepped = _Change(self._begun_s)
        self._worked_at_step = 0
        self._look = Look(self._begun_s)
        self.look()
        daemon.metrics.add_gauges("unhealthy", "Whether a reason of /healthz holds (0 or 1)", self._gauge)

    async def run(self) -> None:
        """Until cancelled: look, and feed the watchdog where there is progress."""
        while True:
            self.watchdog.turn()
            self.look()
            await asyncio.sleep(min(TICK_S, self.watchdog.every_s))

    def look(self) -> None:
        """See how things are now; on the event loop."""
        now_s, before = self._monotonic(), self._look.held_s
        held_s = {word: before.get(word, now_s) for word, holds in self._conditions(now_s).items() if holds}
        self._look = Look(now_s, held_s, self._facts(now_s))

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether all is well, and the body of ``/healthz``."""
        look, now_s = self._look, self._monotonic()
        reasons = [word for word, limit_s in LIMITS_S.items() if now_s - look.held_s.get(word, now_s + 1) >= limit_s]
        if now_s - look.at_s > BLOCKED_S:
            reasons.append("event_loop_blocked")
        return not reasons, {
            "status": "unhealthy" if reasons else "ok",
            "reasons": reasons,
            "version": installed_version(),
            "process": os.getpid(),
            "up_s": round(now_s - self._begun_s, 1),
            "looked_s_ago": round(now_s - look.at_s, 1),
            **look.facts,
        }

    def _conditions(self, now_s: float) -> dict[str, bool]:
        daemon = self._daemon
        picking, outbox = daemon.picking, daemon.publisher.outbox
        self._worked.note(picking.worked_off, now_s)
        if self._stepped.note(picking.steps, now_s):
            self._worked_at_step = picking.worked_off
        flowing = picking.worked_off > self._worked_at_step and now_s - self._worked.at_s < FLOWING_S
        return {
            "no_server": not any(reader.receiving for reader in daemon.readers),
            "broker_absent": not daemon.publisher.connected,
            "queue_full": picking.depth >= QUEUE_RECORDS,
            "no_chunk": flowing,
            "outbox_not_on_disk": isinstance(outbox, SqliteOutbox) and not outbox.on_disk,
            "no_progress": bool(self.watchdog.obstacles),
        }

    def _facts(self, now_s: float) -> dict[str, Any]:
        """What is said beside the verdict: no secrets, and nothing of a length that grows with the stations."""
        daemon, outbox = self._daemon, self._daemon.publisher.outbox
        for reader in daemon.readers:
            if reader.receiving:
                self._absent_s[reader.settings.address] = now_s
        servers = [
            {
                "server": reader.settings.address,
                "delivers": reader.receiving,
                "absent_s": round(now_s - self._absent_s[reader.settings.address], 1),
            }
            for reader in daemon.readers
        ]
        mqtt, oldest_ns = daemon.settings.mqtt, outbox.oldest_ns
        return {
            "servers": servers,
            "stations": daemon.picking.engine.stations,
            "records_waiting": daemon.picking.depth,
            "picks": {phase: daemon.picking.counts[phase] for phase in daemon.picking.phases},
            "broker": {"broker": f"{mqtt.host}:{mqtt.port}", "connected": daemon.publisher.connected},
            "outbox": {
                "on_disk": outbox.on_disk,
                "held": len(outbox),
                "oldest_s": 0.0 if oldest_ns is None else round(max(0, daemon.clock_ns() - oldest_ns) / 1e9, 1),
                "unwritten": outbox.unwritten,
                "given_up": outbox.given_up.total(),
            },
            "obstacles": list(self.watchdog.obstacles),
        }

    def _gauge(self) -> dict[str, float]:
        reasons = self.report()[1]["reasons"]
        return {word: float(word in reasons) for word in REASONS}


class _Change:
    """When a count last changed (s, monotonic clock)."""

    def __init__(self, at_s: float) -> None:
        self.at_s, self._count = at_s, 0

    def note(self, count: int, now_s: float) -> bool:
        """Whether it has changed since the last call."""
        if count == self._count:
            return False
        self._count, self.at_s = count, now_s
        return True
