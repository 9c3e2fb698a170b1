"""How the components of a sensor point, and the turn of their samples to up, north and east.

Pure arithmetic, sample by sample and so causal. Azimuths are degrees clockwise from north, dips degrees down from the
horizontal (FDSN StationXML 1.1): a vertical that counts upwards has a dip of -90, one with +90 is reversed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.chunk import Chunk

NOT_TURNED = "not_turned"
"""Flag of a chunk with samples that should be turned but whose other components are missing."""
LARGEST_CONDITION = 3.0
"""Sensors point about at right angles; what is further from it is a fault of the metadata."""
STEEP, LEVEL = 0.999, 0.05
"""Upward part of what counts as a vertical, and of what counts as a horizontal (2.9 degrees)."""
NOTHING = 1e-9


@dataclass(frozen=True)
class Direction:
    """Where a component points."""

    azimuth_deg: float
    dip_deg: float

    def vector(self) -> tuple[float, float, float]:
        """Unit vector: up, north, east."""
        azimuth, dip = math.radians(self.azimuth_deg), math.radians(self.dip_deg)
        return -math.sin(dip), math.cos(dip) * math.cos(azimuth), math.cos(dip) * math.sin(azimuth)


class Turn(NamedTuple):
    """Matrix (3, 3) that makes up, north, east of the components in the places of Z, N and E; None to leave them.

    ``odd``: the directions cannot be true, since they are far from right angles, and the components are left.
    """

    matrix: NDArray[np.float64] | None
    odd: bool = False


@lru_cache(maxsize=16_384)
def turn(directions: tuple[Direction | None, Direction | None, Direction | None]) -> Turn:
    """How to turn components that point so; None where that is not known.

    Then the horizontals are turned by themselves if both are known and level, and a vertical if it is known.
    """
    vertical, north, east = (None if one is None else one.vector() for one in directions)
    if vertical is not None and north is not None and east is not None:
        return _turn(np.array([vertical, north, east]))
    vectors = np.eye(3)
    if vertical is not None and abs(vertical[0]) >= STEEP:
        vectors[0, 0] = math.copysign(1.0, vertical[0])
    if north is not None and east is not None and max(abs(north[0]), abs(east[0])) <= LEVEL:
        vectors[1:, 1:] = np.array([north[1:], east[1:]])
    return _turn(vectors)


def _turn(vectors: NDArray[np.float64]) -> Turn:
    """The inverse of ``vectors``, one row a component, without what is rounding."""
    if np.linalg.cond(vectors) > LARGEST_CONDITION:
        return Turn(None, odd=True)
    matrix: NDArray[np.float64] = np.linalg.inv(vectors).astype(np.float64)
    matrix = np.where(np.abs(matrix) < NOTHING, 0.0, matrix)
    return Turn(None if np.allclose(matrix, np.eye(3), rtol=0, atol=NOTHING) else matrix)


def turned(chunk: Chunk, matrix: NDArray[np.float64]) -> Chunk:
    """``chunk`` with its components turned by ``matrix`` (3, 3), where all that enter are valid.

    Offsets are taken off before, so samples that have to stay as they are make no step. They are flagged.
    """
    samples = chunk.samples.astype(np.float64)
    out, incomplete = chunk.samples.copy(), False
    for row, weights in enumerate(matrix):
        entering = np.flatnonzero(weights)
        if list(entering) == [row] and weights[row] == 1.0:
            continue
        whole = chunk.valid[row] & chunk.valid[entering].all(axis=0)
        incomplete = incomplete or bool((chunk.valid[row] & ~whole).any())
        value = np.zeros(samples.shape[1])
        for column in entering:  # one by one: the same bits on every machine
            value += weights[column] * samples[column]
        out[row] = np.where(whole, value.astype(np.float32), out[row])
    return replace(chunk, samples=out, flags=chunk.flags | {NOT_TURNED} if incomplete else chunk.flags)
