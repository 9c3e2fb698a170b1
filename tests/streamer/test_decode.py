"""miniSEED bytes to records: every encoding, both versions, and what is refused with which reason."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from pymseed import DataEncoding
from station_data import EPOCH_NS, miniseed, noise

from streamer.decode import decode, decode_each
from streamer.errors import BadRecord
from streamer.record import Nslc, Record

ENCODINGS = [
    (DataEncoding.STEIM1, np.int32),
    (DataEncoding.STEIM2, np.int32),
    (DataEncoding.INT32, np.int32),
    (DataEncoding.FLOAT32, np.float32),
    (DataEncoding.FLOAT64, np.float64),
]


def reason(data: bytes) -> str:
    with pytest.raises(BadRecord) as caught:
        decode(data)
    return caught.value.reason


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("encoding", "dtype"), ENCODINGS)
def test_every_encoding_comes_back_exactly(version: int, encoding: DataEncoding, dtype: type) -> None:
    """Samples, dtype, codes and the times of several records in one buffer are those that were written."""
    samples = noise(1500, seed=4).astype(dtype)
    records = decode(miniseed(samples, version=version, encoding=encoding))
    assert len(records) > 1
    assert all(record.nslc == Nslc("XX", "TEST", "", "HHZ") for record in records)
    assert all(record.samples.dtype == dtype for record in records)
    assert np.array_equal(np.concatenate([record.samples for record in records]), samples)
    assert records[0].start_ns == EPOCH_NS
    assert [record.start_ns for record in records[1:]] == [record.end_ns for record in records[:-1]]


def test_sixteen_bit_integers_become_int32() -> None:
    """INT16 data are int32 samples."""
    samples = noise(100).clip(-30000, 30000)
    (record,) = decode(miniseed(samples, encoding=DataEncoding.INT16))
    assert record.samples.dtype == np.int32
    assert np.array_equal(record.samples, samples)


@pytest.mark.parametrize("version", [2, 3])
def test_timing_quality_and_clock_flag(version: int) -> None:
    """Blockette 1001 and the version 3 extra header give the quality, the flags say a questionable time tag."""
    (plain,) = decode(miniseed(noise(50), version=version))
    (marked,) = decode(miniseed(noise(50), version=version, quality=87, flags=0x02))
    (locked,) = decode(miniseed(noise(50), version=version, quality=0, flags=0x04))
    assert (plain.timing_quality, plain.clock_questionable) == (None, False)
    assert (marked.timing_quality, marked.clock_questionable) == (87, True)
    assert (locked.timing_quality, locked.clock_questionable) == (0, False)


def test_times_keep_their_nanoseconds() -> None:
    """A version 3 start time is exact to the nanosecond, a version 2 one to the microsecond."""
    odd = EPOCH_NS + 123_456_789
    assert decode(miniseed(noise(10), version=3, start_ns=odd))[0].start_ns == odd
    assert abs(decode(miniseed(noise(10), version=2, start_ns=odd))[0].start_ns - odd) < 1000


def test_samples_outlive_the_buffer() -> None:
    """Records of one buffer do not share memory with each other."""
    first, second, *_ = decode(miniseed(noise(3000)))
    before = second.samples.copy()
    first.samples[:] = 0
    assert np.array_equal(second.samples, before)


@pytest.mark.parametrize("rate_hz", [1.0, 10.0, 19.0, 501.0, 1000.0])
def test_rates_outside_the_range_are_refused(rate_hz: float) -> None:
    """Below 20 and above 500 Hz there is nothing to pick."""
    assert reason(miniseed(noise(100), rate_hz=rate_hz)) == "bad_rate"


@pytest.mark.parametrize("rate_hz", [19.99, 20.0, 99.99, 100.01, 62.5, 500.0, 500.05])
def test_off_nominal_rates_are_accepted(rate_hz: float) -> None:
    """A rate a little off the limits, or off nominal, is data."""
    assert decode(miniseed(noise(100), rate_hz=rate_hz))[0].sampling_rate_hz == pytest.approx(rate_hz, rel=1e-6)


def test_log_channels_are_not_waveforms() -> None:
    """Text records and a rate of zero are refused as what they are."""
    text = np.frombuffer(b"clock locked", dtype=np.uint8)
    log = miniseed(text, encoding=DataEncoding.TEXT, rate_hz=0.0, source_id="FDSN:XX_TEST__L_O_G")
    assert reason(log) == "not_waveform"
    assert reason(miniseed(noise(100), rate_hz=0.0)) == "not_waveform"


def test_header_without_samples() -> None:
    """A version 2 record whose count is zero has no samples."""
    data = bytearray(miniseed(noise(100)))
    data[30:32] = struct.pack(">H", 0)
    assert reason(bytes(data)) == "no_samples"


def test_too_long_a_record() -> None:
    """A record of more than ten minutes would make its station wait as long."""
    data = miniseed(np.zeros(13_000, dtype=np.int32), rate_hz=20.0, version=3, record_bytes=65_536)
    assert reason(data) == "too_long"


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 512, b"garbage" * 100, miniseed(noise(100))[:300], miniseed(noise(100), version=3)[:-1]],
    ids=["nothing", "zeros", "garbage", "half a record", "cut by a byte"],
)
def test_what_is_not_miniseed_is_corrupt(data: bytes) -> None:
    """Bytes that hold no whole record are corrupt."""
    assert reason(data) == "corrupt"


@pytest.mark.parametrize("version", [2, 3])
def test_damaged_samples_are_corrupt(version: int) -> None:
    """A flipped bit among the samples fails the Steim integrity check (2) or the checksum (3)."""
    data = bytearray(miniseed(noise(300), version=version))
    data[-150 if version == 3 else 200] ^= 0x10
    assert reason(bytes(data)) == "corrupt"


@pytest.mark.parametrize(
    "source_id", ["FDSN:XX_A+B__H_H_Z", "FDSN:XX_A#__H_H_Z", "FDSN:XX_A/B__H_H_Z", "FDSN:XX___H_H_Z"]
)
def test_codes_that_cannot_name_a_topic_are_refused(source_id: str) -> None:
    """Wildcards, slashes and missing stations never reach a topic."""
    assert reason(miniseed(noise(100), version=3, source_id=source_id)) == "bad_codes"


def test_lower_case_codes_are_raised() -> None:
    """Codes in lower case are the same station."""
    (record,) = decode(miniseed(noise(100), version=3, source_id="FDSN:xx_test_00_h_h_z"))
    assert record.nslc == Nslc("XX", "TEST", "00", "HHZ")


def test_a_bad_record_does_not_cost_its_neighbours() -> None:
    """decode_each gives the good records on both sides of one that cannot be used."""
    good, log = miniseed(noise(100)), miniseed(noise(100), rate_hz=1.0)
    items = list(decode_each(good + log + good))
    assert [type(item) for item in items] == [Record, BadRecord, Record]
    with pytest.raises(BadRecord):
        decode(good + log + good)


def test_mutated_records_never_crash() -> None:
    """Random damage gives records or BadRecord, never another exception; with a checksum never a wrong sample."""
    chance = random.Random(3)
    for version in (2, 3):
        data = miniseed(noise(300), version=version)
        good = decode(data)[0].samples
        for _ in range(3000):
            damaged = bytearray(data)
            for _ in range(chance.choice((1, 2, 8))):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            for item in decode_each(bytes(damaged)):
                if isinstance(item, Record) and version == 3:
                    assert np.array_equal(item.samples, good)
