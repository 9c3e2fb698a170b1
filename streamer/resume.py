"""What a server has delivered, by channel and by station: pure book-keeping, no I/O.

A reader keeps one of what it has received, the picking one of what it has worked off; the latter is what a snapshot
saves and what a restarted daemon asks its servers to go on from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from streamer.origin import Origin
from streamer.record import Nslc, Record
from streamer.station import FUTURE_NS

SPREAD_NS = 300_000_000_000
"""From what had not delivered for so long before the last arrival, nothing more is expected."""
MOST_CHANNELS = 20_000
MOST_STATIONS = 10_000
LATEST_NS = 2**62
V3_NUMBERS = 1 << 24
LARGEST_SEQUENCE = 2**64 - 1


class ChannelPosition(NamedTuple):
    """Until when a channel's data are here, and when the last of them arrived (int ns UTC)."""

    end_ns: int
    received_ns: int

    @property
    def lag_ns(self) -> int:
        """How late the data were."""
        return self.received_ns - self.end_ns


class StationPosition(NamedTuple):
    """A station's last packet: number, protocol version of the number, first sample and arrival (int ns UTC)."""

    sequence: int
    protocol: str
    start_ns: int
    received_ns: int


class ResumePoint:
    """The position of each channel and each station of one server. Memory is bounded."""

    def __init__(self) -> None:
        self.channels: dict[Nslc, ChannelPosition] = {}
        self.stations: dict[str, StationPosition] = {}

    def note(self, record: Record, received_ns: int, origin: Origin | None = None) -> None:
        """A record has come. One that stations refuse as ``future`` moves no channel."""
        before = self.channels.get(record.nslc)
        if record.start_ns <= received_ns + FUTURE_NS and (before is not None or len(self.channels) < MOST_CHANNELS):
            end_ns = record.end_ns if before is None else max(before.end_ns, record.end_ns)
            self.channels[record.nslc] = ChannelPosition(end_ns, received_ns)
        if origin is None or origin.sequence is None:
            return
        if origin.station in self.stations or len(self.stations) < MOST_STATIONS:
            self.stations[origin.station] = StationPosition(
                origin.sequence, origin.protocol, record.start_ns, received_ns
            )

    def pass_over(self, station: str, sequence: int | None, protocol: str) -> None:
        """A packet of ``station`` has come that holds nothing to use: go on behind it.

        Only where its number follows the station's last one: the name in a broken packet may be wrong, and a number
        further on would leave out data of that station.
        """
        last = self.stations.get(station)
        if last is None or last.protocol != protocol:
            return
        following = last.sequence + 1
        if sequence == (following % V3_NUMBERS if protocol == "3" else following):
            self.stations[station] = last._replace(sequence=sequence)

    @property
    def received_ns(self) -> int | None:
        """When the last record arrived (int ns UTC), None before the first."""
        return max((position.received_ns for position in self.channels.values()), default=None)

    def lately(self) -> tuple[dict[Nslc, ChannelPosition], set[str]]:
        """The channels and stations that delivered until the end; others do not hold these back."""
        since_ns = (self.received_ns or 0) - SPREAD_NS
        channels = {name: position for name, position in self.channels.items() if position.received_ns >= since_ns}
        return channels, {name for name, position in self.stations.items() if position.received_ns >= since_ns}

    def saved(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "channels": [[*nslc, *position] for nslc, position in self.channels.items()],
            "stations": [[station, *position] for station, position in self.stations.items()],
        }

    @classmethod
    def restored(cls, saved: Any) -> ResumePoint:
        """What ``saved`` gave; raises ValueError for anything else."""
        point = cls()
        for row in _rows(saved, "channels", (str,) * 4 + (int,) * 2, MOST_CHANNELS):
            point.channels[Nslc(*row[:4])] = ChannelPosition(_time(row[4]), _time(row[5]))
        for row in _rows(saved, "stations", (str, int, str, int, int), MOST_STATIONS):
            if not 0 <= row[1] <= LARGEST_SEQUENCE:
                raise ValueError(f"sequence {row[1]} of {row[0]!r} is out of range")
            point.stations[row[0]] = StationPosition(row[1], row[2], _time(row[3]), _time(row[4]))
        return point


def _rows(saved: Any, key: str, types: tuple[type, ...], most: int) -> Iterator[list[Any]]:
    rows = saved.get(key) if isinstance(saved, dict) else None
    if not isinstance(rows, list) or len(rows) > most:
        raise ValueError(f"a resume point needs {key!r}, a list of at most {most}")
    for row in rows:
        if not isinstance(row, list | tuple) or tuple(map(type, row)) != types:
            raise ValueError(f"{row!r} is no row of {key!r}")
        yield list(row)


def _time(value: int) -> int:
    if not 0 <= value < LATEST_NS:
        raise ValueError(f"{value} ns is no time")
    return value
