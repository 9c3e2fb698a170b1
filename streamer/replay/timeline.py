"""When each record appears: at its end time, later by the delay of its stream and by jitter, for every station served.

Times here are data time: int ns from the start of the earliest record. How fast they pass is the server's affair.
"""

from __future__ import annotations

import fnmatch
import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from picker.errors import ConfigError
from streamer.replay.ring import StreamDescription
from streamer.replay.settings import Delay, ReplaySettings
from streamer.replay.source import Source, SourceRecord
from streamer.replay.stream import StreamName


@dataclass(frozen=True)
class TimelineStation:
    """One served station: its code, the records it takes from a source station, and when each appears (ns, sorted).

    ``order`` (n,) are indices into ``records``, ``release_ns`` (n,) their times; ``new_code`` is set if it is virtual.
    """

    network: str
    station: str
    new_code: str | None
    records: Sequence[SourceRecord]
    order: NDArray[np.int64]
    release_ns: NDArray[np.int64]

    @property
    def station_id(self) -> str:
        """SeedLink v4 station ID under which it is served."""
        return f"{self.network}_{self.station}"

    def rename(self, name: StreamName) -> StreamName:
        """Codes of a record as this station serves it."""
        return StreamName(self.network, self.station, name.location, name.band, name.source, name.subsource)

    def streams(self) -> dict[tuple[str, str, str], StreamDescription]:
        """Description of each stream by stream ID, format and subformat."""
        out: dict[tuple[str, str, str], StreamDescription] = {}
        for record in self.records:
            key = (record.name.stream_id, record.format, record.subformat)
            known = out.get(key)
            if known is None or (record.in_v3 and not known.in_v3) or record.start_ns < known.start_ns:
                start_ns = min(record.start_ns, known.start_ns) if known else record.start_ns
                in_v3 = record.in_v3 or (known is not None and known.in_v3)
                out[key] = StreamDescription(self.rename(record.name), record.format, record.subformat, start_ns, in_v3)
        return out


@dataclass(frozen=True)
class Timeline:
    """All stations served and the span of their data (ns UTC)."""

    stations: tuple[TimelineStation, ...]
    start_ns: int
    end_ns: int

    def __iter__(self) -> Iterator[tuple[int, int, SourceRecord]]:
        """Release time (ns from ``start_ns``), index of the station and record, in order of release."""
        return heapq.merge(
            *(self._of_station(index) for index in range(len(self.stations))), key=lambda entry: entry[:2]
        )

    def _of_station(self, index: int) -> Iterator[tuple[int, int, SourceRecord]]:
        station = self.stations[index]
        for release_ns, record in zip(station.release_ns, station.order, strict=True):
            yield int(release_ns), index, station.records[record]

    def __len__(self) -> int:
        return sum(len(station.order) for station in self.stations)

    @property
    def duration_ns(self) -> int:
        """Release time of the last record."""
        return max(int(station.release_ns[-1]) for station in self.stations)


def build_timeline(source: Source, settings: ReplaySettings) -> Timeline:
    """Lay out a replay; raises ConfigError when a virtual station's code collides."""
    start_ns = min(record.start_ns for record in source.records)
    end_ns = max(record.end_ns for record in source.records)
    originals = sorted(source.stations)
    count = settings.virtual_stations or len(originals)
    stations = []
    for number in range(count):
        records = source.stations[originals[number % len(originals)]]
        first = records[0].name
        code = f"V{number + 1:04d}" if settings.virtual_stations else None
        order, release_ns = _releases(records, f"{first.network}_{code or first.station}", start_ns, settings)
        stations.append(TimelineStation(first.network, code or first.station, code, records, order, release_ns))
    if len({station.station_id for station in stations}) != len(stations):
        raise ConfigError("two virtual stations have the same code: serve fewer with --virtual-stations")
    return Timeline(tuple(stations), start_ns, end_ns)


def _releases(
    records: Sequence[SourceRecord], station_id: str, start_ns: int, settings: ReplaySettings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    # Seeded by the name, so that a station's delays do not depend on which others are served.
    generator = random.Random(f"{settings.seed}/{station_id}")
    draw = generator.random()
    delays: dict[str, int] = {}
    for record in records:
        stream_id = record.name.stream_id
        if stream_id not in delays:
            delays[stream_id] = _delay_ns(settings.delays, f"{station_id}_{stream_id}", draw)
    due = np.array([record.end_ns - start_ns + delays[record.name.stream_id] for record in records], dtype=np.int64)
    order = np.argsort(due, kind="stable")
    release_ns = due[order]
    if settings.jitter_s:
        jitter = [generator.uniform(0.0, settings.jitter_s * 1e9) for _ in records]
        release_ns = release_ns + np.array(jitter).astype(np.int64)
        if settings.reorder:
            again = np.argsort(release_ns, kind="stable")
            order, release_ns = order[again], release_ns[again]
        else:
            release_ns = np.maximum.accumulate(release_ns)
    return order, release_ns


def _delay_ns(delays: Sequence[Delay], name: str, draw: float) -> int:
    for delay in delays:
        if fnmatch.fnmatchcase(name, delay.pattern):
            return round((delay.low_s + draw * (delay.high_s - delay.low_s)) * 1e9)
    return 0
