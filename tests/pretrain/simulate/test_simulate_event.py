"""Simulated earthquakes obey the physics that they cite."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from quiet import CLEAR, CRUST, SCATTERING, event, station
from scipy.optimize import curve_fit

from pretrain.data.trace import RATE_HZ
from pretrain.simulate.coda import single_scattering
from pretrain.simulate.crust import draw_crust
from pretrain.simulate.event import Event
from pretrain.simulate.instrument import ACCELEROMETER, BROADBAND
from pretrain.simulate.source import AVERAGE, draw_source
from pretrain.simulate.surface import SH_MOTION, p_motion, sv_motion
from pretrain.simulate.wavelet import band_spectra, minimum_phase


def ground(one: Event, seconds: float = 40.0, seed: int = 0) -> np.ndarray:
    """Its ground motion from the first P on, (3, N)."""
    return one.ground(np.random.default_rng(seed), round(seconds * RATE_HZ))


@pytest.mark.parametrize("magnitude", [2.5, 3.5, 4.5])
def test_the_corner_of_the_spectrum_is_brunes(magnitude: float) -> None:
    """A Brune spectrum fitted to the displacement of P has its corner within 20 % of the source's."""
    one = event(station(), distance_km=90, magnitude=magnitude)
    # Up to S there is P alone; its displacement is the integral of the velocity.
    velocity = ground(one)[0, : one.sample("S") - 1]
    frequency = np.fft.rfftfreq(8192, 1 / RATE_HZ)[1:]
    spectrum = np.abs(np.fft.rfft(velocity, 8192)[1:]) / (2 * np.pi * frequency)
    band = (frequency > 0.3) & (frequency < 30)

    def brune(f: np.ndarray, level: float, corner: float) -> np.ndarray:
        return level - np.log1p((f / np.exp(corner)) ** 2)

    (_, corner), _ = curve_fit(brune, frequency[band], np.log(spectrum[band]), p0=(np.log(spectrum[0]), 1.0))
    assert math.exp(corner) == pytest.approx(one.source.corner_hz("P"), rel=0.2)


def test_the_corner_falls_with_the_moment() -> None:
    """0.49 beta (stress drop / moment)^(1/3): two magnitudes are a factor of ten; M 3 of 3 MPa lies near 7 Hz."""
    three, five = (event(station(), magnitude=magnitude).source for magnitude in (3.0, 5.0))
    assert three.corner_hz("S") == pytest.approx(10 * five.corner_hz("S"))
    assert three.corner_hz("S") == pytest.approx(0.49 * 1000 * three.s_velocity * (3e6 / 10**13.6) ** (1 / 3))
    assert 5 < three.corner_hz("S") < 9


def test_amplitude_falls_with_distance() -> None:
    """With the path's attenuation, peak velocity falls at every step of distance, and faster than 1/R."""
    distances = (10, 25, 50, 75, 100, 150, 200)
    peaks = [np.abs(ground(event(station(SCATTERING), distance_km=d), seconds=60)).max() for d in distances]
    assert all(far < near for near, far in pairwise(peaks))
    assert peaks[4] / peaks[0] < 10 / 100


@pytest.mark.parametrize("distance_km", [5, 20, 60, 110, 190])
def test_s_minus_p_is_that_of_the_velocities(distance_km: float) -> None:
    """Labels lie at the times of the crust: integrated along the ray's own path, S late by the ratio of velocities."""
    one = event(station(), distance_km=distance_km)
    assert one.sample("S") == pytest.approx(RATE_HZ * 0.73 * one.time_s("P"), abs=1.01)
    direct = CRUST.direct(distance_km, 8.0)
    # The eikonal by finite differences: the gradient of the travel time is the slowness at the source.
    h = 0.01
    along = (CRUST.direct(distance_km + h, 8.0).time_s - CRUST.direct(distance_km - h, 8.0).time_s) / (2 * h)
    down = (CRUST.direct(distance_km, 8.0 + h).time_s - CRUST.direct(distance_km, 8.0 - h).time_s) / (2 * h)
    assert along == pytest.approx(direct.slowness, rel=1e-3)
    assert math.hypot(along, down) == pytest.approx(1 / CRUST.velocity(8.0), rel=1e-3)
    assert (down < 0) == direct.down


