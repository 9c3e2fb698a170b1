"""Routing: which instrument of a station is picked, what is dropped with which reason, and what is said once."""

from __future__ import annotations

import pytest
from station_data import EPOCH_NS, SECOND_NS, noise, packets, same

from streamer.chunk import Chunk, StationKey
from streamer.record import Nslc, Record
from streamer.station_events import (
    DroppedChannel,
    NewChannel,
    NewStation,
    NoUsableChannel,
    StationEvent,
    TooManyStations,
    VerticalOnly,
)
from streamer.stations import Stations


def channel(
    code: str, station: str = "TEST", location: str = "", network: str = "XX", seconds: int = 30, rate_hz: float = 100.0
) -> list[Record]:
    """One-second records of one channel."""
    samples = noise(int(seconds * rate_hz), sum(map(ord, code + location)))
    nslc = Nslc(network, station, location, code)
    return [
        Record(nslc=nslc, start_ns=one.start_ns, sampling_rate_hz=rate_hz, samples=one.samples)
        for one in packets("Z", samples, [int(rate_hz)], 0.0, rate_hz)
    ]


def run(records: list[Record], stations: Stations | None = None) -> tuple[list[Chunk], list[StationEvent], Stations]:
    """Records in time order through all stations."""
    stations = stations or Stations()
    chunks: list[Chunk] = []
    for one in sorted(records, key=lambda one: one.start_ns):
        stations.add(one, one.end_ns)
        chunks += stations.ready()
    return chunks + stations.flush(), stations.events(), stations


def all_of(*codes: str, **others: object) -> list[Record]:
    return [one for code in codes for one in channel(code, **others)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "codes",
    [("HHZ", "HHN", "HHE"), ("BHZ", "BH1", "BH2"), ("HHZ", "HH2", "HH3"), ("EH1", "EH2", "EH3"), ("SHZ", "SHN", "SHE")],
)
def test_three_components_of_every_naming(codes: tuple[str, ...]) -> None:
    """Z/N/E, Z/1/2, Z/2/3 and 1/2/3 all give three valid components, and one event."""
    chunks, events, stations = run(all_of(*codes))
    key = StationKey("XX", "TEST", "", codes[0][:2])
    assert events == [NewStation(key, tuple(sorted(codes)))]
    assert all(chunk.station == key for chunk in chunks)
    assert all(chunk.valid[:, :-1].all() for chunk in chunks[1:-1])
    assert stations.counts == {"reset": 1}


def test_nothing_is_lost_while_choosing() -> None:
    """The records held until the choice are in the chunks."""
    chunks, _, _ = run(all_of("HHZ", "HHN", "HHE"))
    assert sum(int(chunk.valid.sum()) for chunk in chunks) == 3 * 3000


def test_lower_case_and_dashes_are_the_same_station() -> None:
    """hhz at location -- is HHZ at a blank location."""
    mixed = all_of("hhz", location="--", network="xx", station="test") + all_of("HHN", "HHE")
    _, events, _ = run(mixed)
    assert events == [NewStation(StationKey("XX", "TEST", "", "HH"), ("HHE", "HHN", "HHZ"))]


@pytest.mark.parametrize("order", [1, -1])
def test_the_preferred_instrument_is_picked(order: int) -> None:
    """HH over BH over HN, blank location first, whoever comes first; each other channel is dropped with one event."""
    records = all_of("HHZ", "HHN", "HHE", rate_hz=100.0) + all_of("BHZ", "BHN", "BHE", rate_hz=40.0)
    records += all_of("HNZ", "HNN", "HNE") + all_of("HHZ", "HHN", "HHE", location="10")
    chunks, events, stations = run(records[::order])
    assert {chunk.station for chunk in chunks} == {StationKey("XX", "TEST", "", "HH")}
    dropped = [event for event in events if isinstance(event, DroppedChannel)]
    assert len(dropped) == len(set(dropped)) == 9
    assert {event.reason for event in dropped} == {"not_preferred"}
    assert stations.counts["not_preferred"] == 9 * 30
    assert same(chunks, run(all_of("HHZ", "HHN", "HHE"))[0])


def test_the_settings_override_the_preference() -> None:
    """prefer=("HN", ...) picks the accelerometer."""
    records = all_of("HHZ", "HHN", "HHE", "HNZ", "HNN", "HNE")
    chunks, _, _ = run(records, Stations(prefer=("HN", "HH")))
    assert {chunk.station.band_instrument for chunk in chunks} == {"HN"}


def test_a_better_instrument_that_comes_later_is_not_switched_to() -> None:
    """The choice stands: state is worth more than a better channel."""
    stations = Stations()
    run_first, _, _ = run(all_of("EHZ", "EHN", "EHE", seconds=20), stations)
    late = [one for one in all_of("HHZ", seconds=40) if one.start_ns >= EPOCH_NS + 20 * SECOND_NS]
    _, events, _ = run(late, stations)
    assert run_first[0].station.band_instrument == "EH"
    assert events == [DroppedChannel(Nslc("XX", "TEST", "", "HHZ"), "not_preferred")]


