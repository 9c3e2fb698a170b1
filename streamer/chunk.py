"""A chunk: what a station hands to the engine for one model step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class StationKey(NamedTuple):
    """What picks are made for: one instrument of one station, for example CX PB01 '' HH."""

    network: str
    station: str
    location: str
    band_instrument: str

    def __str__(self) -> str:
        return f"{self.network}.{self.station}.{self.location}.{self.band_instrument}"


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """64 aligned samples of three components on the station's 100 Hz grid.

    ``first_sample`` is the grid number of column 0, counted from the Unix epoch at 100 Hz and divisible by 64; the time
    of column i is ``(first_sample + i) * 10_000_000 + time_shift_ns``. ``samples`` (3, 64) is float32 with the offset
    removed, components Z, N, E, zero where not ``valid`` (3, 64). ``reset`` says that the model state must start
    afresh with this chunk. ``flags`` names the policies that touched these samples, for the quality of a pick.
    ``timing_quality`` is the lowest that the records of these samples say (0-100), None where none says.
    ``data_complete_ns`` is when the record that completed the chunk arrived (daemon clock, int ns UTC).
    """

    station: StationKey
    first_sample: int
    time_shift_ns: int
    samples: NDArray[np.float32]
    valid: NDArray[np.bool_]
    reset: bool
    data_complete_ns: int
    flags: frozenset[str] = field(default_factory=frozenset)
    timing_quality: int | None = None
