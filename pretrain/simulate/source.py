"""The source of an earthquake: a double couple with an omega-square spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AVERAGE = {"P": 0.52, "S": 0.63}
"""Root mean square of the radiation over all directions (Boore & Boatwright 1984)."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """``s_velocity`` in km/s at the source; ``corner_ratio`` is the P over the S corner frequency."""

    magnitude: float
    stress_drop_pa: float
    s_velocity: float
    corner_ratio: float
    strike: float
    dip: float
    rake: float

    @property
    def moment_nm(self) -> float:
        """Seismic moment in N m (Hanks & Kanamori 1979)."""
        return float(10 ** (1.5 * self.magnitude + 9.1))

    def corner_hz(self, wave: str) -> float:
        """Corner frequency of P or S: 0.49 beta (stress drop / moment)^(1/3) in SI units for S (Brune 1970)."""
        s = float(0.49 * self.s_velocity * 1000 * (self.stress_drop_pa / self.moment_nm) ** (1 / 3))
        return s * (self.corner_ratio if wave == "P" else 1.0)

    def tensor(self) -> NDArray[np.float64]:
        """The moment tensor over the moment, axes north, east, down (Aki & Richards 2002, box 4.4); angles in rad."""
        sin, cos = math.sin, math.cos
        s, d, r = self.strike, self.dip, self.rake
        xx = -(sin(d) * cos(r) * sin(2 * s) + sin(2 * d) * sin(r) * sin(s) ** 2)
        xy = sin(d) * cos(r) * cos(2 * s) + 0.5 * sin(2 * d) * sin(r) * sin(2 * s)
        xz = -(cos(d) * cos(r) * cos(s) + cos(2 * d) * sin(r) * sin(s))
        yy = sin(d) * cos(r) * sin(2 * s) - sin(2 * d) * sin(r) * cos(s) ** 2
        yz = -(cos(d) * cos(r) * sin(s) - cos(2 * d) * sin(r) * cos(s))
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, sin(2 * d) * sin(r)]])

    def radiation(self, azimuth: float, takeoff: float) -> tuple[float, float, float]:
        """Far-field radiation of P, SV and SH, each from -1 to 1 (Aki & Richards 2002, eqs 4.88-4.91).

        ``azimuth`` from north and ``takeoff`` from straight down, in rad.
        """
        sin_i, cos_i, sin_a, cos_a = math.sin(takeoff), math.cos(takeoff), math.sin(azimuth), math.cos(azimuth)
        ray = np.array([sin_i * cos_a, sin_i * sin_a, cos_i])
        across = np.array([cos_i * cos_a, cos_i * sin_a, -sin_i])
        aside = np.array([-sin_a, cos_a, 0.0])
        force = self.tensor() @ ray
        return float(ray @ force), float(across @ force), float(aside @ force)


def draw_source(random: np.random.Generator, magnitude: float, s_velocity: float) -> Source:
    """A source of random mechanism and stress drop (log-normal around 3 MPa)."""
    return Source(
        magnitude=magnitude,
        stress_drop_pa=3e6 * math.exp(random.normal(0, 0.9)),
        s_velocity=s_velocity,
        corner_ratio=random.uniform(1.1, 1.7),
        strike=random.uniform(0, 2 * math.pi),
        dip=math.acos(random.uniform(0, 1)),
        rake=random.uniform(-math.pi, math.pi),
    )