def test_a_vertical_alone_is_said_once() -> None:
    """A station with only a vertical is picked and announced; a horizontal that joins later is announced too."""
    later = [one for one in all_of("HHN", "HHE") if one.start_ns >= EPOCH_NS + 15 * SECOND_NS]
    chunks, events, _ = run(all_of("HHZ") + later)
    key = StationKey("XX", "TEST", "", "HH")
    assert events == [NewStation(key, ("HHZ",)), VerticalOnly(key), NewChannel(key, "HHN"), NewChannel(key, "HHE")]
    assert "missing_N" in chunks[3].flags
    assert chunks[-5].valid.all()


def test_no_usable_channel_is_said_once() -> None:
    """A station of infrasound and tilt only: each channel with its reason, then one summary."""
    chunks, events, stations = run(all_of("BDF", "HHU", rate_hz=40.0))
    assert chunks == []
    assert events == [
        DroppedChannel(Nslc("XX", "TEST", "", "BDF"), "not_seismic"),
        DroppedChannel(Nslc("XX", "TEST", "", "HHU"), "orientation_not_picked"),
        NoUsableChannel("XX", "TEST", (("BDF", "not_seismic"), ("HHU", "orientation_not_picked"))),
    ]
    assert stations.counts == {"not_seismic": 30, "orientation_not_picked": 30}


def test_refused_channels_beside_good_ones() -> None:
    """A usable station is not called hopeless for its infrasound."""
    chunks, events, _ = run(all_of("HDF", "HHZ", "HHN", "HHE"))
    assert chunks
    assert not [event for event in events if isinstance(event, NoUsableChannel)]
    assert [event.nslc.channel for event in events if isinstance(event, DroppedChannel)] == ["HDF"]


def test_conflicting_orientations_are_dropped_with_their_reason() -> None:
    """Beside Z, N and E there is no place for 1."""
    chunks, events, stations = run(all_of("HHZ", "HHN", "HHE", "HH1"))
    assert DroppedChannel(Nslc("XX", "TEST", "", "HH1"), "component_conflict") in events
    assert stations.counts["component_conflict"] == 30
    assert same(chunks, run(all_of("HHZ", "HHN", "HHE"))[0])


def test_a_rate_that_cannot_be_resampled_is_dropped() -> None:
    """The other components go on."""
    chunks, events, stations = run(all_of("HHZ", "HHN") + all_of("HHE", rate_hz=20.06))
    assert DroppedChannel(Nslc("XX", "TEST", "", "HHE"), "bad_rate") in events
    assert stations.counts["bad_rate"] > 0
    assert all("missing_E" in chunk.flags for chunk in chunks)


def test_short_data_are_picked_at_the_end() -> None:
    """A file shorter than the time to choose is not lost."""
    chunks, events, _ = run(all_of("HHZ", "HHN", "HHE", seconds=2))
    assert isinstance(events[0], NewStation)
    assert sum(int(chunk.valid.sum()) for chunk in chunks) == 600


def test_stations_do_not_touch_each_other() -> None:
    """Two stations give the chunks that each gives alone."""
    first, second = all_of("HHZ", "HHN", "HHE", station="AAA"), all_of("BHZ", "BH1", "BH2", station="BBB", rate_hz=40.0)
    together, _, _ = run(first + second)
    for records, code in ((first, "AAA"), (second, "BBB")):
        assert same([chunk for chunk in together if chunk.station.station == code], run(records)[0])


def test_the_number_of_stations_is_bounded() -> None:
    """Stations beyond the limit are counted and announced once; the others go on."""
    records = [one for number in range(20) for one in channel("HHZ", station=f"S{number}", seconds=8)]
    stations = Stations(max_stations=5)
    chunks, events, _ = run(records, stations)
    assert len({chunk.station for chunk in chunks}) == len(stations.sites) == 5
    assert [event for event in events if isinstance(event, TooManyStations)] == [TooManyStations(5)]
    assert stations.counts["too_many_stations"] == 15 * 8


def test_the_number_of_channels_is_bounded() -> None:
    """A source that invents channels without end fills nothing."""
    stations = Stations()
    for number in range(2000):
        one = channel("HHZ", location=f"{number:04d}", seconds=1)[0]
        stations.add(one, one.end_ns)
    (site,) = stations.sites.values()
    assert len(site.held) <= 64
    assert len(site.delivered_ns) <= 64
    assert len(stations.events()) <= 64
    assert stations.counts["too_many_channels"] == 2000 - 64


def test_records_from_the_future_do_not_make_a_station() -> None:
    """A station heard only with absurd dates is not chosen from them."""
    stations = Stations()
    for one in channel("HHZ"):
        stations.add(one, EPOCH_NS - 3600 * SECOND_NS)
    assert stations.flush() == []
    assert stations.events() == []
    assert stations.counts == {"future": 30}
