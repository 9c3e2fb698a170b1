"""A capture as the source of a replay: its packets in their order of arrival, with the numbers that they had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from pymseed import MiniSEEDError

from picker.errors import ConfigError
from streamer.capture.reader import Capture, Placed
from streamer.errors import BadRecord
from streamer.replay.packet import V3_SEQUENCES
from streamer.replay.ring import StationRing
from streamer.replay.settings import ReplaySettings
from streamer.replay.source import FileSpan, SourceRecord, describe
from streamer.replay.stream import StreamName
from streamer.replay.timeline import Timeline, TimelineStation

UNCHANGED = ("shift", "virtual_stations", "delays", "jitter_s", "reorder", "repack_s", "first_sequence")
"""Settings that would change what was captured."""


def captured_timeline(settings: ReplaySettings) -> Timeline:
    """Lay out the captures ``settings.paths``; raises ConfigError where they hold nothing that can be served.

    What the capturing reader left aside is left out: it came again; so is a broken record of SeedLink 3 that does not
    name its station, since clients ask by station. The pauses between packets are those of arrival,
    also where the clock was set back meanwhile: then none.
    """
    for name in UNCHANGED:
        if getattr(settings, name) != ReplaySettings.model_fields[name].get_default():
            option = {"delays": "delay-s"}.get(name, name.replace("_", "-"))
            raise ConfigError(f"--{option}: a capture is played as it came; leave it out")
    capture = Capture(settings.paths)
    wanted = settings.capture_server
    if wanted is not None and wanted not in capture.servers:
        raise ConfigError(f"--server {wanted}: not in the capture, which has {', '.join(capture.servers)}")
    stations: dict[str, tuple[list[SourceRecord], list[int]]] = {}
    first_ns = last_ns = None
    for placed in capture:
        packet = placed.packet
        if not packet.taken or not packet.station or (wanted is not None and placed.server != wanted):
            continue
        if first_ns is None or last_ns is None:
            first_ns, last_ns = packet.received_ns, packet.received_ns - 1
        last_ns = max(packet.received_ns, last_ns + 1)
        records, released = stations.setdefault(packet.station, ([], []))
        records.append(_record(placed, records[-1] if records else None))
        released.append(last_ns - first_ns)
    if not stations:
        raise ConfigError(f"{settings.paths[0]}: the capture holds no packet")
    return _timeline(stations)


def _timeline(stations: dict[str, tuple[list[SourceRecord], list[int]]]) -> Timeline:
    served = tuple(
        TimelineStation(*_codes(station_id), None, records, np.arange(len(records)), np.array(released, dtype=np.int64))
        for station_id, (records, released) in sorted(stations.items())
    )
    times = [record for records, _ in stations.values() for record in records]
    return Timeline(served, min(one.start_ns for one in times), max(one.end_ns for one in times))


def _record(placed: Placed, before: SourceRecord | None) -> SourceRecord:
    """What a packet is. One whose header cannot be read is served too, as of the stream that came before it."""
    packet, path, at = placed.packet, placed.path, placed.payload_at
    data = packet.payload if at is None else FileSpan(path, at, len(packet.payload))
    try:
        known = describe(packet.payload, data)
        name, start_ns, end_ns = known.name, known.start_ns, known.end_ns
    except (BadRecord, MiniSEEDError, ValueError):
        name = StreamName("", "", "", "", "", "") if before is None else before.name
        start_ns = end_ns = packet.received_ns if before is None else before.end_ns
    network, station = _codes(packet.station)
    return SourceRecord(
        name=replace(name, network=network, station=station),
        format=packet.format,
        subformat=packet.subformat,
        start_ns=start_ns,
        end_ns=end_ns,
        data=data,
        number=packet.sequence,
    )


def _codes(station_id: str) -> tuple[str, str]:
    network, _, station = station_id.partition("_")
    return network, station


class CapturedRing(StationRing):
    """A ring whose packets have the numbers of another server: with holes, repetitions, and counted anew at times."""

    @property
    def first_number(self) -> int:
        """See StationRing."""
        packet = self.get(self.first_sequence)
        return self.first_sequence if packet is None else packet.wire_number

    @property
    def next_number(self) -> int:
        """See StationRing."""
        packet = self.get(self.next_sequence - 1)
        return self.next_sequence if packet is None else packet.wire_number + 1

    def from_v4(self, number: int) -> int:
        """See StationRing."""
        return self._place(lambda have: have - number)

    def from_v3(self, sequence: int) -> int:
        """See StationRing."""
        half = V3_SEQUENCES // 2
        return self._place(lambda have: (have - sequence + half) % V3_SEQUENCES - half)

    def _place(self, beyond: Callable[[int], int]) -> int:
        """Where the wanted number is, or belongs; ``beyond`` says how far a number lies behind it."""
        kept = [packet for at in range(self.first_sequence, self.next_sequence) if (packet := self.get(at)) is not None]
        for packet in reversed(kept):
            if beyond(packet.wire_number) in (0, -1):
                return packet.sequence - beyond(packet.wire_number)
        return next((one.sequence for one in kept if beyond(one.wire_number) > 0), self.next_sequence + 1)
