"""Another station code or another time in a miniSEED record, its samples untouched.

Byte layouts: miniSEED 2 (SEED manual 2.4, fixed section of the data header) and miniSEED 3 (FDSN), whose CRC-32C is
computed again.
"""

from __future__ import annotations

import struct
from datetime import datetime, timedelta

_V2_TIME_OFFSET = 20
_V2_STATION = slice(8, 13)
_V3_TIME = struct.Struct("<HHBBB")
_V3_TIME_OFFSET = 8
_V3_CRC = struct.Struct("<I")
_V3_CRC_OFFSET = 28
_V3_SID_LENGTH_OFFSET = 33
_V3_HEADER_BYTES = 40


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C = _crc32c_table()


def crc32c(data: bytes | bytearray) -> int:
    """CRC-32C (Castagnoli; RFC 3720, appendix B.4) of ``data``."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC32C[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _later(fields: tuple[int, ...], shift_s: int) -> tuple[int, ...]:
    year, day, hour, minute, second = fields
    start = datetime(year, 1, 1) + timedelta(days=day - 1, hours=hour, minutes=minute, seconds=second + shift_s)
    return start.year, start.timetuple().tm_yday, start.hour, start.minute, start.second


def rewrite(record: bytes, format_code: str, *, station: str | None = None, shift_s: int = 0) -> bytes:
    """A record (format "2" or "3") with another station code and its start ``shift_s`` whole seconds later.

    Whole seconds leave every sub-second field, and with it the phase of the sample grid, as it was. Raises ValueError
    for a station code that the format cannot hold (miniSEED 2: at most five characters).
    """
    if station is None and shift_s == 0:
        return record
    if format_code == "3":
        return _rewrite_v3(record, station, shift_s)
    return _rewrite_v2(record, station, shift_s)


def _rewrite_v2(record: bytes, station: str | None, shift_s: int) -> bytes:
    out = bytearray(record)
    if station is not None:
        if len(station) > 5:
            raise ValueError(f"station code {station!r} has more than the 5 characters of miniSEED 2")
        out[_V2_STATION] = f"{station:<5}".encode("ascii")
    if shift_s:
        # The header does not say its byte order: it is the one that gives a year and a day of the year.
        big = struct.unpack_from(">HH", record, _V2_TIME_OFFSET)
        order = ">" if 1900 <= big[0] <= 2100 and 1 <= big[1] <= 366 else "<"
        layout = struct.Struct(order + "HHBBB")
        layout.pack_into(out, _V2_TIME_OFFSET, *_later(layout.unpack_from(record, _V2_TIME_OFFSET), shift_s))
    return bytes(out)


def _rewrite_v3(record: bytes, station: str | None, shift_s: int) -> bytes:
    out = bytearray(record)
    if shift_s:
        _V3_TIME.pack_into(out, _V3_TIME_OFFSET, *_later(_V3_TIME.unpack_from(record, _V3_TIME_OFFSET), shift_s))
    if station is not None:
        sid_end = _V3_HEADER_BYTES + record[_V3_SID_LENGTH_OFFSET]
        codes = record[_V3_HEADER_BYTES:sid_end].split(b"_")
        source_id = b"_".join([codes[0], station.encode("ascii"), *codes[2:]])
        out[_V3_SID_LENGTH_OFFSET] = len(source_id)
        out[_V3_HEADER_BYTES:sid_end] = source_id
    _V3_CRC.pack_into(out, _V3_CRC_OFFSET, 0)
    _V3_CRC.pack_into(out, _V3_CRC_OFFSET, crc32c(out))
    return bytes(out)
