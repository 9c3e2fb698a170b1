"""A plain station and plain events: no scattering, no slow layer, whatever a test wants to leave out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from pretrain.simulate.arrival import Geometry
from pretrain.simulate.attenuation import Attenuation
from pretrain.simulate.coda import Nearby
from pretrain.simulate.crust import Crust
from pretrain.simulate.event import Event
from pretrain.simulate.instrument import BROADBAND
from pretrain.simulate.noise import draw_noise
from pretrain.simulate.source import Source
from pretrain.simulate.station import Station

CRUST = Crust(
    surface=5.2, moho=6.8, moho_km=35, mantle=8.0, ratio=1.73, layer_p=5.2, layer_s=5.2 / 1.73,
    layer_s_time=1e-6, interface_km=50,
)  # fmt: skip
CLEAR = Attenuation(q=1e9, power=0.0, p_ratio=1.0, kappa_s=0.0, scattering_per_km=0.0, forward_km=1e9, broadening=0.005)
SCATTERING = Attenuation(
    q=150, power=0.6, p_ratio=1.2, kappa_s=0.02, scattering_per_km=0.01, forward_km=60, broadening=0.006
)


def station(path: Attenuation = CLEAR, crust: Crust = CRUST, **more: Any) -> Station:
    """A broadband station in the quiet; ``more`` replaces fields."""
    values = {
        "crust": crust,
        "path": path,
        "nearby": Nearby(energy=0.5 if path is SCATTERING else 0.0, time_s=0.3),
        "instrument": BROADBAND,
        "noise": replace(draw_noise(np.random.default_rng(0)), heights=np.full(6, 0.05)),
    }
    return Station(**(values | more))


def event(
    at: Station,
    distance_km: float = 40.0,
    azimuth: float = 0.7,
    magnitude: float = 3.0,
    depth_km: float = 8.0,
    **more: Any,
) -> Event:
    """An earthquake of 3 MPa in all of whose directions radiation is near its average."""
    geometry = Geometry(
        distance_km=distance_km, depth_km=depth_km, azimuth=azimuth, smear=1.0, conversions=(0.1, 0.1), moho=(0.5, 0.2)
    )
    source = Source(
        magnitude=magnitude, stress_drop_pa=3e6, s_velocity=at.crust.velocity(depth_km) / at.crust.ratio,
        corner_ratio=1.4, strike=0.4, dip=1.0, rake=math.pi / 3,
    )  # fmt: skip
    return Event(station=at, geometry=replace(geometry, **more), source=source)
