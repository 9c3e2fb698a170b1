"""FDSN StationXML 1.x: where channels are and how they point, by epoch; read at the start, all else is skipped.

A document type declaration is refused: StationXML has none, and entities can make a small file huge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from picker.errors import ConfigError
from streamer.channels import normalised
from streamer.orientation import Direction
from streamer.record import Nslc

Place = tuple[float, float, float]
"""Longitude and latitude in degrees, elevation in metres."""
NEVER_NS = 2**62


@dataclass(frozen=True, kw_only=True)
class ChannelEpoch:
    """A channel from ``start_ns`` up to but without ``end_ns``; what the file does not say is None."""

    start_ns: int
    end_ns: int
    direction: Direction | None
    place: Place | None


class KnownChannels:
    """What StationXML says of channels; empty without a file."""

    def __init__(self, epochs: Iterable[tuple[Nslc, ChannelEpoch]] = ()) -> None:
        self._epochs: dict[Nslc, list[ChannelEpoch]] = {}
        for nslc, epoch in epochs:
            self._epochs.setdefault(nslc, []).append(epoch)

    def __len__(self) -> int:
        return len(self._epochs)

    def at(self, nslc: Nslc, time_ns: int) -> ChannelEpoch | None:
        """The epoch of a channel at ``time_ns``, the last one that begins where several hold; None if unknown."""
        found = [one for one in self._epochs.get(nslc, ()) if one.start_ns <= time_ns < one.end_ns]
        return max(found, key=lambda one: one.start_ns, default=None)


def read_station_xml(paths: Iterable[Path]) -> KnownChannels:
    """All channels of the files; raises ConfigError that names the file and the line or channel."""
    return KnownChannels(found for path in paths for found in _read(path))


def _read(path: Path) -> Iterator[tuple[Nslc, ChannelEpoch]]:
    try:
        _refuse_doctype(path)
        yield from _channels(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); mend stations.metadata") from error
    except (ElementTree.ParseError, expat.ExpatError) as error:
        raise ConfigError(f"{path}: not XML ({error}); give StationXML as stations.metadata") from error


class _RootReached(Exception):
    """All that may come before the root element has been seen."""


def _refuse_doctype(path: Path) -> None:
    def refuse(*_: object) -> None:
        line = parser.CurrentLineNumber
        raise ConfigError(f"{path}, line {line}: a DOCTYPE, which StationXML has not; take it out")

    def reached(*_: object) -> None:
        raise _RootReached

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = reached
    with path.open("rb") as file:
        try:
            parser.ParseFile(file)
        except _RootReached:
            return


def _channels(path: Path) -> Iterator[tuple[Nslc, ChannelEpoch]]:
    network = station = ""
    root = None
    for event, element in ElementTree.iterparse(path, events=("start", "end")):
        name = element.tag.rpartition("}")[2]
        if root is None:
            root = name
            if name != "FDSNStationXML":
                raise ConfigError(f"{path}: {name} is no StationXML; give StationXML as stations.metadata")
        if event == "start":
            network = element.get("code", "") if name == "Network" else network
            station = element.get("code", "") if name == "Station" else station
            continue
        if name == "Channel":
            location, channel = element.get("locationCode", ""), element.get("code", "")
            nslc = normalised(Nslc(network, station, location, channel))
            yield nslc, _epoch(element, nslc, f"{path}: {nslc}")
        if name in ("Channel", "Response", "Station"):
            element.clear()


def _epoch(element: ElementTree.Element, nslc: Nslc, where: str) -> ChannelEpoch:
    values = {child.tag.rpartition("}")[2]: child.text or "" for child in element}

    def number(name: str, low: float, high: float) -> float | None:
        text = values.get(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ConfigError(f"{where}: {name} is {text.strip()!r}; give a number from {low:g} to {high:g}")
        return value

    azimuth, dip = number("Azimuth", -360, 360), number("Dip", -90, 90)
    longitude, latitude = number("Longitude", -180, 180), number("Latitude", -90, 90)
    elevation = number("Elevation", -20_000, 20_000)
    return ChannelEpoch(
        start_ns=_instant(element.get("startDate"), where) or 0,
        end_ns=_instant(element.get("endDate"), where) or NEVER_NS,
        direction=_direction(azimuth, dip, nslc),
        place=None if longitude is None or latitude is None else (longitude, latitude, elevation or 0.0),
    )


def _direction(azimuth: float | None, dip: float | None, nslc: Nslc) -> Direction | None:
    """A vertical needs no azimuth, anything else does; a channel with an azimuth and no dip is level, save a Z."""
    if dip is not None and abs(dip) == 90:
        return Direction(0.0, dip)
    if azimuth is None or (dip is None and nslc.channel.endswith("Z")):
        return None
    return Direction(azimuth, dip or 0.0)


def _instant(text: str | None, where: str) -> int | None:
    """Nanoseconds UTC, to the microsecond; times without a zone are UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ConfigError(f"{where}: {text!r} is no time; write it as 2020-01-31T00:00:00Z") from error
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return min(max(0, (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000), NEVER_NS)
