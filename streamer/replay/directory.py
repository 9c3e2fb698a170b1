"""What a SeedLink server says about itself: HELLO, CAT and the INFO documents of v3 (XML) and v4 (JSON)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from picker.version import installed_version
from streamer.replay.packet import V3_SEQUENCES
from streamer.replay.request import CommandError
from streamer.replay.ring import StationRing, StreamState
from streamer.replay.selector import compile_glob, parse_v4
from streamer.replay.timecode import format_iso, format_slashes

V4_CAPABILITIES = ("SLPROTO:4.0", "SLPROTO:3.1", "TIME")
_LEGACY = ("CAP", "EXTREPLY", "NSWILDCARD", "BATCH")
_V3_CAPABILITIES = (
    "dialup", "multistation", "window-extraction", "info:id", "info:capabilities", "info:stations", "info:streams"
)  # fmt: skip
_FORMATS = {
    "2": {"mimetype": "application/vnd.fdsn.mseed", "subformat": {"D": "data/generic", "L": "log"}},
    "3": {"mimetype": "application/vnd.fdsn.mseed3", "subformat": {"D": "data/generic", "L": "log"}},
    "J": {"mimetype": "application/json", "subformat": {"I": "SeedLink info", "E": "SeedLink error"}},
}


def software_id() -> str:
    """First line of HELLO: the form that SeedLink 4.0 asks for, so that clients of any version can parse it."""
    release = installed_version(otherwise="0")
    return f"SeedLink v4.0 (Onset/{release}) :: {' '.join(V4_CAPABILITIES + _LEGACY)}"


@dataclass(frozen=True)
class Directory:
    """The server as its clients see it: who it is, since when (ns UTC), and its stations' rings."""

    organization: str
    started_ns: int
    rings: Sequence[StationRing]
    station_ids: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "station_ids", frozenset(ring.station_id for ring in self.rings))

    def has(self, station_id: str) -> bool:
        """Whether exactly this station is served."""
        return station_id in self.station_ids

    def hello(self) -> str:
        """The two lines of HELLO."""
        return f"{software_id()}\r\n{self.organization}\r\n"

    def catalogue(self) -> str:
        """The station list of v3 CAT, one ``NET STA description`` a line, then END."""
        lines = [f"{ring.station_id.replace('_', ' ', 1)} replay" for ring in self.rings]
        return "".join(f"{line}\r\n" for line in [*lines, "END"])

    def info_v3(self, level: str) -> str:
        """ASCII XML of a v3 INFO level; raises CommandError (UNSUPPORTED) for a level that is not offered."""
        root = ElementTree.Element(
            "seedlink",
            software=software_id(),
            organization=self.organization,
            started=format_slashes(self.started_ns),
        )
        if level == "CAPABILITIES":
            for name in _V3_CAPABILITIES:
                ElementTree.SubElement(root, "capability", name=name)
        elif level in ("STATIONS", "STREAMS"):
            for ring in self.rings:
                _station_xml(root, ring, with_streams=level == "STREAMS")
        elif level != "ID":
            raise CommandError("UNSUPPORTED", f"INFO {level} is not offered, only ID, CAPABILITIES, STATIONS, STREAMS")
        body: bytes = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=False)
        return f'<?xml version="1.0"?>{body.decode("ascii")}'

    def info_v4(self, arguments: Sequence[str]) -> bytes:
        """JSON of a v4 INFO item with optional station and stream patterns; raises CommandError."""
        if not 1 <= len(arguments) <= 3:
            raise CommandError("ARGUMENTS", "INFO takes an item, a station pattern and a stream pattern")
        item = arguments[0].upper()
        document: dict[str, Any] = {}
        if item == "CAPABILITIES":
            document["capability"] = list(V4_CAPABILITIES)
        elif item in ("FORMATS", "STATIONS", "STREAMS"):
            document |= {"format": _FORMATS, "filter": {}}
            if item != "FORMATS":
                document["station"] = self._stations_json(arguments[1:], with_streams=item == "STREAMS")
        elif item != "ID":
            raise CommandError("UNSUPPORTED", f"INFO {item} is not offered")
        return self.json(document)

    def info_error_v4(self, error: CommandError) -> bytes:
        """JSON of a v4 INFO request that failed."""
        return self.json({"error": {"code": error.code, "message": str(error)}})

    def json(self, extra: dict[str, Any]) -> bytes:
        """A v4 INFO document: the two properties that each must have, and more."""
        return json.dumps({"software": software_id(), "organization": self.organization} | extra).encode()

    def _stations_json(self, patterns: Sequence[str], *, with_streams: bool) -> list[dict[str, Any]]:
        try:
            station = compile_glob(patterns[0] if patterns else "*")
            stream = parse_v4(patterns[1] if len(patterns) > 1 else "*")
        except ValueError as error:
            raise CommandError("ARGUMENTS", str(error)) from None

        def wanted(state: StreamState) -> bool:
            return stream.matches(state.description.name, state.description.kind)

        rings = [ring for ring in self.rings if station.match(ring.station_id)]
        return [
            _station_json(ring, wanted, with_streams=with_streams)
            for ring in rings
            if any(wanted(state) for state in ring.streams.values())
        ]


def _station_json(ring: StationRing, wanted: Callable[[StreamState], bool], *, with_streams: bool) -> dict[str, Any]:
    station: dict[str, Any] = {
        "id": ring.station_id,
        "description": "replay",
        "start_seq": ring.first_number,
        "end_seq": ring.next_number,
    }
    if with_streams:
        station["stream"] = [
            {
                "id": state.description.name.stream_id,
                "format": state.description.format,
                "subformat": state.description.subformat,
                "start_time": format_iso(state.start_ns),
                "end_time": format_iso(state.end_ns),
            }
            for state in ring.streams.values()
            if wanted(state)
        ]
    return station


def _station_xml(root: ElementTree.Element, ring: StationRing, *, with_streams: bool) -> None:
    network, _, station = ring.station_id.partition("_")
    element = ElementTree.SubElement(
        root,
        "station",
        name=station,
        network=network,
        description="replay",
        begin_seq=f"{ring.first_number % V3_SEQUENCES:06X}",
        end_seq=f"{ring.next_number % V3_SEQUENCES:06X}",
        stream_check="enabled",
    )
    for state in ring.streams.values() if with_streams else ():
        stream = state.description
        if not stream.in_v3:
            continue
        ElementTree.SubElement(
            element,
            "stream",
            location=stream.name.location,
            seedname=stream.name.channel or "",
            type=stream.subformat,
            begin_time=format_slashes(state.start_ns),
            end_time=format_slashes(state.end_ns),
        )
