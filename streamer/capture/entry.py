"""The bytes of a capture file: a header line, then entries.

The header is one line of JSON: ``onset_capture`` (version of the format), ``onset`` (version of the program), ``run``
and ``part`` (files of one recording have the same run and count up from 1), ``started_ns`` and ``servers``, each with
``address`` and the ``streams`` asked for. Passwords and tokens are never in it.

An entry is a marker, the length of its body, its kind, a CRC-32 of kind and body, and the body (little endian). Nothing
is ever rewritten, so that whatever cuts a file off leaves all entries before it; behind a damaged one the marker leads
to the next.

| kind | body |
|---|---|
| ``P`` packet | arrival (int64 ns UTC), sequence (uint64, all ones: none), server (uint16, place in the header), flags
(bit 0: the records went to the stations), protocol version, format and subformat (a character each), length of the
station id (uint8), station id, payload |
| ``H`` hole | how many packets were left out here (uint64) |
| ``E`` end | flags (uint8; bit 0: what was still held was worked off); a file without it was cut off, or goes on |
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from streamer.errors import BadRecord

VERSION = 1
MARKER = b"\xf5OC\n"
MOST_BODY = 1 << 24
LONGEST_HEADER = 1 << 20
TAKEN = FLUSHED = 1
NO_SEQUENCE = 2**64 - 1

_ENTRY = struct.Struct("<4sIcI")
_PACKET = struct.Struct("<qQHBcccB")
_HOLE = struct.Struct("<Q")
_END = struct.Struct("<B")


class CapturedPacket(NamedTuple):
    """One SeedLink packet. ``server`` is its place in the header, ``taken`` whether its records went to the stations.

    A packet is not taken where the reader left it aside to ask for what lay before it; it came again later.
    """

    received_ns: int
    server: int
    station: str
    sequence: int | None
    protocol: str
    format: str
    subformat: str
    payload: bytes
    taken: bool = True


class Hole(NamedTuple):
    """So many packets came here that the capture could not keep."""

    packets: int


class End(NamedTuple):
    """The recording was ended in order; ``flushed``: what the stations still held was decided then."""

    flushed: bool


Entry = CapturedPacket | Hole | End


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that was listened to, and what it was asked for."""

    address: str
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Header:
    """The first line. ``bundle`` is the digest of the model that picked meanwhile, empty where none did."""

    run: str
    part: int
    started_ns: int
    servers: tuple[Server, ...]
    onset: str = ""
    bundle: str = ""

    def encode(self) -> bytes:
        """The line."""
        return json.dumps({"onset_capture": VERSION, **asdict(self)}).encode("ascii") + b"\n"


class WrongHeaderError(Exception):
    """The file does not begin as a capture of a version that is known."""


def decode_header(line: bytes) -> Header:
    """The header of a file's first line; raises WrongHeaderError."""
    try:
        values = json.loads(line)
        version = values.pop("onset_capture")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise WrongHeaderError(
            "not a capture: it does not begin with the line that `streamer capture` writes"
        ) from None
    if version != VERSION:
        raise WrongHeaderError(
            f"a capture of format {version}, and this Onset reads {VERSION}: take the Onset that wrote it"
        )
    try:
        return _header(values)
    except (TypeError, KeyError, ValueError):
        raise WrongHeaderError("a capture whose first line is damaged") from None


def _header(values: dict[str, Any]) -> Header:
    servers = tuple(Server(address=str(one["address"]), streams=tuple(one["streams"])) for one in values["servers"])
    started_ns, part = values["started_ns"], values["part"]
    if type(started_ns) is not int or type(part) is not int:
        raise ValueError("times and counts are whole numbers")
    return Header(
        run=str(values["run"]),
        part=part,
        started_ns=started_ns,
        servers=servers,
        onset=str(values.get("onset", "")),
        bundle=str(values.get("bundle", "")),
    )


def encode(entry: Entry) -> bytes:
    """The bytes of an entry."""
    match entry:
        case CapturedPacket():
            kind, body = b"P", _packet(entry)
        case Hole():
            kind, body = b"H", _HOLE.pack(entry.packets)
        case End():
            kind, body = b"E", _END.pack(FLUSHED * entry.flushed)
    return _ENTRY.pack(MARKER, len(body), kind, zlib.crc32(body, zlib.crc32(kind))) + body


def _packet(packet: CapturedPacket) -> bytes:
    station = packet.station.encode("utf-8", "replace")[:255]
    head = _PACKET.pack(
        packet.received_ns,
        NO_SEQUENCE if packet.sequence is None else packet.sequence,
        packet.server,
        TAKEN * packet.taken,
        *(_letter(text) for text in (packet.protocol, packet.format, packet.subformat)),
        len(station),
    )
    return head + station + packet.payload


def _letter(text: str) -> bytes:
    return text[:1].encode("latin-1", "replace") or b" "


class Decoded(NamedTuple):
    """An entry, where the next one begins, and where its payload begins (its own bytes, for a packet)."""

    entry: Entry
    following: int
    payload_at: int


def decode(data: Any, position: int) -> Decoded | None:
    """The entry at ``position`` of ``data`` (bytes or a map of a file); None where the file ends within it.

    Raises BadRecord ``corrupt`` for what is not an intact entry.
    """
    begin = position + _ENTRY.size
    if begin > len(data):
        return None
    marker, length, kind, checksum = _ENTRY.unpack_from(data, position)
    if marker != MARKER or length > MOST_BODY:
        raise BadRecord("corrupt", "no entry begins here")
    if begin + length > len(data):
        return None
    body = data[begin : begin + length]
    if zlib.crc32(body, zlib.crc32(kind)) != checksum:
        raise BadRecord("corrupt", "its checksum is wrong")
    entry = _decoded(kind, body)
    payload = len(entry.payload) if isinstance(entry, CapturedPacket) else 0
    return Decoded(entry, begin + length, begin + length - payload)


def _decoded(kind: bytes, body: bytes) -> Entry:
    try:
        if kind == b"P":
            received_ns, sequence, server, flags, *letters, length = _PACKET.unpack_from(body)
            station = body[_PACKET.size : _PACKET.size + length].decode("utf-8", "replace")
            protocol, form, subformat = (letter.decode("latin-1") for letter in letters)
            return CapturedPacket(
                received_ns=received_ns,
                server=server,
                station=station,
                sequence=None if sequence == NO_SEQUENCE else sequence,
                protocol=protocol,
                format=form,
                subformat=subformat,
                payload=body[_PACKET.size + length :],
                taken=bool(flags & TAKEN),
            )
        if kind == b"H":
            return Hole(*_HOLE.unpack(body))
        if kind == b"E":
            return End(bool(_END.unpack(body)[0] & FLUSHED))
    except struct.error:
        pass
    raise BadRecord("corrupt", f"an entry of the unknown kind {kind!r}")
