"""Instants written as text, made int nanoseconds UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_INSTANT = re.compile(
    r"(?P<date>\d{4}-?\d{2}-?\d{2})[T ]+(?P<time>\d{2}:?\d{2}(?::?\d{2})?)(?:[.,](?P<fraction>\d+))?"
    r" *(?P<zone>Z|UTC|[+-]\d{2}:?\d{2})?",
    re.IGNORECASE,
)


def time_ns_of(text: str) -> int:
    """The instant of an ISO 8601 text such as ``2019-12-24T19:00:00.25Z``.

    A blank may stand for the T, a comma for the point, an offset such as +02:00 for the Z; without any it is UTC.
    Digits beyond the ninth are left out. Raises ValueError for anything else.
    """
    match = _INSTANT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time; write for example 2019-12-24T19:00:00.25Z")
    zone = (match["zone"] or "Z").upper().replace("UTC", "Z")
    moment = datetime.fromisoformat(f"{match['date']}T{match['time']}{zone}").astimezone(UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    fraction = int(((match["fraction"] or "") + "000000000")[:9])
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + fraction
