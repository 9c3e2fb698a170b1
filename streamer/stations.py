"""All stations: routes records to the one instrument of each station that is picked.

Channels show up over time, so the records of a new station are held until one of its channels has delivered more than
``choose_s`` plus the longest record seen. Then the instrument that ``prefer`` ranks first among those seen is chosen,
for good: a better one that shows up later is dropped as ``not_preferred``, like the others. Held records are then
routed as if they had just come, so nothing is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from streamer.channels import COMPONENTS, DEFAULT_PREFERENCE, normalised, preference_rank, refusal
from streamer.chunk import Chunk, StationKey
from streamer.errors import BadRecord
from streamer.orientation import turn, turned
from streamer.record import Nslc, Record
from streamer.resample import SLOT_NS
from streamer.station import FUTURE_NS, Station, StationPolicy
from streamer.station_events import (
    DroppedChannel,
    NewChannel,
    NewStation,
    NoUsableChannel,
    OddDirections,
    StationEvent,
    TooManyStations,
    VerticalOnly,
)
from streamer.station_xml import KnownChannels, Place

MOST_CHANNELS = 64
"""Channels a station may have; more are a broken or hostile source."""
MOST_HELD_RECORDS = 4096
MOST_HELD_SAMPLES = 500_000


@dataclass
class Site:
    """What is known of one network and station code."""

    held: list[tuple[Record, int]] = field(default_factory=list)
    held_samples: int = 0
    delivered_ns: Counter[Nslc] = field(default_factory=Counter)
    longest_ns: int = 0
    station: Station | None = None
    channels: set[str] = field(default_factory=set)
    dropped: dict[Nslc, str] = field(default_factory=dict)
    hopeless: bool = False


class Stations:
    """Records of any station in, chunks of all stations out; ``events`` is what the operator should hear once."""

    def __init__(
        self,
        policy: StationPolicy | None = None,
        prefer: Sequence[str] = DEFAULT_PREFERENCE,
        choose_s: float = 3.0,
        max_stations: int = 5000,
        known: KnownChannels | None = None,
    ) -> None:
        self.policy = policy or StationPolicy()
        self.prefer = tuple(prefer)
        self.choose_ns = round(choose_s * 1e9)
        self.max_stations = max_stations
        self.known = known or KnownChannels()
        """What StationXML says of channels."""
        self._odd: set[StationKey] = set()
        self.sites: dict[tuple[str, str], Site] = {}
        self._own_counts: Counter[str] = Counter()
        self._events: list[StationEvent] = []
        self._touched: dict[StationKey, Station] = {}
        self._full = False

    @property
    def counts(self) -> Counter[str]:
        """Decisions by reason, over all stations."""
        total = Counter(self._own_counts)
        for site in self.sites.values():
            if site.station is not None:
                total.update(site.station.counts)
        return total

    def add(self, record: Record, now_ns: int) -> None:
        """Take a record that arrived at ``now_ns``; never raises on bad data, but counts it."""
        nslc = normalised(record.nslc)
        if nslc != record.nslc:
            record = replace(record, nslc=nslc)
        site = self._site(nslc)
        if site is None:
            self._own_counts["too_many_stations"] += 1
            return
        reason = refusal(nslc.channel)
        if reason is None and nslc not in site.delivered_ns and len(site.delivered_ns) >= MOST_CHANNELS:
            reason = "too_many_channels"
        if reason is not None:
            self._drop(site, nslc, reason)
        if site.station is not None:
            if reason is None:
                self._route(site, site.station, record, now_ns)
            return
        self._hold(site, record, now_ns, usable=reason is None)

    def ready(self) -> list[Chunk]:
        """The chunks completed since the last call; those of one station are in time order."""
        touched, self._touched = self._touched, {}
        return [self._turned(chunk) for station in touched.values() for chunk in station.ready()]

    def flush(self) -> list[Chunk]:
        """End of data: every chunk still held, padded as invalid."""
        for site in self.sites.values():
            if site.station is None and site.held:
                self._choose(site)
        self._touched = {}
        stations = [site.station for site in self.sites.values() if site.station]
        return [self._turned(chunk) for station in stations for chunk in station.flush()]

    def place(self, nslc: Nslc, time_ns: int) -> Place | None:
        """Where a channel is at ``time_ns``, if that is known."""
        epoch = self.known.at(nslc, time_ns)
        return None if epoch is None else epoch.place

    def channels(self, key: StationKey) -> dict[str, str]:
        """Channel code of each component that a station which made chunks is known to have."""
        station = self.sites[key.network, key.station].station
        assert station is not None, "a station that made chunks exists"
        return {component: key.band_instrument + letter for letter, component in station.orientations.items()}

    def _turned(self, chunk: Chunk) -> Chunk:
        """``chunk`` with components that point up, north and east, where it is known how they do."""
        if not self.known:
            return chunk
        key, time_ns = chunk.station, chunk.first_sample * SLOT_NS
        station = self.sites[key.network, key.station].station
        assert station is not None, "a station that made chunks exists"
        letters = {component: letter for letter, component in station.orientations.items()}
        epochs = [self.known.at(key.channel(letters.get(component, "")), time_ns) for component in COMPONENTS]
        vertical, north, east = (None if epoch is None else epoch.direction for epoch in epochs)
        matrix, odd = turn((vertical, north, east))
        if odd and key not in self._odd:
            self._odd.add(key)
            self._events.append(OddDirections(key))
        return chunk if matrix is None else turned(chunk, matrix)

    def restore(self, sites: dict[tuple[str, str], Site]) -> None:
        """Take up what a snapshot kept; waiting times are those of this object. Raises ValueError for nonsense."""
        for (network, code), site in sites.items():
            if not (isinstance(network, str) and isinstance(code, str) and isinstance(site, Site)):
                raise ValueError("its stations are not stations")
            if site.station is not None:
                site.station.follow(self.policy)
        self.sites = sites

    def events(self) -> list[StationEvent]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def _site(self, nslc: Nslc) -> Site | None:
        key = nslc.network, nslc.station
        site = self.sites.get(key)
        if site is None and len(self.sites) < self.max_stations:
            site = self.sites[key] = Site()
        if site is None and not self._full:
            self._full = True
            self._events.append(TooManyStations(self.max_stations))
        return site

    def _hold(self, site: Site, record: Record, now_ns: int, usable: bool) -> None:
        """Keep a record until the station's instrument is chosen, and choose it when enough has come."""
        if usable and record.start_ns > now_ns + FUTURE_NS:
            self._own_counts["future"] += 1
            return
        duration_ns = record.end_ns - record.start_ns
        site.longest_ns = max(site.longest_ns, duration_ns)
        if record.nslc in site.delivered_ns or len(site.delivered_ns) < MOST_CHANNELS:
            site.delivered_ns[record.nslc] += duration_ns
        if usable:
            site.held.append((record, now_ns))
            site.held_samples += len(record.samples)
        enough = site.delivered_ns[record.nslc] > self.choose_ns + site.longest_ns
        full = len(site.held) > MOST_HELD_RECORDS or site.held_samples > MOST_HELD_SAMPLES
        if site.held and (enough or full):
            self._choose(site)
        elif enough and not site.hopeless:
            site.hopeless = True
            reasons = tuple(sorted((nslc.channel, reason) for nslc, reason in site.dropped.items()))
            self._events.append(NoUsableChannel(record.nslc.network, record.nslc.station, reasons))

    def _choose(self, site: Site) -> None:
        """Choose the instrument among those held and route what was held."""
        seen = {record.nslc for record, _ in site.held}
        best = min(seen, key=lambda nslc: preference_rank(nslc.channel[:2], nslc.location, self.prefer))
        key = StationKey(best.network, best.station, best.location, best.channel[:2])
        channels = sorted(nslc.channel for nslc in seen if _belongs(nslc, key))
        station = Station(key, self.policy, "".join(channel[-1] for channel in channels))
        site.station, site.channels = station, set(channels)
        self._events.append(NewStation(key, tuple(channels)))
        if set(station.orientations.values()) == {"Z"}:
            self._events.append(VerticalOnly(key))
        held, site.held = site.held, []
        for record, now_ns in held:
            self._route(site, station, record, now_ns)

    def _route(self, site: Site, station: Station, record: Record, now_ns: int) -> None:
        nslc = record.nslc
        if not _belongs(nslc, station.key):
            self._drop(site, nslc, "not_preferred")
            return
        if station.component_of(record) is None:
            self._drop(site, nslc, "component_conflict")
            return
        try:
            station.add(record, now_ns)
        except BadRecord as error:
            self._drop(site, nslc, error.reason)
            return
        if nslc.channel not in site.channels:
            site.channels.add(nslc.channel)
            self._events.append(NewChannel(station.key, nslc.channel))
        self._touched[station.key] = station

    def _drop(self, site: Site, nslc: Nslc, reason: str) -> None:
        """Count a dropped record, and say so the first time."""
        self._own_counts[reason] += 1
        if nslc not in site.dropped and len(site.dropped) < MOST_CHANNELS:
            site.dropped[nslc] = reason
            self._events.append(DroppedChannel(nslc, reason))


def _belongs(nslc: Nslc, key: StationKey) -> bool:
    return nslc.location == key.location and nslc.channel[:2] == key.band_instrument
