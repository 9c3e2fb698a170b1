"""Times on the wire: ``2010,5,27,16,24,0`` in SeedLink v3, ISO 8601 in v4; int nanoseconds UTC inside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})T(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,9})\d*)?Z", re.ASCII)
_COMMAS = re.compile(r"\d{1,9}(?:,\d{1,9}){2,6}", re.ASCII)


def _nanoseconds(year: int, month: int, day: int, hour: int, minute: int, second: int, nanosecond: int) -> int:
    if second == 60:  # a leap second is the next second, as everywhere in POSIX time
        return _nanoseconds(year, month, day, hour, minute, 59, nanosecond) + 1_000_000_000
    whole = datetime(year, month, day, hour, minute, second, tzinfo=UTC) - _EPOCH
    return (whole.days * 86_400 + whole.seconds) * 1_000_000_000 + nanosecond


def parse_iso(text: str) -> int:
    """``YYYY-MM-DDThh:mm:ss[.f]Z`` of SeedLink v4 to ns UTC; raises ValueError for anything else."""
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not YYYY-MM-DDThh:mm:ss.fZ")
    *fields, fraction = match.groups(default="")
    year, month, day, hour, minute, second = (int(field) for field in fields)
    return _nanoseconds(year, month, day, hour, minute, second, int(f"{fraction:0<9}"))


def parse_commas(text: str) -> int:
    """``year,month,day[,hour[,minute[,second[,nanosecond]]]]`` of SeedLink v3 to ns UTC; raises ValueError."""
    if _COMMAS.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not year,month,day,hour,minute,second")
    fields = [int(field) for field in text.split(",")]
    year, month, day, hour, minute, second, nanosecond = fields + [0] * (7 - len(fields))
    return _nanoseconds(year, month, day, hour, minute, second, nanosecond)


def parse_any(text: str) -> int:
    """Either form, as servers of SeedLink v3 take it; raises ValueError."""
    return parse_iso(text) if "T" in text else parse_commas(text)


def _datetime(time_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


def format_iso(time_ns: int) -> str:
    """ISO 8601 with microseconds and Z."""
    return _datetime(time_ns).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def format_slashes(time_ns: int) -> str:
    """``YYYY/MM/DD hh:mm:ss.ffff`` of the XML of SeedLink v3 INFO."""
    return _datetime(time_ns).strftime("%Y/%m/%d %H:%M:%S.%f")[:-2]
