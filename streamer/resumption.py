"""How to go on after a lost connection, and whether what the server then sends is whole: decisions without I/O.

From the best way to the last one, each tried where the one before has failed:

| kind | asks for | fails where |
|---|---|---|
| ``sequence`` | each station from the number after its last packet | a channel begins late, a station stays silent |
| ``window`` | everything from the oldest end on | the server breaks off or stays silent again and again |
| ``live`` | what comes next; the rest is lost | |

A server with one position for all stations (ringserver) starts at the newest of the numbers and leaves out the rest; it
shows by records that begin too late, before anything of their channel has been delivered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import NamedTuple

from streamer.inventory import Inventory
from streamer.record import Nslc, Record
from streamer.resume import V3_NUMBERS, ChannelPosition, ResumePoint, StationPosition

NEWER_NS = 30_000_000_000
"""A server whose list shows data so much beyond our last packet has something for us."""
TOLERANCE_SAMPLES = 2
MOST_LOST = 3
"""Connections in a row that end without anything new before another way is tried."""
MOST_BROKEN = {"sequence": 1, "window": 2}
"""The same for those that the server breaks off with an error, or on which it is silent."""


class Kind(StrEnum):
    """The ways to go on."""

    SEQUENCE = "sequence"
    WINDOW = "window"
    LIVE = "live"


class Plan(NamedTuple):
    """What to ask for: numbers of the last packets by station, or a time (int ns UTC); ``kind`` None asks for neither.

    ``reason`` says why it is not the best way, if it is not.
    """

    kind: Kind | None
    sequences: Mapping[str, StationPosition] = {}
    since_ns: int | None = None
    reason: str = ""


class Ladder:
    """The way that is tried now, and from where: an episode lasts from a lost connection until the data are whole."""

    def __init__(self, longest_ns: int) -> None:
        self.lossy = False
        """Whether this server was seen to lose data when asked for several stations by number."""
        self._longest_ns = longest_ns
        self._kind, self._reason, self._lost, self._broken = Kind.SEQUENCE, "", 0, 0
        self._channels: dict[Nslc, ChannelPosition] = {}
        self._stations: set[str] = set()
        self._late: tuple[Nslc, int] | None = None

    @property
    def channels(self) -> Mapping[Nslc, ChannelPosition]:
        """Where each channel stood that lived when the connection was lost."""
        return self._channels

    @property
    def stations(self) -> set[str]:
        """The stations that lived then."""
        return self._stations

    def plan(
        self,
        point: ResumePoint,
        now_ns: int,
        *,
        protocol: str,
        stations: Collection[str] | None,
        inventory: Inventory,
        window: bool,
    ) -> Plan:
        """What to ask for now; ``stations`` None: not known one by one, ``window``: whether the server takes times."""
        if point.received_ns is None:
            return Plan(None)
        if not self._channels:
            self._channels, self._stations = point.lately()
        kind, reason = self._kind, self._reason
        if kind is Kind.SEQUENCE:
            against = self._objection(point, now_ns, protocol, stations, inventory)
            if against is None and stations is not None:
                positions = {name: point.stations[name] for name in stations if name in point.stations}
                usable = {name: one for name, one in positions.items() if self._usable(one, protocol, now_ns)}
                return Plan(kind, usable, reason=reason)
            kind, reason = Kind.WINDOW, against or ""
        if kind is Kind.WINDOW and not window:
            kind, reason = Kind.LIVE, f"{reason}; the server takes no times".removeprefix("; ")
        return Plan(kind, since_ns=self._since_ns(now_ns) if kind is Kind.WINDOW else None, reason=reason)

    def _objection(
        self, point: ResumePoint, now_ns: int, protocol: str, stations: Collection[str] | None, inventory: Inventory
    ) -> str | None:
        """Why sequence numbers are not to be used, or None."""
        if self.lossy:
            return "it leaves data out where it is asked by sequence number"
        if stations is None:
            return "its stations are not known one by one"
        living = self._stations.intersection(stations)
        if not living:
            return "no sequence number is known"
        for name in sorted(living):
            position = point.stations[name]
            if not self._usable(position, protocol, now_ns):
                return "the numbers are too old or of another protocol version"
            offer = inventory.get(name)
            if offer is not None and offer.last_sequence is not None:
                ahead = position.sequence - offer.last_sequence
                ahead = (ahead + V3_NUMBERS // 2) % V3_NUMBERS - V3_NUMBERS // 2 if protocol == "3" else ahead
                if ahead > 0:
                    return f"it counts anew: {name} is at {offer.last_sequence} and was at {position.sequence}"
        return None

    def _usable(self, position: StationPosition, protocol: str, now_ns: int) -> bool:
        return position.protocol == protocol and now_ns - position.received_ns <= self._longest_ns

    def _since_ns(self, now_ns: int) -> int:
        """The oldest end, but no further back than is allowed, counted by arrival: data may be late or recorded."""
        return min(one.end_ns + max(0, now_ns - one.received_ns - self._longest_ns) for one in self._channels.values())

    def came_late(self, name: Nslc, start_ns: int) -> None:
        """A channel began at ``start_ns``, later than it should have, on a connection resumed by number."""
        self._late = name, start_ns

    def began(self, kind: Kind | None, name: Nslc, start_ns: int) -> bool:
        """A channel's first new record on this connection; whether it proves that numbers lose data here."""
        if kind is Kind.WINDOW and self._late is not None and self._late[0] == name:
            proof, self._late = start_ns < self._late[1], None
            self.lossy = self.lossy or proof
            return proof
        return False

    def settle(self) -> None:
        """What was missed is here, or will not come: the next loss begins anew."""
        self._channels, self._stations, self._late = {}, set(), None
        self._kind, self._reason, self._lost, self._broken = Kind.SEQUENCE, "", 0, 0

    def failed(self, kind: Kind | None, reason: str) -> None:
        """This way has failed: try the next one."""
        if kind in (Kind.SEQUENCE, Kind.WINDOW):
            self._kind = Kind.WINDOW if kind is Kind.SEQUENCE else Kind.LIVE
            self._reason, self._lost, self._broken = reason, 0, 0

    def ended(self, kind: Kind | None, reason: str, *, advanced: bool, broken: bool) -> None:
        """A connection has ended before the data were whole; ``broken``: by an error of the server, or its silence."""
        if advanced or kind not in (Kind.SEQUENCE, Kind.WINDOW):
            self._lost = self._broken = 0
            return
        self._broken += broken
        self._lost += not broken
        if self._lost >= MOST_LOST or self._broken >= MOST_BROKEN[kind]:
            self.failed(kind, reason)


