"""Measurements on synthetic onsets whose ratio, amplitude, period and sign are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.measure import LEAST_SIGNAL_S, Measures, highpass, measure, period

RATE_HZ = 100.0
ONSET = 500
LENGTH = 620


def onset(
    snr: float = 20.0,
    frequency_hz: float = 5.0,
    sign: int = 1,
    components: str = "Z",
    *,
    noise: float = 10.0,
    grow_s: float = 0.0,
    length: int = LENGTH,
) -> NDArray[np.float32]:
    """(3, N): white noise, and from ONSET on a sine of ``snr`` times its root mean square that begins with ``sign``."""
    out = noise * np.random.default_rng(3).standard_normal((3, length))
    time_s = np.arange(length - ONSET) / RATE_HZ
    envelope = np.minimum(1.0, time_s / grow_s) if grow_s else 1.0
    sine = sign * snr * noise * np.sqrt(2) * envelope * np.sin(2 * np.pi * frequency_hz * time_s)
    for component in components:
        out["ZNE".index(component), ONSET:] += sine
    return out.astype(np.float32)


def measured(
    samples: NDArray[np.float32], phase: str = "P", valid: NDArray[np.bool_] | None = None, at: float = ONSET
) -> Measures:
    found = measure(samples, np.ones(samples.shape, np.bool_) if valid is None else valid, at, phase, RATE_HZ)
    assert found is not None
    return found


@pytest.mark.parametrize("snr", [3.0, 20.0, 500.0])
def test_ratio_and_amplitude(snr: float) -> None:
    """The ratio is that of the root mean squares, noise in the signal included; the amplitude is the sine's."""
    found = measured(onset(snr))
    assert found.snr == pytest.approx(np.sqrt(snr**2 + 1), rel=0.1)
    assert found.amplitude == pytest.approx(snr * 10 * np.sqrt(2), rel=0.02, abs=30)
    assert (found.components, found.signal_s) == ("Z", 1.0)


def test_ratio_of_noise_is_one() -> None:
    """Without an arrival nothing stands out, and neither a period nor a polarity is told."""
    found = measured(onset(0.0))
    assert found.snr == pytest.approx(1, rel=0.2)
    assert (found.period_s, found.polarity) == (None, None)


@pytest.mark.parametrize("frequency_hz", [1.5, 3.0, 8.0, 20.0, 40.0])
def test_period(frequency_hz: float) -> None:
    """The period of a sine, from periods of two thirds of the window up to near the Nyquist frequency."""
    assert measured(onset(200.0, frequency_hz)).period_s == pytest.approx(1 / frequency_hz, rel=0.15)


def test_no_period_longer_than_the_signal() -> None:
    """Of a swing of 5 s one second says nothing, and neither do zeros."""
    time_s = np.arange(100) / RATE_HZ
    assert period(np.sin(2 * np.pi * 5.0 * time_s)[None], RATE_HZ) == pytest.approx(0.2, rel=1e-2)
    assert period(np.sin(2 * np.pi * 0.2 * time_s)[None], RATE_HZ) is None
    assert period(np.zeros((1, 100)), RATE_HZ) is None


@pytest.mark.parametrize("frequency_hz", [2.0, 5.0, 15.0])
@pytest.mark.parametrize("late", [-8, 0, 8])
def test_polarity(frequency_hz: float, late: int) -> None:
    """The sign of the first swing, also where the pick is 0.08 s early or late."""
    assert measured(onset(100.0, frequency_hz, 1), at=ONSET + late).polarity == "up"
    assert measured(onset(100.0, frequency_hz, -1), at=ONSET + late).polarity == "down"


@pytest.mark.parametrize(
    "samples", [onset(3.0), onset(100.0, 10.0, grow_s=3.0), onset(100.0, components="NE")], ids=["weak", "slow", "none"]
)
def test_no_polarity_where_it_is_not_clear(samples: NDArray[np.float32]) -> None:
    """A first swing in the noise, one after a visible swing of the other sign, and none at all are undecided."""
    assert measured(samples).polarity is None


def test_polarity_is_that_of_p_on_the_vertical() -> None:
    """S has none, and neither has P where the vertical is missing."""
    samples = onset(100.0, components="ZNE")
    assert measured(samples, "S").polarity is None
    valid = np.ones(samples.shape, np.bool_)
    valid[0] = False
    assert measured(samples, "P", valid).polarity is None


