"""Scattered waves: noise in the shape of the energy that comes after a direct wave."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrain.data.trace import RATE_HZ
from pretrain.simulate.attenuation import Attenuation
from pretrain.simulate.wavelet import BAND_CENTRES_HZ

SHAPES = {"P": (1.0, 0.65, 0.65), "S": (0.7, 1.0, 1.0)}
"""Amplitude of the scattered waves on Z, N and E, beside one another."""


@dataclass(frozen=True, kw_only=True)
class Nearby:
    """Scattering close to the station: ``energy`` over that of the pulse, gone within ``time_s``."""

    energy: float
    time_s: float


def single_scattering(lapse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Energy of singly scattered waves by lapse time over travel time (n,), above 1: ln((x+1)/(x-1))/x (Sato 1977).

    It falls as 2/x^2 far behind the onset: the coda of Aki & Chouet (1975), whose amplitude falls as 1/t.
    """
    return np.asarray(np.log((lapse + 1) / (lapse - 1)) / lapse)


def remaining(path: Attenuation, wave: str, length_km: float) -> float:
    """Share of the energy that is still in the pulse after ``length_km``."""
    return math.exp(-length_km / path.forward_km / (2.0 if wave == "P" else 1.0))


def envelopes(
    path: Attenuation, wave: str, time_s: float, length_km: float, velocity: float, nearby: Nearby, samples: int
) -> NDArray[np.float64]:
    """Energy a sample (4 bands, samples) of the waves scattered out of a pulse of unit energy, from its onset on.

    ``time_s`` is the travel time, ``velocity`` (km/s) that of the path. The sum of forward scattering (the pulse
    broadened, t exp(-t/T)/T^2), scattering near the station, and single scattering with the attenuation of the coda.
    """
    since = np.asarray((np.arange(samples) + 0.5) / RATE_HZ, dtype=np.float64)
    late_s = max(0.05, path.broadening * length_km * (0.5 if wave == "P" else 1.0))
    forward = (1 - remaining(path, wave, length_km)) * since * np.exp(-since / late_s) / late_s**2
    local = nearby.energy * np.exp(-since / nearby.time_s) / nearby.time_s
    far = path.scattering_per_km * velocity * single_scattering(1 + since / max(time_s, 0.3))
    centres = np.array(BAND_CENTRES_HZ)
    decay = 2 * math.pi * centres / path.quality(centres, "S")
    return np.asarray((forward + local + far * np.exp(-decay[:, None] * since)) / RATE_HZ)


def scattered(random: np.random.Generator, energy: NDArray[np.float64], wave: str) -> NDArray[np.float64]:
    """Random impulses (4 bands, 3, samples) of the energy (4 bands, samples); Z, N, E in the shape of ``wave``."""
    shape = np.array(SHAPES[wave])
    white = random.standard_normal((3, energy.shape[1])) * (shape / np.linalg.norm(shape))[:, None]
    return np.asarray(np.sqrt(energy)[:, None] * white)
