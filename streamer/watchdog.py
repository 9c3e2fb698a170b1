"""The watchdog of the service manager, fed by work that gets done rather than by a timer (sd_watchdog_enabled(3)).

It is fed while the event loop turns, the tasks that matter are alive, and the picking task has completed a round since
the last feeding or has nothing to do. What hangs (a call of the model, a lock, an endless loop) is thus killed and
restarted; a daemon whose servers or broker are gone is not stuck, and is fed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from streamer.systemd import notify

if TYPE_CHECKING:
    from streamer.picking import Picking

TASKS = ("picking", "publisher", "outbox")
"""Names of the tasks without which the daemon is of no use."""
RECORD_WAIT_S = 120.0
"""A record that has waited so long to be worked off says that the daemon is stuck, though rounds may be completed."""
EVERY_S = 15.0
"""Time between two checks where no service manager asks for them."""
CHECKS = 4
"""Checks within the service manager's span, so that one that finds a long round is no end."""
TELL_AFTER = 2
"""Checks that fail before it is told: one may be a long round, as after an outage."""

_log = structlog.get_logger(__name__)


class Progress:
    """Whether picking gets on, between one feeding and the next. ``picking`` gives the one that works now.

    ``monotonic`` is a clock in seconds.
    """

    def __init__(
        self,
        picking: Callable[[], Picking],
        monotonic: Callable[[], float] = time.monotonic,
        record_wait_s: float = RECORD_WAIT_S,
    ) -> None:
        self._picking, self._monotonic, self._record_wait_s = picking, monotonic, record_wait_s
        self._worked_off = picking().worked_off
        # When so many records had come in all; the first is the youngest mark that is older than record_wait_s.
        self._marks: deque[tuple[float, int]] = deque()

    def obstacles(self) -> tuple[str, ...]:
        """Why there is no progress, as words; empty where there is. To be called on the event loop."""
        names = {task.get_name() for task in asyncio.all_tasks()}
        found = [] if names.issuperset(TASKS) else ["task_ended"]
        picking, now_s = self._picking(), self._monotonic()
        busy = picking.depth > 0 or picking.taken > picking.worked_off
        if busy and picking.worked_off == self._worked_off:
            found.append("picking_stuck")
        self._marks.append((now_s, picking.taken + picking.depth))
        while len(self._marks) > 1 and self._marks[1][0] <= now_s - self._record_wait_s:
            self._marks.popleft()
        since_s, had_come = self._marks[0]
        if since_s <= now_s - self._record_wait_s and picking.worked_off < had_come:
            found.append("record_waits")
        return tuple(found)

    def fed(self) -> None:
        """From now on only what is done later counts."""
        self._worked_off = self._picking().worked_off


class Watchdog:
    """Checks the progress a few times within the service manager's span, and feeds where there is some."""

    def __init__(self, progress: Progress, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.obstacles: tuple[str, ...] = ()
        """Why it would not be fed, as found by the last checks: words, stable ones."""
        span_s = watchdog_span_s()
        self.every_s = EVERY_S if span_s is None else span_s / CHECKS
        self._progress, self._monotonic = progress, monotonic
        self._next_s = monotonic() + self.every_s
        self._failed = 0

    def turn(self) -> None:
        """Check and feed if it is time; to be called often, on the event loop."""
        if self._monotonic() < self._next_s:
            return
        self._next_s = self._monotonic() + self.every_s
        obstacles = self._progress.obstacles()
        if obstacles:
            self._failed += 1
            if self._failed >= TELL_AFTER:
                self._tell(obstacles)
            return
        notify("WATCHDOG=1")
        self._progress.fed()
        self._failed = 0
        self._tell(())

    def _tell(self, obstacles: tuple[str, ...]) -> None:
        """A line where it has begun or ended to be stuck."""
        if obstacles and not self.obstacles:
            _log.error("no progress: the watchdog is not fed", why=", ".join(obstacles), checked_every_s=self.every_s)
        elif self.obstacles and not obstacles:
            _log.info("work goes on: the watchdog is fed again")
        self.obstacles = obstacles


def watchdog_span_s() -> float | None:
    """Within this time the service manager wants to be told (WATCHDOG_USEC), None where it does not watch us."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        span_s = int(os.environ.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    return span_s if span_s > 0 else None
