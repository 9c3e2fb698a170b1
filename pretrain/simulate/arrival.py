"""Arrivals: every spike of displacement that a ray brings to the surface, before the pulse gives it a form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrain.simulate.attenuation import spreading
from pretrain.simulate.crust import DIRECT, REFLECTED, Crust, Ray, density, vertical
from pretrain.simulate.source import AVERAGE, Source
from pretrain.simulate.surface import SH_MOTION, p_motion, sv_motion, to_components

_ECHOES = 4


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """``motion`` (3,) is the low-frequency level of displacement on Z, N, E, in m s.

    ``wave`` names the pulse (P or S); ``main`` arrivals are those an analyst may pick: they came as that wave all the
    way. ``level`` is their strength without regard to radiation, from which scattering takes its energy.
    """

    phase: str
    wave: str
    time_s: float
    motion: NDArray[np.float64]
    main: bool = False
    level: float = 0.0
    length_km: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the source is, seen from the station; ``azimuth`` from source to station in rad.

    ``smear`` is the share of the radiated energy that small-scale scattering spreads over all directions;
    ``conversions`` are the amplitudes of waves converted at the layer and at the interface, ``moho`` those of the
    reflected and of the head wave.
    """

    distance_km: float
    depth_km: float
    azimuth: float
    smear: float
    conversions: tuple[float, float]
    moho: tuple[float, float]


def rays(crust: Crust, geometry: Geometry) -> list[Ray]:
    """The direct ray and, where there are any, the reflected and the head wave."""
    place = geometry.distance_km, geometry.depth_km
    return [ray for ray in (crust.direct(*place), crust.reflected(*place), crust.head(*place)) if ray is not None]


def arrivals(crust: Crust, geometry: Geometry, source: Source, ray: Ray) -> Iterator[Arrival]:
    """All that one ray brings: P and S, their echoes in the slow layer, and waves converted below the station."""
    radiation = _radiation(crust, geometry, source, ray)
    for wave in "PS":
        p = crust.slowness(ray, wave)
        level = _level(crust, geometry, source, ray, wave)
        time_s = crust.time(ray, wave)
        if wave == "P":
            up, away, across = *p_motion(p, crust.layer_p, crust.layer_s), 0.0
            up, away = radiation[0] * up, radiation[0] * away
        else:
            up, towards = sv_motion(p, crust.layer_p, crust.layer_s)
            up, away, across = radiation[1] * up, -radiation[1] * towards, radiation[2] * SH_MOTION
        motion = level * to_components(up, away, across, geometry.azimuth)
        main = Arrival(
            phase=wave + ray.path,
            wave=wave,
            time_s=time_s,
            motion=motion,
            main=True,
            level=level * AVERAGE[wave] * SH_MOTION,
            length_km=ray.length_km,
        )
        yield main
        yield from _echoes(crust, main, p)
        if ray.path == DIRECT:
            yield from _converted(crust, geometry, main, p)


def _radiation(crust: Crust, geometry: Geometry, source: Source, ray: Ray) -> tuple[float, float, float]:
    """Radiation of P, SV and SH into the ray, its nodes filled by the smear."""
    angle = math.asin(min(1.0, ray.slowness * crust.velocity(geometry.depth_km)))
    pattern = source.radiation(geometry.azimuth, angle if ray.down else math.pi - angle)
    averages = AVERAGE["P"], AVERAGE["S"] / math.sqrt(2), AVERAGE["S"] / math.sqrt(2)
    p, sv, sh = (
        math.copysign(math.sqrt((1 - geometry.smear) * value**2 + geometry.smear * average**2), value)
        for value, average in zip(pattern, averages, strict=True)
    )
    return p, sv, sh


def _level(crust: Crust, geometry: Geometry, source: Source, ray: Ray, wave: str) -> float:
    """Displacement of an incident wave for unit radiation, in m s (ray theory: Aki & Richards 2002, chapter 9).

    The moment over 4 pi rho v^3 R, with the impedances at source, surface and in the layer, and the Moho's share.
    """
    ratio = crust.ratio if wave == "S" else 1.0
    deep, rock = crust.velocity(geometry.depth_km), crust.surface
    layer = crust.layer_s if wave == "S" else crust.layer_p
    geometric = (deep / ratio * 1000) ** 2.5 * (rock / ratio * 1000) ** 0.5 * math.sqrt(density(deep) * density(rock))
    amplification = math.sqrt(density(rock) * rock / ratio / (density(crust.layer_p) * layer))
    share = 1.0
    if ray.path != DIRECT:
        reflected, head = geometry.moho
        critical = ray.slowness >= 1 / crust.mantle
        share = (reflected if critical else 0.3 * reflected) if ray.path == REFLECTED else head
    level = source.moment_nm * spreading(ray.length_km) / 1000 / (4 * math.pi * geometric)
    return float(share * amplification * level)


def _echoes(crust: Crust, main: Arrival, p: float) -> Iterator[Arrival]:
    """Reverberations between the surface and the bottom of the slow layer: the resonance of the site (Haskell 1960)."""
    delay_s = 2 * crust.layer_km * vertical(crust.layer_s if main.wave == "S" else crust.layer_p, p)
    for n in range(1, _ECHOES + 1):
        echo = (-crust.reflection) ** n
        yield Arrival(
            phase=f"{main.phase}e{n}", wave=main.wave, time_s=main.time_s + n * delay_s, motion=echo * main.motion
        )


def _converted(crust: Crust, geometry: Geometry, main: Arrival, p: float) -> Iterator[Arrival]:
    """Ps behind P and Sp ahead of S, from the bottom of the layer and from the interface below it."""
    rock = vertical(crust.surface / crust.ratio, p) - vertical(crust.surface, p)
    delays = [crust.layer_km * (vertical(crust.layer_s, p) - vertical(crust.layer_p, p))]
    if geometry.depth_km > crust.interface_km:
        delays.append(delays[0] + crust.interface_km * rock)
    strength = float(np.linalg.norm(main.motion)) / SH_MOTION
    for delay_s, share in zip(delays, geometry.conversions, strict=False):
        if main.wave == "P":
            up, towards = sv_motion(p, crust.layer_p, crust.layer_s)
            phase, time_s, away = "Ps", main.time_s + delay_s, -towards
        else:
            up, away = p_motion(p, crust.layer_p, crust.layer_s)
            phase, time_s = "Sp", main.time_s - delay_s
        motion = share * strength * to_components(up, away, 0.0, geometry.azimuth)
        yield Arrival(phase=phase, wave=main.wave, time_s=time_s, motion=motion)
