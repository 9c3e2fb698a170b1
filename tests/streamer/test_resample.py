"""The resampler: right times at every rate, the same bits for any packetisation, drift followed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from station_data import EPOCH_NS, noise

from streamer.errors import BadRecord
from streamer.lowpass import nominal_rate
from streamer.resample import INTERPOLATED, INVALID, SLOT_NS, Piece, Resampler

RATES_HZ = [20, 25, 40, 50, 62.5, 80, 99.99, 100, 100.01, 120, 125, 200, 199.99, 250, 300, 500]


def resampled(samples: NDArray, rate_hz: float, start_ns: int, sizes: list[int] | None = None) -> list[Piece]:
    resampler = Resampler(rate_hz, start_ns)
    pieces: list[Piece] = []
    position, turn = 0, 0
    while position < len(samples):
        size = sizes[turn % len(sizes)] if sizes else len(samples)
        here = samples[position : position + size]
        pieces += resampler.push(here, np.zeros(len(here), dtype=np.uint8))
        position, turn = position + size, turn + 1
    return pieces + resampler.finish()


def joined(pieces: list[Piece]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Times in ns since the epoch of these tests, values, marks."""
    slots = np.concatenate([np.arange(piece.first_slot, piece.first_slot + len(piece.values)) for piece in pieces])
    shifts = np.concatenate([np.full(len(piece.values), piece.time_shift_ns) for piece in pieces])
    values = np.concatenate([piece.values for piece in pieces])
    return slots * SLOT_NS + shifts - EPOCH_NS, values, np.concatenate([piece.marks for piece in pieces])


@pytest.mark.parametrize("offset_ns", [0, 1_700_000, 9_999_999])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_an_impulse_keeps_its_time(rate_hz: float, offset_ns: int) -> None:
    """The peak of an impulse is within half a slot of the input sample, wherever the input lies on the grid."""
    count = int(20 * rate_hz)
    samples = np.zeros(count)
    index = count // 2 + 3
    samples[index] = 1000.0
    times, values, _ = joined(resampled(samples, rate_hz, EPOCH_NS + offset_ns))
    peak = int(np.argmax(values))
    assert abs(times[peak] - (offset_ns + index * 1e9 / rate_hz)) <= SLOT_NS / 2 + 100_000


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_wavelet_comes_out_at_its_true_times(rate_hz: float) -> None:
    """A 3 Hz wavelet equals its formula at the times of the slots: amplitude and phase are right."""

    def wavelet(time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1e4 * np.exp(-(((time_s - 10.123) / 0.15) ** 2)) * np.sin(2 * math.pi * 3 * (time_s - 10.123))

    offset_ns = 3_300_000
    times_in = offset_ns / 1e9 + np.arange(int(20 * rate_hz)) / rate_hz
    times, values, _ = joined(resampled(wavelet(times_in), rate_hz, EPOCH_NS + offset_ns))
    # Off-nominal rates are off by up to 0.1 ms: 1e4 * 2 pi * 3 Hz * 0.1 ms = 19. The others by the filter's ripple.
    off_nominal = rate_hz * 2 % 1 != 0
    assert np.abs(values - wavelet(times / 1e9)).max() < (20 if off_nominal else 10)


def test_the_last_rate_of_the_table_is_filtered_below_the_new_nyquist() -> None:
    """A 70 Hz tone at 200 Hz does not come back as 30 Hz: at least 55 dB down; 20 Hz passes within 0.1 %."""
    time_s = np.arange(4000) / 200
    for frequency, low, high in ((70.0, 0.0, 0.002), (20.0, 0.999, 1.001)):
        _, values, _ = joined(resampled(np.sin(2 * math.pi * frequency * time_s), 200.0, EPOCH_NS))
        amplitude = math.sqrt(2) * values[100:-100].std()
        assert low <= amplitude <= high


@pytest.mark.parametrize("rate_hz", [20, 40, 125, 250])
def test_a_constant_stays_constant(rate_hz: float) -> None:
    """24-bit rails come out as they are, to the edges."""
    _, values, _ = joined(resampled(np.full(int(5 * rate_hz), 8_388_607, dtype=np.int32), rate_hz, EPOCH_NS))
    assert np.array_equal(values, np.full(len(values), 8_388_607.0))


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_100_hz_passes_bit_exactly(dtype: type) -> None:
    """Values are untouched and the sub-sample shift is carried."""
    samples = (noise(500, offset=8_000_000) * 1.1).astype(dtype)
    pieces = resampled(samples, 100.0, EPOCH_NS + 3_000_001)
    times, values, _ = joined(pieces)
    assert np.array_equal(values, samples.astype(np.float64))
    assert {piece.time_shift_ns for piece in pieces} == {3_000_001}
    assert times[0] == 3_000_001


@pytest.mark.parametrize("offset_ns", [4_999_999, 5_000_000, 5_000_001, 9_000_000])
def test_the_shift_is_at_most_half_a_slot(offset_ns: int) -> None:
    """Data go to the nearest slot."""
    (shift,) = {piece.time_shift_ns for piece in resampled(noise(200), 100.0, EPOCH_NS + offset_ns)}
    assert abs(shift) <= SLOT_NS / 2
    assert shift % SLOT_NS == offset_ns % SLOT_NS


@settings(max_examples=40, deadline=None)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    offset_ns=st.integers(0, 20_000_000),
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=6),
    holes=st.lists(st.integers(0, 1500), max_size=5),
)
def test_any_packetisation_gives_the_same_bits(
    rate_hz: float, offset_ns: int, sizes: list[int], holes: list[int]
) -> None:
    """However the input is cut, and wherever it is not finite, slots, values, marks and shifts are the same."""
    samples = noise(1500, seed=9, offset=5_000_000).astype(np.float64)
    samples[[hole for hole in holes if hole < len(samples)]] = np.nan
    whole = resampled(samples, rate_hz, EPOCH_NS + offset_ns)
    parts = resampled(samples, rate_hz, EPOCH_NS + offset_ns, sizes)
    for left, right in zip(joined(whole), joined(parts), strict=True):
        assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize("rate_hz", [99.99, 100.01, 199.98, 40.004])
