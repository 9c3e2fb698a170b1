"""From where to ask a server again after a connection was lost: pure book-keeping, no I/O.

Sequence numbers are not used: those of SeedLink 3 wrap and may count all stations or each, those of a wildcard are not
defined, and after a server was rebuilt an unknown one may yield nothing, silently. A time window works on both
versions; it brings some records a second time, which stations drop as duplicates.
"""

from __future__ import annotations

from streamer.record import Nslc, Record
from streamer.station import FUTURE_NS

SPREAD_NS = 300_000_000_000
"""Channels that had fallen further behind than this do not hold the others back."""
MOST_CHANNELS = 20_000


class ResumePoint:
    """The end of what each channel has delivered."""

    def __init__(self) -> None:
        self._ends: dict[Nslc, int] = {}
        self._fruitless = 0
        self._advanced = False

    def note(self, record: Record, now_ns: int) -> None:
        """A record has come. One that stations refuse as ``future`` is not believed here either."""
        before = self._ends.get(record.nslc)
        if record.start_ns <= now_ns + FUTURE_NS and (before is None or record.end_ns > before):
            self._advanced = True
            if before is not None or len(self._ends) < MOST_CHANNELS:
                self._ends[record.nslc] = record.end_ns

    def start_ns(self) -> int | None:
        """Ask for data from here on (int ns UTC); None means from now on, as on the first connection.

        None also after two connections in a row that were asked to resume and brought nothing new: what the server
        holds there may be what breaks the connection, or nothing.
        """
        if not self._ends or self._fruitless >= 2:
            return None
        newest = max(self._ends.values())
        return min(end for end in self._ends.values() if end >= newest - SPREAD_NS)

    def closed(self, resumed: bool) -> None:
        """A connection on which the server took the subscription has ended; ``resumed`` as ``start_ns`` had asked."""
        self._fruitless = 0 if self._advanced or not resumed else self._fruitless + 1
        self._advanced = False
