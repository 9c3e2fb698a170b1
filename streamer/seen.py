"""Which records have come before, so that a server may send again what it has sent."""

from __future__ import annotations

from streamer.record import Record
from streamer.station import FUTURE_NS

MOST_RECORDS = 100_000
"""About 10 MB for a server; what is older than these, stations recognise by its time."""


class Seen:
    """The last records of one server, by channel, start, length and rate."""

    def __init__(self, most: int = MOST_RECORDS) -> None:
        self._most = most // 2
        self._young: set[int] = set()
        self._old: set[int] = set()

    def knows(self, record: Record) -> bool:
        """Whether the same record was noted before."""
        key = _key(record)
        return key in self._young or key in self._old

    def note(self, record: Record, now_ns: int) -> None:
        """A record goes to its station. One that the station refuses as ``future`` may come again."""
        if record.start_ns > now_ns + FUTURE_NS:
            return
        self._young.add(_key(record))
        if len(self._young) >= self._most:
            self._old, self._young = self._young, set()


def _key(record: Record) -> int:
    return hash((record.nslc, record.start_ns, len(record.samples), record.sampling_rate_hz))
