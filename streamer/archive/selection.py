"""What of an archive is wanted: channels by pattern, and a span of time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import lru_cache

from picker.errors import ConfigError
from streamer.channels import normalised
from streamer.record import Nslc, Record
from streamer.segment import cut

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Selection:
    """``patterns`` are ``STA``, ``NET.STA``, ``NET.STA.LOC`` or ``NET.STA.LOC.CHA`` with wildcards; none is all.

    A blank location is written ``--`` or left empty. The span is half open: samples from ``start_ns`` up to but without
    ``end_ns`` (int ns UTC, None: no bound). Raises ConfigError for a pattern of other form and for an empty span.
    """

    patterns: tuple[str, ...] = ()
    start_ns: int | None = None
    end_ns: int | None = None

    def __post_init__(self) -> None:
        for text in self.patterns:
            _codes(text)
        if self.start_ns is not None and self.end_ns is not None and self.start_ns >= self.end_ns:
            raise ConfigError("--end must be later than --start")

    def has_channel(self, nslc: Nslc) -> bool:
        """Whether a channel is wanted."""
        return not self.patterns or any(
            all(fnmatchcase(code, glob) for code, glob in zip(normalised(nslc), _codes(text), strict=True))
            for text in self.patterns
        )

    def overlaps(self, start_ns: int, end_ns: int) -> bool:
        """Whether data from ``start_ns`` to ``end_ns`` may hold something of the span."""
        return not (
            (self.start_ns is not None and end_ns <= self.start_ns)
            or (self.end_ns is not None and start_ns >= self.end_ns)
        )

    def within(self, record: Record) -> Record | None:
        """The samples of ``record`` in the span, None where there are none."""
        first, last = 0, len(record.samples)
        if self.start_ns is not None:
            first = max(first, _first_from(record, self.start_ns))
        if self.end_ns is not None:
            last = min(last, _first_from(record, self.end_ns))
        return cut(record, first, last) if first < last else None


@lru_cache
def _codes(text: str) -> Nslc:
    """The pattern of each code."""
    parts = text.strip().upper().split(".")
    if len(parts) == 1:
        parts = ["*", *parts]
    if not 2 <= len(parts) <= 4 or not all(parts[:2]) or parts[3:] == [""]:
        raise ConfigError(
            f"--select {text!r}: write STA, NET.STA or NET.STA.LOC.CHA, such as CX.PB01 or 'CX.PB*.*.HH?'"
        )
    network, station, location, channel = [*parts, "*", "*"][:4]
    return Nslc(network, station, "" if location == "--" else location, channel)


def _first_from(record: Record, instant_ns: int) -> int:
    """Number of the first sample at or after an instant; times are whole nanoseconds, so half of one is spare."""
    return math.ceil((instant_ns - record.start_ns - 0.5) * record.sampling_rate_hz / SECOND_NS)


def parse_instant(option: str, text: str | None) -> int | None:
    """``2010-05-27``, ``2010-05-27T16:24:03.5`` or ``2010-147`` in UTC as int ns; raises ConfigError.

    A time zone may be given; without one it is UTC.
    """
    if text is None:
        return None
    try:
        moment = _moment(text.strip())
    except ValueError as error:
        raise ConfigError(
            f"{option} {text}: not a time; write 2010-05-27, 2010-147 or 2010-05-27T16:24:03.5 (UTC)"
        ) from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * SECOND_NS + since.microseconds * 1000


def _moment(text: str) -> datetime:
    if len(text) == 8 and text[4] == "-":
        return datetime.strptime(text, "%Y-%j")
    return datetime.fromisoformat(text)
