"""Records that are too long for live behaviour, cut into short miniSEED 2 records of the same samples."""

from __future__ import annotations

from pymseed import DataEncoding, MS3Record

from streamer.replay.stream import V3_RECORD_BYTES

_INTEGER_ENCODINGS = (DataEncoding.STEIM1, DataEncoding.STEIM2, DataEncoding.INT32)
_ENCODINGS = {"i": DataEncoding.INT32, "f": DataEncoding.FLOAT32, "d": DataEncoding.FLOAT64}


def needs_repack(record: bytes, max_duration_s: float, record_length: int = V3_RECORD_BYTES) -> bool:
    """Whether a record is longer in bytes or in time than asked for; text and records without a rate never are."""
    header = MS3Record.parse(record)
    if header.samprate <= 0 or header.samplecnt == 0 or header.encoding == DataEncoding.TEXT:
        return False
    too_long = header.samplecnt / header.samprate > max_duration_s and header.samplecnt > 1
    return too_long or len(record) != record_length or header.formatversion != 2


def repack(record: bytes, max_duration_s: float, record_length: int = V3_RECORD_BYTES) -> list[bytes]:
    """Encode the samples of a record again as miniSEED 2 records of ``record_length`` bytes and at most that duration.

    Samples, start times (to the microsecond of miniSEED 2) and header flags are kept; integers keep their encoding if
    it is Steim-1, Steim-2 or 32-bit, and become 32-bit otherwise. Raises pymseed.MiniSEEDError when it cannot be done.
    """
    header = MS3Record.parse(record, unpack_data=True)
    samples, kind, start_ns = header.np_datasamples.copy(), header.sampletype, header.starttime
    rate_hz = header.samprate
    if kind not in _ENCODINGS:
        return [record]
    if not (kind == "i" and header.encoding in _INTEGER_ENCODINGS):
        header.encoding = _ENCODINGS[kind]
    header.formatversion, header.reclen = 2, record_length
    length = max(1, int(max_duration_s * rate_hz + 1e-9))
    records: list[bytes] = []
    for first in range(0, len(samples), length):
        header.starttime = start_ns + round(first * 1e9 / rate_hz)
        records += header.generate(samples[first : first + length], kind)
    return records
