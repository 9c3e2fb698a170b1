"""One client's side of the SeedLink protocol, without I/O: bytes in, events out, for v3 and v4.

Follows FDSN SeedLink 4.0 once the client has said ``SLPROTO 4.0``, and before that v3 as libslink and ringserver speak
it. The same bytes give the same replies and events however they were cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from streamer.replay import request as requests
from streamer.replay.directory import Directory
from streamer.replay.line import MAX_LINE_BYTES, LineBuffer, LineTooLongError
from streamer.replay.packet import encode_info_v3, encode_info_v4
from streamer.replay.request import CommandError, Origin, Start, StationRequest, StreamRequest
from streamer.replay.selector import Selector, parse_v3, parse_v4

MAX_STATIONS = 10_000
MAX_SELECTORS = 200
MAX_UNKNOWN_COMMANDS = 20


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes to send, in order with the other events."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Begin:
    """The handshake is over: start to send packets."""

    request: StreamRequest


@dataclass(frozen=True, slots=True)
class Close:
    """Send what is pending and close the connection."""

    reason: str


Event = Reply | Begin | Close
Handler = Callable[[Sequence[str]], None]


class Phase(Enum):
    """Where a session stands."""

    HANDSHAKE = "handshake"
    TRANSFER = "data transfer"
    ENDED = "END was sent"
    CLOSED = "closed"


class Session:
    """State of one connection: protocol version, stations asked for, phase; ``user_agent`` is the client's name."""

    def __init__(self, directory: Directory, logins: Collection[str] = ()) -> None:
        self._logins, self._logged_in = logins, not logins
        self.protocol: Literal[3, 4] = 3
        self.phase = Phase.HANDSHAKE
        self.user_agent = ""
        self._directory = directory
        self._lines = LineBuffer()
        self._events: list[Event] = []
        self._negotiated = self._batch = self._extended_replies = False
        self._stations: dict[str, StationRequest] = {}
        self._station: StationRequest | None = None  # the one that SELECT and DATA speak of
        self._multi_station = self._dialup = False
        self._selectors: list[Selector] = []  # of uni-station mode
        self._unknown = 0

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the client; return what follows from them."""
        try:
            for line in self._lines.feed(data):
                if self.phase is Phase.CLOSED:
                    break
                self._command(line)
        except LineTooLongError:
            if self.phase is not Phase.CLOSED:
                self._error(CommandError("LIMIT", f"a command line has at most {MAX_LINE_BYTES} characters"))
                self._close(f"a command line of more than {MAX_LINE_BYTES} characters")
        events, self._events = self._events, []
        return events

    def end_sent(self) -> None:
        """Tell the session that END was sent: from now on only BYE counts."""
        if self.phase is Phase.TRANSFER:
            self.phase = Phase.ENDED

    def _command(self, line: str) -> None:
        name, *arguments = line.split()
        name = name.upper()
        if name == "BYE":
            self._close("BYE")
        elif self.phase is Phase.ENDED:
            return
        elif name == "INFO" and self._logged_in:
            self._info(arguments)
        else:
            try:
                self._handler(name)(arguments)
            except CommandError as error:
                self._error(error)
                if self._unknown > MAX_UNKNOWN_COMMANDS:
                    self._close(f"more than {MAX_UNKNOWN_COMMANDS} unknown commands")

    def _handler(self, name: str) -> Handler:
        if self.phase is Phase.TRANSFER:
            raise CommandError("UNEXPECTED", "only INFO and BYE are possible during data transfer")
        common: dict[str, Handler] = {
            "HELLO": self._hello, "SLPROTO": self._slproto, "USERAGENT": self._useragent,
            "STATION": self._on_station, "SELECT": self._select, "DATA": self._data, "END": self._end,
        }  # fmt: skip
        if not self._logged_in and name not in ("HELLO", "SLPROTO", "USERAGENT", "AUTH"):
            raise CommandError("UNAUTHORIZED", "AUTH is needed first")
        only: dict[str, Handler] = {"ENDFETCH": self._endfetch}
        if self._logins:
            only["AUTH"] = self._auth
        if self.protocol == 3:
            only = {
                "CAT": self._cat, "BATCH": self._on_batch, "CAPABILITIES": self._capabilities, "FETCH": self._fetch,
                "TIME": self._time,
            }  # fmt: skip
        handler = common.get(name) or only.get(name)
        if handler is None:
            self._unknown += 1
            raise CommandError("UNSUPPORTED", f"{name[:20]!a} is not a command of SeedLink v{self.protocol} here")
        return handler

    # Identification

    def _hello(self, arguments: Sequence[str]) -> None:
        self._send(self._directory.hello())

    def _cat(self, arguments: Sequence[str]) -> None:
        self._send(self._directory.catalogue())

    def _slproto(self, arguments: Sequence[str]) -> None:
        if self._negotiated or self._stations or self._selectors:
            raise CommandError("UNEXPECTED", "SLPROTO is possible once, before stations are selected")
        if len(arguments) != 1 or arguments[0] not in ("3.0", "3.1", "4.0"):
            self._send("ERROR UNSUPPORTED protocol versions here are 3.0, 3.1 and 4.0\r\n")
            return
        self._negotiated = True
        self.protocol = 4 if arguments[0] == "4.0" else 3
        self._ok()

    def _useragent(self, arguments: Sequence[str]) -> None:
        self.user_agent = " ".join(arguments)
        self._ok()

    def _auth(self, arguments: Sequence[str]) -> None:
        self._logged_in = " ".join(arguments) in self._logins
        if not self._logged_in:
            raise CommandError("AUTH", "user name, password or token are not known here")
        self._ok()

    def _capabilities(self, arguments: Sequence[str]) -> None:
        self._extended_replies = self._extended_replies or "EXTREPLY" in (word.upper() for word in arguments)
        self._ok()

    def _on_batch(self, arguments: Sequence[str]) -> None:
        self._ok()
        self._batch = True

    def _info(self, arguments: Sequence[str]) -> None:
        if self.protocol == 4:
            try:
                self._events.append(Reply(encode_info_v4(self._directory.info_v4(arguments))))
            except CommandError as error:
                self._events.append(Reply(encode_info_v4(self._directory.info_error_v4(error), error=True)))
            return
        level = arguments[0].upper() if arguments else "(without a level)"
        started_ns = self._directory.started_ns
        try:
            self._events.append(Reply(encode_info_v3(self._directory.info_v3(level), started_ns)))
        except CommandError:  # v3 has no words for it: an ERR record with what INFO ID says
            self._events.append(Reply(encode_info_v3(self._directory.info_v3("ID"), started_ns, error=True)))

    # Selection

    def _on_station(self, arguments: Sequence[str]) -> None:
        self._multi_station = True
        self._station = None  # until this one is accepted, SELECT and DATA are ignored (SeedLink 4.0, STATION)
        parse = requests.station_pattern_v4 if self.protocol == 4 else requests.station_pattern_v3
        station = StationRequest(parse(arguments))
        if not station.wildcard and not self._directory.has(station.pattern):
            raise CommandError("ARGUMENTS", f"station {station.pattern} is not served here")
        if station.pattern not in self._stations and len(self._stations) >= MAX_STATIONS:
            raise CommandError("LIMIT", f"at most {MAX_STATIONS} STATION commands are taken")
        self._station = self._stations.setdefault(station.pattern, station)
        self._ok()

    def _select(self, arguments: Sequence[str]) -> None:
        selectors = self._selectors
        if self._multi_station or self.protocol == 4:
            selectors = self._current("SELECT").selectors
        if self.protocol == 3 and not arguments:
            selectors.clear()
            self._ok()
            return
        if not arguments or (self.protocol == 3 and len(arguments) > 1):
            raise CommandError("ARGUMENTS", "SELECT takes a pattern")
        if len(selectors) + len(arguments) > MAX_SELECTORS:
            raise CommandError("LIMIT", f"at most {MAX_SELECTORS} selectors are taken for a station")
        try:
            selectors += [(parse_v4 if self.protocol == 4 else parse_v3)(text) for text in arguments]
        except ValueError as error:
            raise CommandError("ARGUMENTS", str(error)) from None
        self._ok()

    def _data(self, arguments: Sequence[str]) -> None:
        self._start(requests.start_v4(arguments) if self.protocol == 4 else requests.start_v3_data(arguments))

    def _fetch(self, arguments: Sequence[str]) -> None:
        start = requests.start_v3_data(arguments)
        self._start(start, dialup=True)

    def _time(self, arguments: Sequence[str]) -> None:
        self._start(requests.start_v3_time(arguments))

    def _start(self, start: Start, *, dialup: bool = False) -> None:
        if not self._multi_station and self.protocol == 3:
            everything = StationRequest("*", self._selectors, start)
            if start.origin is Origin.SEQUENCE and len(self._directory.rings) > 1:
                raise CommandError("ARGUMENTS", "a sequence number counts within one station: use STATION")
            self._dialup = dialup
            self._begin([everything])
            return
        station = self._current("DATA")
        if start.origin is Origin.SEQUENCE and station.wildcard:
            raise CommandError("ARGUMENTS", "a sequence number with a station wildcard is not possible here")
        station.start = start
        self._dialup = self._dialup or dialup
        self._ok()

    def _current(self, command: str) -> StationRequest:
        if self._station is None:
            raise CommandError("UNEXPECTED", f"{command} without an accepted STATION is ignored")
        return self._station

    def _end(self, arguments: Sequence[str]) -> None:
        if not self._stations:
            raise CommandError("UNEXPECTED", "END before any STATION was accepted")
        stations = list(self._stations.values())
        if self.protocol == 3:  # named stations are not part of a wildcard, whatever the order
            stations = sorted(stations, key=lambda station: station.wildcard)
        self._begin(stations)

    def _endfetch(self, arguments: Sequence[str]) -> None:
        self._dialup = True
        self._end(arguments)

    def _begin(self, stations: Sequence[StationRequest]) -> None:
        self.phase = Phase.TRANSFER
        window = self.protocol == 3 and all(station.start.end_ns is not None for station in stations)
        self._events.append(Begin(StreamRequest(self.protocol, tuple(stations), self._dialup, window)))

    # Replies

    def _ok(self) -> None:
        if not self._batch:
            self._send("OK\r\n")

    def _error(self, error: CommandError) -> None:
        if self.protocol == 4:
            self._send(f"ERROR {error.code} {error}\r\n")
        elif not self._batch or error.code in ("UNSUPPORTED", "LIMIT"):
            self._send(f"ERROR\r{error.code} {error}\r\n" if self._extended_replies else "ERROR\r\n")

    def _send(self, text: str) -> None:
        self._events.append(Reply(text.encode("utf-8", errors="replace")))

    def _close(self, reason: str) -> None:
        self.phase = Phase.CLOSED
        self._events.append(Close(reason))
