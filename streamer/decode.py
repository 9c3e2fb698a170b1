"""miniSEED 2 and 3 bytes to records (FDSN miniSEED 3, SEED 2.4; read by EarthScope's pymseed).

Nothing here guesses: a record that is broken, holds no seismic waveform or has a rate that cannot be used is a
BadRecord with one of these reasons.

| reason | what it means |
|---|---|
| ``corrupt`` | not miniSEED, cut short, checksum or Steim integrity check failed, samples missing, time out of range |
| ``not_waveform`` | text (log) encoding or a rate of zero |
| ``no_samples`` | a header without samples |
| ``bad_rate`` | below 20 or above 500 samples a second |
| ``bad_codes`` | network, station or channel codes that cannot name a station |
| ``too_long`` | one record of more than ten minutes |
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from pymseed import MS3Record, PymseedError, clear_error_messages, get_error_messages, sourceid2nslc

from streamer.channels import normalised
from streamer.errors import BadRecord
from streamer.record import Nslc, Record

LOWEST_RATE_HZ = 20.0
HIGHEST_RATE_HZ = 500.0
RATE_TOLERANCE = 1e-3
"""Relative: 19.99 and 500.1 Hz are off-nominal 20 and 500 Hz."""
LONGEST_RECORD_S = 600.0
LATEST_NS = 2**62
"""Year 2116: times beyond are broken headers, and sums of times stay within int64."""
TIME_QUESTIONABLE = 0x02
SAMPLE_TYPES = {"i": np.int32, "f": np.float32, "d": np.float64}
CODES = re.compile(r"[A-Z0-9-]{1,8}\.[A-Z0-9-]{1,8}\.[A-Z0-9-]{0,8}\.[A-Z0-9_]{1,16}")


def decode(data: bytes) -> list[Record]:
    """All records in ``data``, one or several, in their order.

    Raises BadRecord for the first that cannot be used; ``decode_each`` keeps the others.
    """
    records = []
    for item in decode_each(data):
        if isinstance(item, BadRecord):
            raise item
        records.append(item)
    if not records:
        raise BadRecord("corrupt", "no bytes")
    return records


def decode_each(data: bytes) -> Iterator[Record | BadRecord]:
    """Each record in ``data``, or the BadRecord that says why it cannot be used.

    Ends after the first ``corrupt`` header, from which the next one cannot be found.
    """
    records = MS3Record.from_buffer(data)
    while True:
        try:
            raw = next(records, None)
        except (PymseedError, ValueError, BufferError) as error:
            yield BadRecord("corrupt", str(error))
            return
        if raw is None:
            return
        try:
            yield _record(raw)
        except BadRecord as error:
            yield error


def _record(raw: MS3Record) -> Record:
    nslc = _nslc(raw)
    rate_hz, count = float(raw.samprate), int(raw.samplecnt)
    if raw.encoding == 0 or rate_hz == 0:
        raise BadRecord("not_waveform", f"{nslc}: text or a rate of zero")
    if count <= 0:
        raise BadRecord("no_samples", f"{nslc}: the header announces no samples")
    if not LOWEST_RATE_HZ * (1 - RATE_TOLERANCE) <= rate_hz <= HIGHEST_RATE_HZ * (1 + RATE_TOLERANCE):
        raise BadRecord("bad_rate", f"{nslc}: {rate_hz:g} Hz is outside {LOWEST_RATE_HZ:g}-{HIGHEST_RATE_HZ:g} Hz")
    if count > LONGEST_RECORD_S * rate_hz:
        raise BadRecord("too_long", f"{nslc}: {count} samples are more than {LONGEST_RECORD_S:g} s")
    if not 0 <= raw.starttime < LATEST_NS:
        raise BadRecord("corrupt", f"{nslc}: start time {raw.starttime} ns is out of range")
    clear_error_messages()
    try:
        unpacked = raw.unpack_data()
    except (PymseedError, ValueError) as error:
        raise BadRecord("corrupt", f"{nslc}: {error}") from error
    complaints = get_error_messages()
    if unpacked != count or complaints:
        detail = "; ".join(complaints) or f"{unpacked} of {count} samples"
        raise BadRecord("corrupt", f"{nslc}: {detail}")
    if raw.sampletype not in SAMPLE_TYPES:
        raise BadRecord("not_waveform", f"{nslc}: samples of type {raw.sampletype!r}")
    return Record(
        nslc=nslc,
        start_ns=int(raw.starttime),
        sampling_rate_hz=rate_hz,
        samples=np.array(raw.np_datasamples, dtype=SAMPLE_TYPES[raw.sampletype]),
        timing_quality=_timing_quality(raw),
        clock_questionable=bool(raw.flags & TIME_QUESTIONABLE),
    )


def _nslc(raw: MS3Record) -> Nslc:
    try:
        nslc = normalised(Nslc(*sourceid2nslc(raw.sourceid)))
    except ValueError as error:
        raise BadRecord("bad_codes", str(error)) from error
    if not CODES.fullmatch(str(nslc)):
        raise BadRecord("bad_codes", f"{str(nslc)!r} does not name a channel")
    return nslc


def _timing_quality(raw: MS3Record) -> int | None:
    """0-100 from blockette 1001 or the FDSN extra headers, None where absent or senseless."""
    if not raw.extralength:
        return None
    try:
        quality = raw.get_extra_header("/FDSN/Time/Quality")
    except (PymseedError, ValueError):
        return None
    if isinstance(quality, bool) or not isinstance(quality, int | float) or not 0 <= quality <= 100:
        return None
    return int(quality)