def test_the_mantle_overtakes_the_crust() -> None:
    """Pn comes first beyond about 150 km and is no path at all within 60 km; PmP never comes before Pg."""
    assert CRUST.head(60, 8.0) is None
    for distance_km in (150, 170, 190):
        head, direct = CRUST.head(distance_km, 8.0), CRUST.direct(distance_km, 8.0)
        assert head is not None
        assert head.time_s < direct.time_s or distance_km < 170
        reflected = CRUST.reflected(distance_km, 8.0)
        assert reflected is None or reflected.time_s >= direct.time_s - 1e-6
    vertical = CRUST.reflected(0.5, 8.0)
    assert vertical is not None
    assert vertical.time_s == pytest.approx((2 * 35 - 8) / 6.0, rel=0.05)


@pytest.mark.parametrize("azimuth_deg", [20, 130, 250, 340])
def test_the_polarisation_of_p_points_along_the_azimuth(azimuth_deg: float) -> None:
    """The covariance of the first quarter second of P gives the azimuth within 10 degrees, scattering included."""
    errors = []
    crust = replace(CRUST, layer_p=3.4, layer_s=1.8, layer_s_time=0.05)
    for seed in range(9):
        one = event(station(SCATTERING, crust), distance_km=30, azimuth=math.radians(azimuth_deg))
        first = ground(one, seconds=15, seed=seed)[:, :25]
        _, vectors = np.linalg.eigh(first @ first.T)
        up, north, east = vectors[:, -1] * np.sign(vectors[0, -1])
        # A P wave from below moves up as it moves away.
        measured = math.degrees(math.atan2(east, north))
        errors.append(abs((measured - azimuth_deg + 180) % 360 - 180))
        assert up > 0.5
    assert np.median(errors) < 10


def test_s_moves_across_the_ray() -> None:
    """Without scattering and conversions, the first S of a near-vertical ray lies in the horizontal plane."""
    one = event(station(), distance_km=5, depth_km=20, conversions=(0.0, 0.0))
    onset = one.sample("S")
    z, n, e = ground(one, seconds=20)[:, onset : onset + 30]
    assert np.sum(z**2) < 0.15 * np.sum(n**2 + e**2)


@pytest.mark.parametrize("instrument", [BROADBAND, ACCELEROMETER])
@pytest.mark.parametrize("path", [CLEAR, SCATTERING])
def test_nothing_comes_before_its_arrival(instrument: object, path: object) -> None:
    """P begins on its very first sample; where P is taken away, S is silent up to its label and not after it."""
    one = event(station(path, instrument=instrument), distance_km=60, conversions=(0.0, 0.0), moho=(0.0, 0.0))
    whole = one.station.instrument.record(ground(one))
    peak = np.abs(whole).max()
    assert np.abs(whole[:, 0]).max() > 0
    assert np.abs(whole[:, :30]).max() > 0.02 * np.abs(whole[:, :600]).max()
    s_only = replace(one)
    s_only.__dict__["arrivals"] = tuple(
        replace(arrival, motion=arrival.motion * (arrival.wave == "S"), level=arrival.level * (arrival.wave == "S"))
        for arrival in one.arrivals
    )
    alone, onset = one.station.instrument.record(ground(s_only)), one.sample("S")
    assert np.abs(alone[:, :onset]).max() < 1e-10 * peak
    assert np.abs(alone[:, onset]).max() > 1e-5 * peak
    assert np.abs(alone[:, onset : onset + 40]).max() > 0.1 * peak


def test_conversions_come_between_p_and_s() -> None:
    """Ps follows P, Sp comes ahead of S, and both are weaker than what they come from."""
    crust = replace(CRUST, layer_p=3.0, layer_s=1.5, layer_s_time=0.2, interface_km=4.0)
    one = event(station(crust=crust))
    strength = {arrival.phase: np.linalg.norm(arrival.motion) for arrival in one.arrivals}
    for arrival in one.arrivals:
        if arrival.phase == "Ps":
            assert one.time_s("P") < arrival.time_s < one.time_s("P") + 2
            assert 0 < strength["Ps"] < strength["Pg"]
        if arrival.phase == "Sp":
            assert one.time_s("S") - 2 < arrival.time_s < one.time_s("S")
            assert 0 < strength["Sp"] < strength["Sg"]
    assert {"Ps", "Sp", "Sge1"} <= strength.keys()