def test_a_phase_is_measured_where_it_is_reported() -> None:
    """P on the vertical, S on the horizontals that have data, and each on the other kind where its own is missing."""
    samples = onset(50.0, components="NE")
    assert measured(samples, "P").components == "Z"
    assert measured(samples, "P").snr == pytest.approx(1, rel=0.2)
    assert measured(samples, "S").components == "NE"
    assert measured(samples, "S").snr == pytest.approx(50, rel=0.1)
    valid = np.ones(samples.shape, np.bool_)
    valid[1] = False
    assert measured(samples, "S", valid).components == "E"
    valid[2] = False
    assert measured(samples, "S", valid).components == "Z"
    assert measure(samples, np.zeros_like(valid), ONSET, "S", RATE_HZ) is None


def test_neither_an_offset_nor_distant_data_matter() -> None:
    """The same with an offset of a hundred thousand counts, and with whatever lies outside the windows."""
    samples = onset(30.0)
    expected = measured(samples)
    shifted = measured(samples + np.float32(1e5))
    assert shifted.snr == pytest.approx(expected.snr, rel=1e-3)
    assert shifted.amplitude == pytest.approx(expected.amplitude, rel=1e-3)
    assert shifted.period_s == pytest.approx(expected.period_s, rel=1e-3)
    assert shifted.polarity == expected.polarity
    distant = samples.copy()
    distant[:, : ONSET - 320] = 1e6
    distant[:, ONSET + 100 :] = -1e6
    assert measured(distant) == expected
    assert measured(samples[:, 100:], at=ONSET - 100) == expected


def test_microseism_does_not_hide_an_arrival() -> None:
    """A swell of 0.15 Hz and a hundred times the noise costs little of the ratio, and no sign and no period."""
    quiet = onset(30.0)
    swell = (quiet + 1000 * np.sin(2 * np.pi * 0.15 * np.arange(LENGTH) / RATE_HZ)).astype(np.float32)
    found, expected = measured(swell), measured(quiet)
    assert expected.snr is not None
    assert found.snr is not None
    assert found.snr > expected.snr / 3
    assert found.polarity == "up"
    assert found.period_s == pytest.approx(expected.period_s, rel=0.1)


def test_what_has_arrived_is_used() -> None:
    """The signal ends where the data do, and below 0.3 s there is no measurement."""
    samples = onset(30.0)
    part = measured(samples[:, : ONSET + 64])
    assert part.signal_s == 0.64
    assert part.snr == pytest.approx(measured(samples).snr, rel=0.1)
    short = samples[:, : ONSET + round(LEAST_SIGNAL_S * RATE_HZ) - 1]
    assert measure(short, np.ones(short.shape, np.bool_), ONSET, "P", RATE_HZ) is None


@pytest.mark.parametrize(
    ("gap", "there"), [(ONSET - 500, True), (ONSET - 150, True), (ONSET - 110, False), (ONSET + 20, False)]
)
@pytest.mark.parametrize("as_nan", [False, True])
def test_gaps(gap: int, there: bool, as_nan: bool) -> None:
    """A gap before a second of noise or after 0.3 s of signal does not matter, whatever stands in it; others do."""
    samples, valid = onset(30.0), np.ones((3, LENGTH), np.bool_)
    samples[0, gap] = np.nan if as_nan else 1e9
    valid[0, gap] = as_nan
    found = measure(samples, valid, ONSET, "P", RATE_HZ)
    assert (found is not None) == there
    if found is not None:
        assert found.snr == pytest.approx(30, rel=0.2)
    assert measure(samples, valid, gap, "P", RATE_HZ) is None


def test_silence_has_no_ratio() -> None:
    """Before the onset nothing but zeros, as in a test signal: an amplitude, and no division by zero."""
    samples = onset(1.0, noise=0.0)
    samples[0, ONSET:] = 7.0
    found = measured(samples)
    assert (found.snr, found.period_s, found.polarity, found.amplitude) == (None, None, None, 7.0)
    assert measure(samples, np.ones(samples.shape, np.bool_), -5, "P", RATE_HZ) is None


@pytest.mark.parametrize(("frequency_hz", "gain"), [(0.1, 0.01), (1.0, 2**-0.5), (10.0, 1.0), (40.0, 1.0)])
def test_highpass_is_butterworth(frequency_hz: float, gain: float) -> None:
    """Two poles at 1 Hz: the gain falls with the square of the frequency, and an offset is gone."""
    time_s = np.arange(4000) / RATE_HZ
    out = highpass(np.sin(2 * np.pi * frequency_hz * time_s)[None], RATE_HZ)[0, 2000:]
    assert np.sqrt(2 * np.mean(out**2)) == pytest.approx(gain, rel=0.05)
