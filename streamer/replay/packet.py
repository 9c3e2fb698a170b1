"""A packet on the wire: the 8-byte header of SeedLink v3, the 17-byte one of v4, and INFO replies of both."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pymseed import DataEncoding, MS3Record

from streamer.replay.stream import V3_RECORD_BYTES, StreamName

_V4_HEADER = struct.Struct("<2sccIQB")
V3_SEQUENCES = 1 << 24


@dataclass(frozen=True, slots=True)
class Packet:
    """One record in the ring. ``sequence`` counts within the station, ``arrival`` over the whole server.

    ``number`` is the sequence number that clients see where it is another one.
    ``start_ns`` is the first sample's time, ``end_ns`` that of the sample which would follow the last (both UTC).
    """

    sequence: int
    arrival: int
    name: StreamName
    format: str
    subformat: str
    start_ns: int
    end_ns: int
    payload: bytes
    number: int | None = None

    @property
    def wire_number(self) -> int:
        """The sequence number that clients see."""
        return self.sequence if self.number is None else self.number

    @property
    def kind(self) -> str:
        """Format and subformat code together, such as ``2D``."""
        return self.format + self.subformat


def served_in_v3(format_code: str, length: int, name: StreamName) -> bool:
    """Whether SeedLink v3 can carry a record: miniSEED 2, 512 bytes, a channel of three letters."""
    return format_code == "2" and length == V3_RECORD_BYTES and name.v3_key is not None


def encode_v3(packet: Packet) -> bytes:
    """``SL`` and the low 24 bits of the sequence in hexadecimal, then the record (512 bytes)."""
    return b"SL%06X" % (packet.wire_number % V3_SEQUENCES) + packet.payload


def encode_v4(packet: Packet) -> bytes:
    """SeedLink 4.0 header with the station ID, then the record of any length."""
    return _v4(packet.format, packet.subformat, packet.wire_number, packet.name.station_id, packet.payload)


def _v4(format_code: str, subformat: str, sequence: int, station_id: str, payload: bytes) -> bytes:
    station = station_id.encode("ascii")
    codes = (format_code.encode("ascii"), subformat.encode("ascii"))
    return _V4_HEADER.pack(b"SE", *codes, len(payload), sequence, len(station)) + station + payload


def encode_info_v4(document: bytes, *, error: bool = False) -> bytes:
    """An INFO reply of v4: JSON in one packet without station, subformat I or, for an error, E."""
    return _v4("J", "E" if error else "I", 0, "", document)


def encode_info_v3(document: str, time_ns: int, *, error: bool = False) -> bytes:
    """An INFO reply of v3: ASCII XML spread over 512-byte miniSEED 2 log records, channel INF or, for an error, ERR.

    Every header but the last is ``SLINFO *`` (more follows).
    """
    record = MS3Record(reclen=V3_RECORD_BYTES, encoding=DataEncoding.TEXT)
    record.sourceid = "FDSN:SL_INFO__E_R_R" if error else "FDSN:SL_INFO__I_N_F"
    record.formatversion = 2
    record.samprate = 0.0
    record.starttime = time_ns
    records = list(record.generate(document, "t"))
    headers = [b"SLINFO *"] * (len(records) - 1) + [b"SLINFO  "]
    return b"".join(header + body for header, body in zip(headers, records, strict=True))
