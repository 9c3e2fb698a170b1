"""A station: what all that is recorded at one place shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pretrain.simulate.attenuation import Attenuation, draw_attenuation
from pretrain.simulate.coda import Nearby
from pretrain.simulate.crust import Crust, draw_crust
from pretrain.simulate.instrument import INSTRUMENTS, SHARES, Instrument
from pretrain.simulate.noise import Noise, draw_noise

SIGNAL_HZ = (1.0, 20.0)
"""Band in which signals are compared with noise."""


@dataclass(frozen=True, kw_only=True)
class Station:
    """The crust and the path below a station, its instrument and its noise."""

    crust: Crust
    path: Attenuation
    nearby: Nearby
    instrument: Instrument
    noise: Noise

    @cached_property
    def background(self) -> float:
        """Root mean square of the vertical noise in ``SIGNAL_HZ``, in m/s or m/s2 as the instrument records."""
        frequency = np.linspace(*SIGNAL_HZ, 96)
        power = self.noise.power(frequency)[0] + 10 ** (self.instrument.self_noise_db / 10)
        integrals = 2 * (2 - self.instrument.order)
        density = float(np.mean(power / (2 * np.pi * frequency) ** integrals))
        return math.sqrt(density * (SIGNAL_HZ[1] - SIGNAL_HZ[0]))


def draw_station(random: np.random.Generator) -> Station:
    """A station on a random crust with a random instrument."""
    return Station(
        crust=draw_crust(random),
        path=draw_attenuation(random),
        nearby=Nearby(energy=random.uniform(0.3, 3), time_s=random.uniform(0.1, 0.8)),
        instrument=INSTRUMENTS[random.choice(len(INSTRUMENTS), p=SHARES)],
        noise=draw_noise(random),
    )
