"""The free surface: what a seismometer on it sees of a wave from below."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pretrain.simulate.crust import vertical


def p_motion(slowness: float, alpha: float, beta: float) -> tuple[float, float]:
    """Motion up and away from the source of an incident P wave of unit amplitude (Aki & Richards 2002, problem 5.6).

    ``slowness`` in s/km, below 1/alpha; velocities ``alpha`` and ``beta`` of P and S in km/s.
    """
    xi, eta, bend, scale = _parts(slowness, alpha, beta)
    return 2 * alpha / beta**2 * xi * bend / scale, 4 * alpha * slowness / beta**2 * xi * eta / scale


def sv_motion(slowness: float, alpha: float, beta: float) -> tuple[float, float]:
    """Motion up and towards the source of an incident SV wave of unit amplitude, with those arguments."""
    xi, eta, bend, scale = _parts(slowness, alpha, beta)
    return 4 * slowness / beta * xi * eta / scale, 2 / beta * eta * bend / scale


SH_MOTION = 2.0
"""Motion across of an incident SH wave of unit amplitude."""


def _parts(slowness: float, alpha: float, beta: float) -> tuple[float, float, float, float]:
    xi, eta = vertical(alpha, slowness), vertical(beta, slowness)
    bend = 1 / beta**2 - 2 * slowness**2
    return xi, eta, bend, bend**2 + 4 * slowness**2 * xi * eta


def to_components(up: float, away: float, across: float, azimuth: float) -> NDArray[np.float64]:
    """Z, N, E (3,) of motion up, away from the source and across (clockwise); ``azimuth`` source to station, rad."""
    sin, cos = math.sin(azimuth), math.cos(azimuth)
    return np.array([up, away * cos - across * sin, away * sin + across * cos])