def test_drift_is_followed_for_an_hour(rate_hz: float) -> None:
    """A ramp in true time stays within 0.3 ms (filtered) or is exact with its shift (passed), slips included."""
    seconds = 3600
    ramp = np.arange(int(seconds * rate_hz)) / rate_hz
    pieces = resampled(ramp, rate_hz, EPOCH_NS)
    times, values, marks = joined(pieces)
    inner = (marks == 0) & (values > 2) & (values < seconds - 2)
    assert np.abs(values - times / 1e9)[inner].max() < 0.0003
    assert np.all(np.diff(times // SLOT_NS) >= 0)
    assert max(abs(piece.time_shift_ns) for piece in pieces) <= 5_600_000
    slots = np.concatenate([np.arange(piece.first_slot, piece.first_slot + len(piece.values)) for piece in pieces])
    assert np.all(np.diff(slots) == 1)
    assert np.count_nonzero(marks & INTERPOLATED) == (36 if rate_hz == 99.99 else 0)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_the_delay_is_what_it_says(rate_hz: float) -> None:
    """After input up to t, every slot up to t - delay_s is out, before anything is finished."""
    resampler = Resampler(rate_hz, EPOCH_NS)
    resampler.push(np.zeros(int(10 * rate_hz)), np.zeros(int(10 * rate_hz), dtype=np.uint8))
    behind_s = (resampler.expected_ns - resampler.next_slot * SLOT_NS) / 1e9
    assert -0.0051 <= behind_s <= resampler.delay_s + 0.0051 + 1 / rate_hz
    assert resampler.delay_s <= 0.7


def test_not_finite_samples_stay_where_they_are() -> None:
    """NaN and infinity make their own slots invalid and leave a filtered neighbourhood finite."""
    samples = np.full(400, 1e6)
    samples[[0, 1, 200, 201]] = np.nan, np.inf, np.nan, -np.inf
    for rate_hz in (100.0, 200.0):
        _, values, marks = joined(resampled(samples, rate_hz, EPOCH_NS))
        invalid = np.flatnonzero(marks & INVALID)
        assert list(invalid) == ([0, 1, 200, 201] if rate_hz == 100 else [0, 100])
        assert np.array_equal(values[marks == 0], np.full(np.count_nonzero(marks == 0), 1e6))


def test_memory_is_bounded() -> None:
    """A day of 500 Hz in large packets leaves no more than the filter and one packet behind."""
    resampler = Resampler(500.0, EPOCH_NS)
    for _ in range(200):
        resampler.push(np.zeros(5000), np.zeros(5000, dtype=np.uint8))
    assert len(resampler._values) < 500


@pytest.mark.parametrize(
    ("rate_hz", "expected"), [(99.99, 100), (100.01, 100), (62.5, 62.5), (499.9, 500), (33.3333, 100 / 3)]
)
def test_nominal_rates(rate_hz: float, expected: float) -> None:
    """The nearest rational rate is meant."""
    assert float(nominal_rate(rate_hz)) == pytest.approx(expected)


def test_a_rate_that_is_no_rate() -> None:
    """A rate near no small fraction is refused with its number."""
    with pytest.raises(BadRecord, match=r"20\.06"):
        Resampler(20.06, EPOCH_NS)