class Watch:
    """What a resumed connection must bring: the first new record of each channel, and a packet of each station."""

    def __init__(self, plan: Plan, ladder: Ladder, inventory: Inventory, silence_s: float, now_s: float) -> None:
        self.kind, self._silence_s, self._begun_s = plan.kind, silence_s, now_s
        self._first_s: float | None = None
        self._unchecked = {} if plan.kind is None else dict(ladder.channels)
        self._silent = set(ladder.stations) & set(plan.sequences)
        ends: dict[str, int] = {}
        for name, channel in ladder.channels.items():
            station = f"{name.network}_{name.station}"
            ends[station] = max(channel.end_ns, ends.get(station, 0))
        shown = {station: offer.end_ns for station in ends if (offer := inventory.get(station)) is not None}
        newer = {station for station, end_ns in shown.items() if (end_ns or 0) > ends[station] + NEWER_NS}
        self._newer = newer & self._silent
        self.idle = bool(ends) and not newer and all(shown.get(station) is not None for station in ends)
        """Whether the server's list shows that there is nothing to send: its silence is no failure then."""

    @property
    def whole(self) -> bool:
        """Whether every channel that lived has gone on."""
        return not self._unchecked and not self._silent

    def heard(self, station: str, now_s: float) -> None:
        """A packet of ``station`` has come."""
        self._silent.discard(station)
        if self._first_s is None:
            self._first_s = now_s

    def first(self, record: Record) -> int | None:
        """Nanoseconds missing before ``record``, a new one; None where it is not the first of its channel to go on."""
        position = self._unchecked.get(record.nslc)
        if position is None or record.end_ns <= position.end_ns:
            return None
        del self._unchecked[record.nslc]
        return max(0, record.start_ns - position.end_ns - round(TOLERANCE_SAMPLES * 1e9 / record.sampling_rate_hz))

    def silent(self, now_s: float) -> str | None:
        """Which station should have been heard by now, or None."""
        if self.kind is Kind.SEQUENCE:
            if self._first_s is not None and now_s - self._first_s >= self._silence_s and self._silent:
                return min(self._silent)
            if now_s - self._begun_s >= self._silence_s and (self._newer & self._silent):
                return min(self._newer & self._silent)
        return None

    @property
    def deadline_s(self) -> float:
        """When ``silent`` may have an answer although nothing comes; infinite where it will not."""
        waits = self.kind is Kind.SEQUENCE and bool(self._newer & self._silent)
        return self._begun_s + self._silence_s if waits else float("inf")

    def over(self, now_s: float) -> bool:
        """Whether there is nothing more to wait for: those that have not gone on by now have ended."""
        return self._first_s is not None and now_s - self._first_s > self._silence_s
