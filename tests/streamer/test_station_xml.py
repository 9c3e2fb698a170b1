"""StationXML: directions and places of channels by epoch; what is wrong is told with file and line or channel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import archive_kit
import numpy as np
import pytest
from daemon_kit import three_components, write_config
from numpy.typing import NDArray
from station_data import EPOCH_NS, by_time, noise, packets

from picker.errors import ConfigError
from streamer.chunk import Chunk
from streamer.cli import main
from streamer.instant import utc_ns
from streamer.orientation import Direction
from streamer.record import Nslc, Record
from streamer.settings import load_settings
from streamer.station_events import OddDirections
from streamer.station_xml import KnownChannels, read_station_xml
from streamer.stations import Stations

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
ROOT = '<FDSNStationXML xmlns="http://www.fdsn.org/xml/station/1" schemaVersion="1.2">\n<Source>t</Source>\n'
NS_2020 = utc_ns("2020-01-01T00:00:00.000000Z")


def channel(
    code: str,
    azimuth: object = None,
    dip: object = None,
    start: str = "2010-01-01T00:00:00",
    end: str = "",
    more: str = "",
) -> str:
    """A channel of XX.TEST as StationXML has it, with a response that is of no interest."""
    angles = "".join(
        f"<{name}>{value}</{name}>" for name, value in (("Azimuth", azimuth), ("Dip", dip)) if value is not None
    )
    ending = f' endDate="{end}"' if end else ""
    return (
        f'<Channel code="{code}" locationCode="" startDate="{start}"{ending}><Latitude unit="DEGREES">48.08</Latitude>'
        f"<Longitude>11.65</Longitude><Elevation>560.0</Elevation><Depth>2</Depth>{angles}<SampleRate>100</SampleRate>"
        f"{more}<Response><InstrumentSensitivity><Value>1</Value></InstrumentSensitivity></Response></Channel>\n"
    )


def write(path: Path, *channels: str, station: str = "TEST") -> Path:
    body = f'<Network code="XX"><Station code="{station}"><Latitude>1</Latitude>{"".join(channels)}</Station></Network>'
    path.write_text(f"{HEAD}{ROOT}{body}\n</FDSNStationXML>\n")
    return path


def known(tmp_path: Path, *channels: str) -> KnownChannels:
    return read_station_xml([write(tmp_path / "stations.xml", *channels)])


def code(channel: str) -> Nslc:
    return Nslc("XX", "TEST", "", channel)


def test_directions_and_places_are_read_by_epoch(tmp_path: Path) -> None:
    """Of the epochs of a channel the one that holds; none before the first and after the last."""
    found = known(
        tmp_path,
        channel("HH1", 30, 0, "2010-01-01T00:00:00.0000Z", "2020-01-01T00:00:00"),
        channel("HH1", "35.5", "0.0", "2020-01-01T00:00:00+00:00", "2599-12-31T23:59:59"),
        channel("HHZ", 0, -90),
        channel("HH2"),
    )
    assert len(found) == 3
    first, second = found.at(code("HH1"), NS_2020 - 1), found.at(code("HH1"), NS_2020)
    assert first is not None
    assert second is not None
    assert (first.direction, second.direction) == (Direction(30, 0), Direction(35.5, 0))
    assert second.place == (11.65, 48.08, 560.0)
    assert found.at(code("HH1"), 0) is None
    assert found.at(code("HHN"), NS_2020) is None
    without = found.at(code("HH2"), NS_2020)
    assert without is not None
    assert without.direction is None


def test_a_vertical_needs_no_azimuth_and_a_level_channel_no_dip(tmp_path: Path) -> None:
    """But a Z without a dip may be anything."""
    found = known(tmp_path, channel("HHZ", None, 90), channel("HH1", 10), channel("BHZ", 0), channel("HH2", None, 0))
    told = {name: epoch.direction for name in ("HHZ", "HH1", "BHZ", "HH2") if (epoch := found.at(code(name), NS_2020))}
    assert told == {"HHZ": Direction(0, 90), "HH1": Direction(10, 0), "BHZ": None, "HH2": None}


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + BOMB + ROOT + "</FDSNStationXML>", "line 2: a DOCTYPE"),
        (HEAD + ROOT + "<Network>", "not XML (no element found: line 4"),
        ("hello", "not XML (syntax error: line 1"),
        ("", "not XML"),
        (HEAD + "<quakeml/>", "quakeml is no StationXML"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    """Entity bombs, broken and foreign XML: one line, with the file."""
    path = tmp_path / "odd.xml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_station_xml([path])
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (channel("HH1", "north", 0), "XX.TEST..HH1: Azimuth is 'north'; give a number from -360 to 360"),
        (channel("HH1", 0, 91), "XX.TEST..HH1: Dip is '91'; give a number from -90 to 90"),
        (channel("HH1", "nan", 0), "XX.TEST..HH1: Azimuth is 'nan'"),
        (channel("HHZ", 0, -90, start="soon"), "XX.TEST..HHZ: 'soon' is no time"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_channel(tmp_path: Path, odd: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"XX\.TEST") as error:
        known(tmp_path, channel("HHZ", 0, -90), odd)
    assert said in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_station_xml([tmp_path / "none.xml"])


@pytest.mark.parametrize("given", ['"s.xml"', '["s.xml"]', '["s.xml", "t.xml"]'])
def test_settings_name_a_file_or_several(tmp_path: Path, given: str) -> None:
    """Paths count from the settings file."""
    write(tmp_path / "s.xml", channel("HHZ", 0, -90))
    write(tmp_path / "t.xml", channel("HH1", 0, 0))
    config = tmp_path / "onset.toml"
    config.write_text(
        f'[bundle]\npath = "b"\n[[seedlink]]\nhost = "h"\nstreams = [{{ network = "XX", station = "TEST" }}]\n'
        f'[mqtt]\nhost = "h"\n[stations]\nmetadata = {given}\n'
    )
    stations = load_settings(config).stations
    assert [path.parent for path in stations.metadata] == [tmp_path] * len(stations.metadata)
    assert len(stations.known()) == len(stations.metadata)


def test_picks_have_the_coordinates_of_their_channel(tmp_path: Path) -> None:
    """As the channel was at the time; a channel that the file does not name has none, and the picks are the same."""
    data = tmp_path / "one.mseed"
    data.write_bytes(three_components())
    file = write(tmp_path / "s.xml", channel("HHZ", 0, -90), station="ONE")
    config = write_config(tmp_path, seedlink=[18000], mqtt=1883, more=f'[stations]\nmetadata = "{file.name}"\n')
    with_file, without = archive_kit.picked(tmp_path, "--config", config, data), archive_kit.picked(tmp_path, data)
    places = {one["phase"]: one["channel"]["geometry"] for one in with_file}
    assert places == {"P": {"type": "Point", "coordinates": [11.65, 48.08, 560.0]}, "S": None}
    assert [(one["phase"], one["time"]) for one in with_file] == [(one["phase"], one["time"]) for one in without]


@pytest.mark.parametrize("command", [["run", "--check"], ["check"]])
def test_a_file_to_mend_is_told_before_anything_starts(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """``run``, ``run --check`` and ``check`` name file and channel in one line."""
    write(tmp_path / "s.xml", channel("HHZ", 0, -100))
    config = write_config(tmp_path, seedlink=[18000], mqtt=1883, more='[stations]\nmetadata = "s.xml"\n')
    assert main([*command, "--config", str(config)]) == 2
    assert "s.xml: XX.TEST..HHZ: Dip is '-100'; give a number from -90 to 90" in capsys.readouterr().err


def picked(records: list[Record], found: KnownChannels | None) -> tuple[list[Chunk], Stations]:
    stations, chunks = Stations(known=found), []
    for one in records:
        stations.add(one, one.end_ns)
        chunks += stations.ready()
    return chunks + stations.flush(), stations


def recorded(motion: NDArray[np.float64], azimuth: float, letters: str = "Z12") -> list[Record]:
    """Up, north and east as a sensor with its first horizontal at ``azimuth`` and offsets of its own has them."""
    angle = np.radians(azimuth)
    turned = np.array([[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]]) @ motion
    return by_time(
        one
        for letter, samples, offset in zip(letters, turned, (8_000_000, -7_000, 123_456), strict=True)
        for one in packets(letter, samples + offset, [90, 130])
    )


@pytest.mark.parametrize("letters", ["Z12", "Z23", "ZNE", "123"])
def test_stations_are_turned_from_records_to_chunks(tmp_path: Path, letters: str) -> None:
    """Large offsets and all: the chunks hold north and east, up to the first sample, in one place for each channel."""
    motion = np.array([noise(2000, seed) for seed in (1, 2, 3)], dtype=np.float64)
    motion[:, 0] = 0.0  # the first sample is the offset
    names = [f"HH{letter}" for letter in letters]
    found = known(tmp_path, channel(names[0], 0, -90), channel(names[1], 40, 0), channel(names[2], 130, 0))
    chunks, stations = picked(recorded(motion, 40.0, letters), found)
    samples = np.concatenate([chunk.samples for chunk in chunks], axis=1)
    valid = np.concatenate([chunk.valid for chunk in chunks], axis=1).all(axis=0)
    np.testing.assert_allclose(samples[:, valid], motion, atol=0.01)
    assert not any("not_turned" in chunk.flags for chunk in chunks)
    assert stations.place(code(names[0]), EPOCH_NS) == (11.65, 48.08, 560.0)
    plain, _ = picked(recorded(motion, 40.0, letters), None)
    assert not np.allclose(np.concatenate([chunk.samples for chunk in plain], axis=1)[:, valid], motion, atol=10)


def test_directions_change_with_the_epoch(tmp_path: Path) -> None:
    """A sensor that is turned in the middle: the chunk that begins in the new epoch has the new direction."""
    change_s = 10
    end = "2023-11-14T22:13:30"
    assert utc_ns(f"{end}.000000Z") // 10**9 == EPOCH_NS // 10**9 + change_s
    found = known(
        tmp_path,
        channel("HHZ", 0, -90),
        channel("HH1", 0, 0, end=end), channel("HH2", 90, 0, end=end),
        channel("HH1", 180, 0, start=end), channel("HH2", 270, 0, start=end),
    )  # fmt: skip
    motion = np.array([noise(2000, seed) for seed in (1, 2, 3)], dtype=np.float64)
    chunks, _ = picked(recorded(motion, 0.0), found)
    plain, _ = picked(recorded(motion, 0.0), None)
    for chunk, before in zip(chunks, plain, strict=True):
        sign = 1 if chunk.first_sample * 10_000_000 < utc_ns(f"{end}.000000Z") else -1
        np.testing.assert_array_equal(chunk.samples[1:], sign * before.samples[1:])
        np.testing.assert_array_equal(chunk.samples[0], before.samples[0])


def test_directions_that_cannot_be_are_told_once_and_left(tmp_path: Path) -> None:
    """All azimuths 0, as careless files have them: the chunks are those without a file, and one event says so."""
    motion = np.array([noise(2000, seed) for seed in (1, 2, 3)], dtype=np.float64)
    found = known(tmp_path, channel("HHZ", 0, -90), channel("HH1", 0, 0), channel("HH2", 0, 0))
    chunks, stations = picked(recorded(motion, 40.0), found)
    plain, _ = picked(recorded(motion, 40.0), None)
    assert [event for event in stations.events() if isinstance(event, OddDirections)] == [
        OddDirections(chunks[0].station)
    ]
    for chunk, before in zip(chunks, plain, strict=True):
        assert replace(chunk, samples=before.samples, valid=before.valid) == before
        np.testing.assert_array_equal(chunk.samples, before.samples)
