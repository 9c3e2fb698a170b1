"""What one client still has to get: a cursor into each station's ring, in order of arrival, without any copy.

A slow client costs nothing here but its place: memory stays bounded by the rings. One that falls so far behind that a
ring lets go of a packet it has not had is overrun, and its connection ends.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from streamer.replay.packet import Packet, encode_v3, encode_v4, served_in_v3
from streamer.replay.request import Origin, Start, StationRequest, StreamRequest
from streamer.replay.ring import StationRing, StreamState
from streamer.replay.selector import selects


class OverrunError(Exception):
    """The client is too slow: packets that it has not had are gone from the ring."""


@dataclass(slots=True)
class Cursor:
    """Where a client stands in one station. ``begin_ns`` and ``end_ns`` are its time window (ns UTC) or None."""

    ring: StationRing
    request: StationRequest
    sequence: int
    begin_ns: int | None
    end_ns: int | None
    queued: bool = False
    served: bool = False
    wanted: dict[tuple[str, str], bool] = field(default_factory=dict)

    def wants(self, packet: Packet) -> bool:
        """Whether the selectors and the time window let the packet through."""
        key = (packet.name.stream_id, packet.kind)
        if key not in self.wanted:
            self.wanted[key] = selects(self.request.selectors, packet.name, packet.kind)
        if self.begin_ns is not None and packet.end_ns <= self.begin_ns:
            return False
        return self.wanted[key] and (self.end_ns is None or packet.start_ns < self.end_ns)


def _cursor(ring: StationRing, request: StationRequest, protocol: int) -> Cursor:
    start = request.start
    sequence, begin_ns = ring.next_sequence, start.begin_ns
    if start.origin is Origin.EARLIEST:
        sequence = ring.first_sequence
    elif start.origin is Origin.SEQUENCE:
        wanted = ring.from_v4(start.sequence) if protocol == 4 else ring.from_v3(start.sequence)
        if _is_of_another_life(ring, start, wanted):
            sequence, begin_ns = ring.first_sequence, start.last_seen_ns
        else:
            sequence = ring.locate(wanted)
    return Cursor(ring, request, sequence, begin_ns, start.end_ns)


def _is_of_another_life(ring: StationRing, start: Start, sequence: int) -> bool:
    """Whether the packet that the client had last is not the one which has its number here (times in whole seconds)."""
    if start.last_seen_ns is None:
        return False
    last = ring.get(sequence - 1)
    if last is None:
        return sequence > ring.next_sequence
    return last.start_ns // 1_000_000_000 != start.last_seen_ns // 1_000_000_000


class Subscription:
    """The cursors of one client over the rings of the server; each station belongs to the first request it matches."""

    def __init__(self, request: StreamRequest, rings: Sequence[StationRing]) -> None:
        self.request = request
        self._encode = encode_v3 if request.protocol == 3 else encode_v4
        self._cursors: dict[int, Cursor] = {}
        self._ready: list[tuple[int, int]] = []  # (arrival of the next packet, index of the station)
        for index, ring in enumerate(rings):
            station = next((one for one in request.stations if one.matcher.match(ring.station_id)), None)
            if station is not None:
                self._cursors[index] = _cursor(ring, station, request.protocol)
                self._queue(index)

    @property
    def stations(self) -> list[StationRing]:
        """The rings that the client reads."""
        return [cursor.ring for cursor in self._cursors.values()]

    @property
    def caught_up(self) -> bool:
        """Whether nothing is waiting to be sent."""
        return not self._ready

    def published(self, index: int) -> bool:
        """Take note of a new packet in ring ``index``; return whether one is due. Raises OverrunError."""
        cursor = self._cursors.get(index)
        if cursor is not None:
            if cursor.served and cursor.sequence < cursor.ring.first_sequence:
                raise OverrunError(cursor.ring.station_id)
            self._queue(index)
        return bool(self._ready)

    def _queue(self, index: int) -> None:
        cursor = self._cursors[index]
        if cursor.queued or cursor.sequence >= cursor.ring.next_sequence:
            return
        packet = self._packet(cursor)
        heapq.heappush(self._ready, (packet.arrival, index))
        cursor.queued = True

    def _packet(self, cursor: Cursor) -> Packet:
        packet = cursor.ring.get(cursor.sequence)
        if packet is None and not cursor.served:  # nothing was promised yet: start with what is still there
            cursor.sequence = cursor.ring.first_sequence
            packet = cursor.ring.get(cursor.sequence)
        if packet is None:
            raise OverrunError(cursor.ring.station_id)
        return packet

    def take(self, limit_bytes: int) -> bytes:
        """The next packets as bytes, at least one if any is due, up to about ``limit_bytes``; raises OverrunError."""
        out = bytearray()
        for packet in self._due():
            out += self._encode(packet)
            if len(out) >= limit_bytes:
                break
        return bytes(out)

    def _due(self) -> Iterator[Packet]:
        while self._ready:
            _, index = heapq.heappop(self._ready)
            cursor = self._cursors[index]
            cursor.queued = False
            packet = self._packet(cursor)
            cursor.sequence, cursor.served = packet.sequence + 1, True
            self._queue(index)
            in_v3 = self.request.protocol == 4 or served_in_v3(packet.format, len(packet.payload), packet.name)
            if in_v3 and cursor.wants(packet):
                yield packet

    def complete(self, source_ended: bool) -> bool:
        """Whether END is due: all sent, and it was dial-up, or the window of SeedLink v3 TIME is full."""
        if self._ready:
            return False
        if self.request.dialup:
            return True
        if not self.request.end_after_window:
            return False
        return source_ended or all(self._past_window(cursor) for cursor in self._cursors.values())

    def _past_window(self, cursor: Cursor) -> bool:
        end_ns = cursor.end_ns
        return end_ns is not None and all(
            state.packets > 0 and state.end_ns >= end_ns
            for state in cursor.ring.streams.values()
            if self._waits_for(cursor, state)
        )

    def _waits_for(self, cursor: Cursor, state: StreamState) -> bool:
        stream = state.description
        return stream.in_v3 and selects(cursor.request.selectors, stream.name, stream.kind)
