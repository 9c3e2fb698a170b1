"""What a client asked for: stations, selectors and where to start, as commands of SeedLink v3 and v4 say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from streamer.replay.selector import Selector, compile_glob, has_wildcard
from streamer.replay.timecode import parse_any, parse_iso

MAX_SEQUENCE = (1 << 64) - 1


class CommandError(Exception):
    """A command cannot be followed: ``code`` is one of SeedLink 4.0 (Error codes), the text says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Origin(Enum):
    """Which packet comes first."""

    NEXT = "the next to arrive"
    EARLIEST = "the oldest kept"
    SEQUENCE = "the one with the requested number"


@dataclass(frozen=True, slots=True)
class Start:
    """Where the transfer of a station starts, and its time window: end > ``begin_ns`` and start < ``end_ns``.

    ``last_seen_ns`` (v3 ``DATA seq time``) is the start time of the last packet that the client has: when the packet
    before ``sequence`` is another one, the numbers are of an earlier life of the server and the time is used instead.
    """

    origin: Origin = Origin.NEXT
    sequence: int = 0
    begin_ns: int | None = None
    end_ns: int | None = None
    last_seen_ns: int | None = None


@dataclass(slots=True)
class StationRequest:
    """Stations that match ``pattern`` (NET_STA with ``*`` and ``?``), their selectors and start."""

    pattern: str
    selectors: list[Selector] = field(default_factory=list)
    start: Start = Start()
    matcher: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        self.matcher = compile_glob(self.pattern)

    @property
    def wildcard(self) -> bool:
        """Whether it can match several stations."""
        return has_wildcard(self.pattern)


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A whole handshake.

    ``dialup``: send what is there, then END. ``end_after_window``: END once the time window is full.
    """

    protocol: Literal[3, 4]
    stations: tuple[StationRequest, ...]
    dialup: bool
    end_after_window: bool


def station_pattern_v3(arguments: Sequence[str]) -> str:
    """``STATION station [network]`` of v3 as NET_STA; a network left out is any. Raises CommandError."""
    if len(arguments) not in (1, 2):
        raise CommandError("ARGUMENTS", "STATION takes a station code and a network code")
    network = arguments[1] if len(arguments) == 2 else "*"
    return _checked_pattern(f"{network}_{arguments[0]}")


def station_pattern_v4(arguments: Sequence[str]) -> str:
    """``STATION pattern`` of v4. Raises CommandError."""
    if len(arguments) != 1:
        raise CommandError("ARGUMENTS", "STATION takes one station pattern such as GE_WLF or GE_*")
    return _checked_pattern(arguments[0])


def _checked_pattern(pattern: str) -> str:
    try:
        compile_glob(pattern)
    except ValueError as error:
        raise CommandError("ARGUMENTS", f"station pattern {error}") from None
    return pattern


def start_v3_data(arguments: Sequence[str]) -> Start:
    """``DATA|FETCH [sequence [time]]`` of v3, sequence in hexadecimal. Raises CommandError."""
    if len(arguments) > 2:
        raise CommandError("ARGUMENTS", "DATA and FETCH take a sequence number and a time")
    if not arguments:
        return Start()
    if re.fullmatch(r"(?:0[xX])?[0-9A-Fa-f]{1,16}", arguments[0]) is None:
        raise CommandError("ARGUMENTS", f"sequence number {arguments[0]!r} is not hexadecimal")
    seen = _time(arguments[1], 3) if len(arguments) == 2 else None
    return Start(Origin.SEQUENCE, int(arguments[0], 16), last_seen_ns=seen)


def start_v3_time(arguments: Sequence[str]) -> Start:
    """``TIME begin [end]`` of v3. Raises CommandError."""
    if len(arguments) not in (1, 2):
        raise CommandError("ARGUMENTS", "TIME takes a begin time and an end time")
    return _window(Origin.EARLIEST, 0, [_time(text, 3) for text in arguments])


def start_v4(arguments: Sequence[str]) -> Start:
    """``DATA [sequence|ALL [begin [end]]]`` of v4, sequence in decimal. Raises CommandError."""
    if len(arguments) > 3:
        raise CommandError("ARGUMENTS", "DATA takes a sequence number, a start time and an end time")
    if not arguments:
        return Start()
    times = [_time(text, 4) for text in arguments[1:]]
    if arguments[0].upper() == "ALL":
        return _window(Origin.EARLIEST, 0, times)
    if re.fullmatch(r"[0-9]{1,20}", arguments[0]) is None or int(arguments[0]) > MAX_SEQUENCE:
        raise CommandError("ARGUMENTS", f"sequence number {arguments[0]!r} is neither ALL nor a decimal number")
    return _window(Origin.SEQUENCE, int(arguments[0]), times)


def _window(origin: Origin, sequence: int, times: Sequence[int]) -> Start:
    begin = times[0] if times else None
    end = times[1] if len(times) > 1 else None
    if begin is not None and end is not None and end <= begin:
        raise CommandError("ARGUMENTS", "the time window ends before it begins")
    return Start(origin, sequence, begin, end)


def _time(text: str, protocol: Literal[3, 4]) -> int:
    try:
        return parse_any(text) if protocol == 3 else parse_iso(text)
    except (ValueError, OverflowError):
        form = "2010,5,27,16,24,0" if protocol == 3 else "2010-05-27T16:24:00Z"
        raise CommandError("ARGUMENTS", f"time {text!r} is not of the form {form}") from None