def test_coda_decays_as_aki_and_chouet() -> None:
    """Far behind the onset the scattered energy falls as t^-2, and the simulated coda falls by that and by Q."""
    lapse = np.array([20.0, 40.0])
    energy = single_scattering(lapse)
    assert energy[0] / energy[1] == pytest.approx(4.0, rel=0.01)
    one = event(station(SCATTERING), distance_km=30)
    late = np.array([np.square(ground(one, 60, seed)[:, 2000:5500]).reshape(3, 7, 500) for seed in range(4)])
    power = late.mean(axis=(0, 1, 3))
    assert all(np.diff(np.log(power)) < 0)
    times = one.time_s("P") + 22.5 + 5 * np.arange(7)
    # What is left at 20 to 60 s swings at about 1 to 3 Hz, with Q = 150 f^0.6.
    decay = np.log(power[0] / power[-1]) - 2 * np.log(times[-1] / times[0])
    rates = [2 * np.pi * f * (times[-1] - times[0]) / (150 * f**0.6) for f in (0.7, 6.0)]
    assert rates[0] < decay < rates[1]


def test_radiation_is_that_of_a_double_couple() -> None:
    """Over all directions the root mean squares are 0.52 for P and 0.63 for S; no couple radiates along its axis."""
    random = np.random.default_rng(3)
    squares = np.zeros(2)
    for _ in range(4000):
        p, sv, sh = draw_source(random, 3.0, 3.4).radiation(random.uniform(0, 7), math.acos(random.uniform(-1, 1)))
        squares += p**2, sv**2 + sh**2
    assert np.sqrt(squares / 4000) == pytest.approx([AVERAGE["P"], AVERAGE["S"]], rel=0.04)
    strike_slip = replace(event(station()).source, strike=0.0, dip=math.pi / 2, rake=0.0)
    assert strike_slip.radiation(math.pi / 4, math.pi / 2)[0] == pytest.approx(1.0)
    assert strike_slip.radiation(0.0, math.pi / 2) == pytest.approx((0, 0, 1))


def test_the_free_surface_doubles_vertical_waves_and_turns_slanting_ones() -> None:
    """At normal incidence motion doubles; P leans by twice the angle of S (Wiechert 1907)."""
    assert p_motion(0.0, 5.0, 2.9) == pytest.approx((2.0, 0.0))
    assert sv_motion(0.0, 5.0, 2.9) == pytest.approx((0.0, 2.0))
    up, away = p_motion(0.12, 5.0, 2.9)
    assert math.atan2(away, up) == pytest.approx(2 * math.asin(0.12 * 2.9))
    assert SH_MOTION == 2.0


def test_minimum_phase_is_brunes_own_pulse() -> None:
    """The minimum-phase pulse of 1/(1 + (f/c)^2) is t exp(-2 pi c t), the far field of Brune's source.

    Sampling moves it by less than a sample: what a continuous spectrum has beyond the Nyquist frequency is not there.
    """
    size, corner = 8192, 1.5
    frequency = np.fft.rfftfreq(size, 1 / RATE_HZ)
    pulse = RATE_HZ * minimum_phase(-np.log1p((frequency / corner) ** 2), size)
    omega, peak = 2 * np.pi * corner, 2 * np.pi * corner / math.e

    def difference(shift: float) -> float:
        t = (np.arange(400) + shift) / RATE_HZ
        return float(np.abs(pulse[:400] - omega**2 * t * np.exp(-omega * t)).max())

    assert min(difference(shift) for shift in np.linspace(0, 1, 21)) < 0.02 * peak
    assert np.abs(pulse[size // 2 :]).max() < 1e-4 * peak


def test_the_bands_share_the_power() -> None:
    """The filters of the coda add up to all of the power within a tenth, each in its own band."""
    power = np.abs(band_spectra(8192)) ** 2
    frequency = np.fft.rfftfreq(8192, 1 / RATE_HZ)
    inner = (frequency > 0.3) & (frequency < 45)
    assert np.abs(power.sum(axis=0)[inner] - 1).max() < 0.1
    assert frequency[power[1].argmax()] == pytest.approx(2.5, abs=1.2)


def test_drawn_crusts_are_crusts() -> None:
    """Velocities grow from the layer to the mantle, P is faster than S, and the layer rings above 1 Hz."""
    for seed in range(200):
        crust = draw_crust(np.random.default_rng(seed))
        assert crust.layer_p < crust.surface * 1.01 < crust.moho < crust.mantle
        assert crust.layer_s < crust.layer_p / 1.5
        assert 1 / (4 * crust.layer_s_time) >= 1
        assert 0 <= crust.reflection < 1
