"""Where a record came from: what the way back after a lost connection is counted by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from streamer.record import Record


class Origin(NamedTuple):
    """``server`` is its address, ``station`` the SeedLink station id (NET_STA), ``sequence`` the packet's number.

    The number is None on all but the last record of a packet, so that who has noted it has the whole packet; the
    numbers of one protocol version ("3" or "4") say nothing in the other.
    """

    server: str
    station: str
    sequence: int | None
    protocol: str = ""


Deliver = Callable[[Record, int, Origin], Awaitable[None]]
"""Takes a record, when it arrived (int ns UTC) and from where; waits where there is no room."""
