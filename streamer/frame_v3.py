"""Where a SeedLink 3 packet ends: eight bytes of header, then one miniSEED record that must tell its own length.

By the standard the record has 512 bytes; newer servers also send other powers of two, and miniSEED 3. A record with a
broken header tells no length, or a wrong one. Then the packet ends where the next header stands, after one of the
lengths that records have, and after what was usual on this connection where no other is found.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection

from seedlink_client import SeedLinkError
from seedlink_client.mseed import detect_record_length
from seedlink_client.protocol import HEADSIZE_V3, MIN_PAYLOAD_DETECT

STANDARD_BYTES = 512
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
"""What records of miniSEED 2 have."""
LONGEST_BYTES = 65536
"""No record of a live stream is longer; one that says so is broken."""
DETECT_BYTES = (MIN_PAYLOAD_DETECT, 128, 256, 512)
"""How much of a record is looked at for its length, until it is told."""

HEADER = re.compile(rb"SL[0-9A-Fa-f]{6}|SLINFO..", re.DOTALL)
CODES_2 = re.compile(rb"([A-Z0-9]{1,5}) *")
CODES_3 = re.compile(rb"FDSN:([A-Z0-9]{1,8})_([A-Z0-9-]{1,8})_")

Peek = Callable[[int], Awaitable[bytes]]
"""The next n bytes, left where they are; waits until they are there."""


def is_header(data: bytes) -> bool:
    """Whether ``data``, eight bytes, can begin a packet."""
    return HEADER.fullmatch(data) is not None


async def told_length(peek: Peek) -> int | None:
    """The length that the record tells, in bytes; None where it tells none, or one that no record has."""
    for size in DETECT_BYTES:
        data = await peek(size)
        try:
            found = detect_record_length(data)
        except SeedLinkError:
            return None
        if found is not None:
            length, version = found
            possible = length <= LONGEST_BYTES and (version == 3 or (length >= LENGTHS[0] and length.bit_count() == 1))
            return length if possible else None
    return None


async def found_length(peek: Peek, longest: int) -> int:
    """The shortest length of a record behind which a packet header stands, ``longest`` where there is none.

    Looks at no byte behind ``longest``, so that nothing waits for a packet that may never come.
    """
    for length in LENGTHS:
        if length + HEADSIZE_V3 > longest:
            break
        if is_header((await peek(length + HEADSIZE_V3))[length:]):
            return length
    return longest


async def left_over(peek: Peek, taken: int, usual: int) -> int:
    """How many bytes of a record are left after the ``taken`` ones, because a packet header stands behind them.

    Raises SeedLinkError where none stands behind any length that records have.
    """
    lengths = sorted({*LENGTHS, usual})
    for rest in [0, *(length - taken for length in lengths if length > taken)]:
        if is_header((await peek(rest + HEADSIZE_V3))[rest:]):
            return rest
    raise SeedLinkError(f"no packet header behind a record that cannot be read ({taken} bytes were taken)")


def station_of(payload: bytes, known: Collection[str]) -> str:
    """``NET_STA`` as the broken record names it, where that is one of ``known``; else the empty string."""
    if payload.startswith(b"MS"):
        found = CODES_3.match(payload[40:80])
        name = b"_".join(found.groups()).decode("ascii") if found else ""
    else:
        name = f"{_code(payload[18:20])}_{_code(payload[8:13])}"
    return name if name in known else ""


def _code(data: bytes) -> str:
    found = CODES_2.fullmatch(data)
    return found[1].decode("ascii") if found else ""
