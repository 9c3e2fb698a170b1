"""The ring of one station: its last packets by sequence, bounded, and what INFO says about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streamer.replay.packet import V3_SEQUENCES, Packet
from streamer.replay.stream import StreamName


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """A stream that a station will have: known from the files before its first packet appears."""

    name: StreamName
    format: str
    subformat: str
    start_ns: int
    in_v3: bool

    @property
    def kind(self) -> str:
        """Format and subformat code together, such as ``2D``."""
        return self.format + self.subformat


@dataclass(slots=True)
class StreamState:
    """Description of a stream and the time span of what the ring holds of it (ns UTC)."""

    description: StreamDescription
    start_ns: int
    end_ns: int
    packets: int = 0


class StationRing:
    """The last ``capacity`` packets of one station, with consecutive sequence numbers from ``first_sequence`` on."""

    def __init__(
        self, station_id: str, streams: Iterable[StreamDescription], capacity: int, first_sequence: int = 1
    ) -> None:
        self.station_id = station_id
        self.next_sequence = first_sequence
        self.first_sequence = first_sequence
        self._slots: list[Packet | None] = [None] * capacity
        self.streams = {
            (stream.name.stream_id, stream.kind): StreamState(stream, stream.start_ns, stream.start_ns)
            for stream in streams
        }

    @property
    def first_number(self) -> int:
        """The number of the oldest packet as clients see it."""
        return self.first_sequence

    @property
    def next_number(self) -> int:
        """The number after that of the newest packet as clients see it."""
        return self.next_sequence

    def append(
        self,
        arrival: int,
        description: StreamDescription,
        start_ns: int,
        end_ns: int,
        payload: bytes,
        number: int | None = None,
    ) -> Packet:
        """Give a record the next sequence number and keep it, letting go of the oldest when full.

        ``number`` is the one that clients see where it is another one.
        """
        packet = Packet(
            self.next_sequence,
            arrival,
            description.name,
            description.format,
            description.subformat,
            start_ns,
            end_ns,
            payload,
            number,
        )
        index = self.next_sequence % len(self._slots)
        old = self._slots[index]
        if old is not None:
            self.first_sequence = old.sequence + 1
            lost = self.streams[old.name.stream_id, old.kind]
            lost.start_ns = old.end_ns  # of what is left, this is where it starts when there is no gap
        self._slots[index] = packet
        self.next_sequence += 1
        self._extend(description, packet)
        return packet

    def _extend(self, description: StreamDescription, packet: Packet) -> None:
        state = self.streams[description.name.stream_id, description.kind]
        if state.packets == 0:
            state.start_ns, state.end_ns = packet.start_ns, packet.end_ns
        state.end_ns = max(state.end_ns, packet.end_ns)
        state.packets += 1

    def get(self, sequence: int) -> Packet | None:
        """The packet with this number, or None when it is no longer or not yet there."""
        packet = self._slots[sequence % len(self._slots)]
        return packet if packet is not None and packet.sequence == sequence else None

    def locate(self, sequence: int) -> int:
        """Where to start for a requested number: it, the oldest kept if it is gone, the next to come if it is ahead."""
        if sequence > self.next_sequence:
            return self.next_sequence
        return max(sequence, self.first_sequence)

    def from_v4(self, number: int) -> int:
        """The sequence number that clients of SeedLink v4 call ``number``."""
        return number

    def from_v3(self, sequence: int) -> int:
        """The largest number up to the next one with these low 24 bits; one that never was is taken as ahead."""
        behind = (self.next_sequence - sequence) % V3_SEQUENCES
        return self.next_sequence - behind if behind <= self.next_sequence else self.next_sequence + 1

    @property
    def in_v3(self) -> bool:
        """Whether any of the station's streams can be carried by SeedLink v3."""
        return any(state.description.in_v3 for state in self.streams.values())
