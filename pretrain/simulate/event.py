"""A local earthquake as one station feels it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from pretrain.data.trace import RATE_HZ
from pretrain.simulate.arrival import Arrival, Geometry, arrivals, rays
from pretrain.simulate.coda import envelopes, remaining, scattered
from pretrain.simulate.crust import HEAD, Ray
from pretrain.simulate.settings import SimulationSettings
from pretrain.simulate.source import Source, draw_source
from pretrain.simulate.station import SIGNAL_HZ, Station
from pretrain.simulate.wavelet import WAVELET_SAMPLES, band_spectra, frequencies, ground_pulse, transform_size

SIGNAL_S = 1.5
"""How long an arrival is compared with the noise."""
_PULSE_SIZE = 2 * WAVELET_SAMPLES
_FAINTEST_HEAD_WAVE = 3.0
_LATER_S = 1.5


@dataclass(frozen=True, kw_only=True)
class Event:
    """An earthquake at a place below a station."""

    station: Station
    geometry: Geometry
    source: Source

    @cached_property
    def arrivals(self) -> tuple[Arrival, ...]:
        """All arrivals in order of time; a head wave too faint to be seen is left out with all that it brings."""
        crust, found = self.station.crust, []
        for ray in rays(crust, self.geometry):
            brought = list(arrivals(crust, self.geometry, self.source, ray))
            if ray.path == HEAD:
                first = brought[0]
                if self.expected_snr("P", float(np.linalg.norm(first.motion)), first.time_s) < _FAINTEST_HEAD_WAVE:
                    continue
            found += brought
        return tuple(sorted(found, key=lambda arrival: arrival.time_s))

    def time_s(self, phase: str) -> float:
        """Travel time of the first P or S."""
        return next(a.time_s for a in self.arrivals if a.main and a.wave == phase)

    def sample(self, phase: str) -> int:
        """Sample of the first P or S, counted from the first P."""
        return round((self.time_s(phase) - self.time_s("P")) * RATE_HZ)

    def later(self, phase: str) -> tuple[int, ...]:
        """Samples, counted from the first P, of P or S on other paths that an analyst might pick for the first one."""
        first, *others = (a for a in self.arrivals if a.main and a.wave == phase)
        strong = (a for a in others if np.linalg.norm(a.motion) > 0.5 * np.linalg.norm(first.motion))
        start_s = self.time_s("P")
        return tuple(round((a.time_s - start_s) * RATE_HZ) for a in strong if a.time_s > first.time_s + _LATER_S)

    def log_spectrum(self, frequency: NDArray[np.float64], wave: str) -> NDArray[np.float64]:
        """ln displacement (F,) of a direct P or S, relative to low frequency: Brune's source, the path and the site."""
        time_s = self.station.crust.time(self.direct, wave)
        source = -np.log1p((frequency / self.source.corner_hz(wave)) ** 2)
        return np.asarray(source + self.station.path.log_spectrum(frequency, wave, time_s))

    @cached_property
    def direct(self) -> Ray:
        """The ray through the crust."""
        return self.station.crust.direct(self.geometry.distance_km, self.geometry.depth_km)

    def expected_snr(self, wave: str, level: float, time_s: float) -> float:
        """Signal over noise in ``SIGNAL_HZ`` of a pulse of P or S with a displacement of ``level`` m s."""
        frequency = np.linspace(*SIGNAL_HZ, 48)
        order = self.station.instrument.order
        source = -np.log1p((frequency / self.source.corner_hz(wave)) ** 2)
        path = self.station.path.log_spectrum(frequency, wave, time_s)
        power = ((2 * np.pi * frequency) ** order * level * np.exp(source + path)) ** 2
        energy = 2 * float(np.mean(power)) * (SIGNAL_HZ[1] - SIGNAL_HZ[0])
        return math.sqrt(energy / SIGNAL_S) / self.station.background

    def ground(self, random: np.random.Generator, samples: int) -> NDArray[np.float64]:
        """Ground motion (3, samples) on Z, N, E from the first P on: m/s or m/s2, as the instrument records.

        Every pulse is causal, so nothing comes before its arrival.
        """
        size, order = transform_size(samples), self.station.instrument.order
        total = np.zeros((3, size // 2 + 1), dtype=np.complex128)
        for wave in "PS":
            pulse = ground_pulse(self.log_spectrum(frequencies(_PULSE_SIZE), wave), _PULSE_SIZE, order)
            spikes, energy = self._excitation(wave, samples)
            impulses = rfft(scattered(random, energy, wave), size)
            spectrum = rfft(spikes, size) + np.einsum("bf,bcf->cf", band_spectra(size), impulses)
            total += spectrum * rfft(pulse, size)
        return np.asarray(irfft(total, size)[:, :samples])

    def _excitation(self, wave: str, samples: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Spikes (3, samples) of the arrivals with one pulse, and the energy (4 bands, samples) scattered from them."""
        station, first_s = self.station, self.time_s("P")
        spikes, energy = np.zeros((3, samples)), np.zeros((4, samples))
        velocity = station.crust.surface / (station.crust.ratio if wave == "S" else 1.0)
        kept = 1.0
        for arrival in self.arrivals:
            place = round((arrival.time_s - first_s) * RATE_HZ)
            if arrival.wave != wave or not 0 <= place < samples:
                continue
            if arrival.main:
                shape = envelopes(
                    station.path, wave, arrival.time_s, arrival.length_km, velocity, station.nearby, samples - place
                )
                energy[:, place:] += arrival.level**2 * shape
                kept = math.sqrt(remaining(station.path, wave, arrival.length_km))
            spikes[:, place] += kept * arrival.motion
        return spikes, energy


def draw_geometry(random: np.random.Generator, distance_km: float) -> Geometry:
    """A source at a random depth and azimuth."""
    return Geometry(
        distance_km=distance_km,
        depth_km=float(np.clip(random.gamma(2.2, 4.5), 0.5, 24.0)),
        azimuth=random.uniform(0, 2 * math.pi),
        smear=random.uniform(0.1, 0.4),
        conversions=(random.uniform(0.03, 0.25), random.uniform(0.02, 0.15)),
        moho=(random.uniform(0.2, 0.9), random.uniform(0.03, 0.25)),
    )


def draw_event(random: np.random.Generator, station: Station, settings: SimulationSettings, needed_snr: float) -> Event:
    """An event whose P is expected at ``needed_snr`` times the noise or more, where the magnitudes allow it.

    Above the least magnitude that this needs, magnitudes fall off exponentially, as in a catalogue above its
    completeness (Gutenberg & Richter 1944), though more slowly, so that large events are learnt too.
    """
    low_km, high_km = settings.distance_km
    distance_km = low_km + (high_km - low_km) * random.uniform() ** 1.5
    geometry = draw_geometry(random, distance_km)
    low, high = settings.magnitude
    s_velocity = station.crust.velocity(geometry.depth_km) / station.crust.ratio
    source = draw_source(random, low, s_velocity)

    def of_magnitude(magnitude: float) -> Event:
        return Event(station=station, geometry=geometry, source=replace(source, magnitude=magnitude))

    least = _least_magnitude(of_magnitude, low, high, needed_snr)
    return of_magnitude(min(least + random.exponential(0.9), high))


def _least_magnitude(of_magnitude: Callable[[float], Event], low: float, high: float, needed_snr: float) -> float:
    """The least magnitude, to 0.05, at which the direct P is expected at ``needed_snr``; at most ``high``."""
    while high - low > 0.05:
        middle = (low + high) / 2
        event = of_magnitude(middle)
        direct = next(arrivals(event.station.crust, event.geometry, event.source, event.direct))
        enough = event.expected_snr("P", direct.level, direct.time_s) >= needed_snr
        low, high = (low, middle) if enough else (middle, high)
    return high
