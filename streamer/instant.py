"""Instants: int nanoseconds UTC inside, ISO 8601 text with microseconds and a ``Z`` in messages."""

from __future__ import annotations

import calendar
import math
import time
from datetime import datetime

SAMPLE_NS = 10_000_000
"""Nanoseconds a sample of the 100 Hz grid."""


def sample_time_ns(sample: float, time_shift_ns: int = 0) -> int:
    """Instant of ``sample``, counted from the Unix epoch at 100 Hz, plus the station's ``time_shift_ns``.

    The whole samples are multiplied as integers: today's 1.7e18 ns do not fit a float64, which would round to 256 ns.
    """
    whole = math.floor(sample)
    return whole * SAMPLE_NS + round((sample - whole) * SAMPLE_NS) + time_shift_ns


def utc_text(instant_ns: int) -> str:
    """``2010-05-27T16:24:33.315000Z``: rounded half up to the microsecond."""
    seconds, microseconds = divmod((instant_ns + 500) // 1000, 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{microseconds:06d}Z"


def utc_ns(text: str) -> int:
    """Instant of a text as ``utc_text`` writes it; raises ValueError for any other form."""
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")
    return calendar.timegm(moment.timetuple()) * 1_000_000_000 + moment.microsecond * 1000
