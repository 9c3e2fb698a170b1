"""The crust below a station, and the rays through it.

A crust with velocity growing linearly with depth lies over a mantle of constant velocity; under the station lies a
thin slow layer. In a linear gradient rays are arcs of circles and times are closed forms (Aki & Richards 2002,
Quantitative Seismology, section 9.3; Lay & Wallace 1995, section 3.2). The ratio of P to S velocity is the same at
all depths below the layer: P and S follow the same path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

DIRECT, REFLECTED, HEAD = "g", "m", "n"
"""Paths: direct (Pg), reflected from the Moho (PmP), along the Moho (Pn)."""
GARDNER = (1741.0, 0.25)
"""Density in kg/m3 of a P velocity in km/s: 1741 v^0.25 (Gardner et al. 1974)."""


@dataclass(frozen=True, kw_only=True)
class Ray:
    """A P ray from source to layer; for S, time and slowness are those times the velocity ratio.

    ``slowness`` is the ray parameter in s/km, ``down`` says whether it leaves downwards, ``length_km`` is
    for spreading.
    """

    path: str
    time_s: float
    slowness: float
    down: bool
    length_km: float


@dataclass(frozen=True, kw_only=True)
class Crust:
    """Velocities in km/s (of P; S is that over ``ratio``), depths in km.

    ``layer_s_time`` is the one-way vertical S time through the slow layer, whose velocities are ``layer_p`` and
    ``layer_s``; ``interface_km`` is a depth at which waves convert.
    """

    surface: float
    moho: float
    moho_km: float
    mantle: float
    ratio: float
    layer_p: float
    layer_s: float
    layer_s_time: float
    interface_km: float

    @property
    def gradient(self) -> float:
        """Growth of the P velocity with depth, 1/s."""
        return (self.moho - self.surface) / self.moho_km

    def velocity(self, depth_km: float) -> float:
        """P velocity in the crust below the layer."""
        return self.surface + self.gradient * depth_km

    def direct(self, distance_km: float, depth_km: float) -> Ray:
        """The ray that stays in the crust."""
        v0, vh, g = self.surface, self.velocity(depth_km), self.gradient
        arc = 1 + g**2 * (distance_km**2 + depth_km**2) / (2 * v0 * vh)
        slowness = g * distance_km / (v0 * vh * math.sqrt(arc**2 - 1))
        turning_km = math.sqrt(vh**2 - v0**2) / g
        length_km = math.hypot(distance_km, depth_km)
        time_s = math.acosh(arc) / g
        return Ray(path=DIRECT, time_s=time_s, slowness=slowness, down=distance_km > turning_km, length_km=length_km)

    def reflected(self, distance_km: float, depth_km: float) -> Ray | None:
        """The ray reflected from the Moho, or None beyond its reach."""
        vh, low, high = self.velocity(depth_km), 0.0, 1 / self.moho
        if self._legs(high, vh)[0] <= distance_km:
            return None
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self._legs(middle, vh)[0] < distance_km else (low, middle)
        length_km = math.hypot(distance_km, 2 * self.moho_km - depth_km)
        return Ray(path=REFLECTED, time_s=self._legs(low, vh)[1], slowness=low, down=True, length_km=length_km)

    def head(self, distance_km: float, depth_km: float) -> Ray | None:
        """The head wave along the Moho, or None before the critical distance."""
        slowness = 1 / self.mantle
        reach_km, time_s = self._legs(slowness, self.velocity(depth_km))
        if distance_km <= reach_km:
            return None
        time_s += (distance_km - reach_km) * slowness
        return Ray(path=HEAD, time_s=time_s, slowness=slowness, down=True, length_km=distance_km)

    def _legs(self, slowness: float, source_velocity: float) -> tuple[float, float]:
        """Distance (km) and time (s) from the source down to the Moho and from there up to the layer."""
        distance_km = time_s = 0.0
        for top in (source_velocity, self.surface):
            c1, c2 = (math.sqrt(max(0.0, 1 - (slowness * v) ** 2)) for v in (top, self.moho))
            distance_km += (c1 - c2) / (self.gradient * slowness) if slowness else 0.0
            time_s += math.log(self.moho / top * (1 + c1) / (1 + c2)) / self.gradient
        return distance_km, time_s

    def slowness(self, ray: Ray, wave: str) -> float:
        """Ray parameter of a P or S wave, s/km; kept below grazing P at the surface, where S stays real."""
        own = ray.slowness * (self.ratio if wave == "S" else 1.0)
        return min(own, 0.98 / self.layer_p)

    def time(self, ray: Ray, wave: str) -> float:
        """Seconds from source to surface, the delay of the slow layer included."""
        p, ratio = self.slowness(ray, wave), self.ratio if wave == "S" else 1.0
        rock, layer = self.surface / ratio, self.layer_s if wave == "S" else self.layer_p
        return ray.time_s * ratio + self.layer_km * (vertical(layer, p) - vertical(rock, p))

    @property
    def layer_km(self) -> float:
        """Thickness of the slow layer."""
        return self.layer_s_time * self.layer_s

    @property
    def reflection(self) -> float:
        """Share of an S wave's amplitude that the bottom of the layer sends back up, from 0 to 1."""
        rock, layer = self.surface / self.ratio, self.layer_s
        return (rock - layer) / (rock + layer)


def vertical(velocity: float, slowness: float) -> float:
    """Vertical slowness in s/km of a wave with ray parameter ``slowness``; 0 beyond grazing."""
    return math.sqrt(max(0.0, 1 / velocity**2 - slowness**2))


def density(velocity: float) -> float:
    """Density in kg/m3 of rock with a P velocity in km/s."""
    scale, power = GARDNER
    return float(scale * velocity**power)


def draw_crust(random: np.random.Generator) -> Crust:
    """A continental crust."""
    surface, ratio = random.uniform(4.6, 5.9), random.uniform(1.66, 1.84)
    slow = random.uniform(0.25, 0.9)
    layer_s = surface / ratio * slow
    return Crust(
        surface=surface,
        moho=random.uniform(6.6, 7.2),
        moho_km=random.uniform(25, 45),
        mantle=random.uniform(7.7, 8.2),
        ratio=ratio,
        layer_s=layer_s,
        layer_p=layer_s * (ratio + (1 - slow) * random.uniform(0, 1)),
        layer_s_time=random.uniform(0.02, 0.25),
        interface_km=random.uniform(1.5, 7),
    )
