"""What the path takes from a wave: anelastic and near-surface attenuation, and spreading."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAPPED_KM = 80.0
"""Beyond this the crust guides the waves and they spread more slowly (Herrmann & Kijko 1983)."""


@dataclass(frozen=True, kw_only=True)
class Attenuation:
    """Q(f) = ``q`` f^``power`` above 1 Hz and ``q`` below it for S; ``p_ratio`` times that for P.

    ``kappa_s`` is the decay exp(-pi kappa f) of the site (Anderson & Hough 1984). ``scattering_per_km`` is the
    coefficient g0 of the coda, ``forward_km`` the length after which 1/e of the energy of an S pulse is still in it (P:
    twice that), and ``broadening`` the seconds a kilometre by which the rest is late (Saito, Sato & Ohtake 2002).
    """

    q: float
    power: float
    p_ratio: float
    kappa_s: float
    scattering_per_km: float
    forward_km: float
    broadening: float

    def quality(self, frequency: NDArray[np.float64], wave: str) -> NDArray[np.float64]:
        """Q of P or S at ``frequency`` (F,) in Hz."""
        return np.asarray(self.q * np.maximum(frequency, 1.0) ** self.power * (self.p_ratio if wave == "P" else 1.0))

    def log_spectrum(self, frequency: NDArray[np.float64], wave: str, time_s: float) -> NDArray[np.float64]:
        """Natural logarithm of the amplitude left after ``time_s`` of path and the site, (F,)."""
        return np.asarray(-math.pi * frequency * (time_s / self.quality(frequency, wave) + self.kappa_s))


def spreading(length_km: float) -> float:
    """Amplitude by geometry relative to 1 km: 1/R as a body wave, R^-0.5 where the crust guides."""
    if length_km <= TRAPPED_KM:
        return 1 / max(length_km, 0.5)
    return 1 / math.sqrt(TRAPPED_KM * length_km)


def draw_attenuation(random: np.random.Generator) -> Attenuation:
    """Attenuation between that of an active region and that of a shield."""
    return Attenuation(
        q=math.exp(random.uniform(math.log(60), math.log(350))),
        power=random.uniform(0.4, 0.9),
        p_ratio=random.uniform(0.9, 1.6),
        kappa_s=math.exp(random.uniform(math.log(0.005), math.log(0.06))),
        scattering_per_km=math.exp(random.uniform(math.log(0.004), math.log(0.04))),
        forward_km=math.exp(random.uniform(math.log(15), math.log(120))),
        broadening=random.uniform(0.003, 0.012),
    )
