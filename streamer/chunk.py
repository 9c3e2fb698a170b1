"""A chunk: what a station hands to the engine for one model step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.record import Nslc


class StationKey(NamedTuple):
    """What picks are made for: one instrument of one station, for example CX PB01 '' HH."""

    network: str
    station: str
    location: str
    band_instrument: str

    def channel(self, letter: str) -> Nslc:
        """Codes of the channel with this orientation letter."""
        return Nslc(self.network, self.station, self.location, self.band_instrument + letter)

    def __str__(self) -> str:
        return f"{self.network}.{self.station}.{self.location}.{self.band_instrument}"


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """64 aligned samples of three components on the station's 100 Hz grid.

    ``first_sample`` is the grid number of column 0, counted from the Unix epoch at 100 Hz and divisible by 64; the time
    of column i is ``(first_sample + i) * 10_000_000 + time_shift_ns``. ``shifts_ns`` is that shift for each component
    by itself, None for one without a sample here, and empty where all have the same. ``samples`` (3, 64) is float32
    with the offset removed, components Z, N, E, zero where not ``valid`` (3, 64). ``reset`` says that the model state
    must start afresh with this chunk. ``flags`` names the policies that touched these samples, for the quality of a
    pick. ``timing_quality`` is the lowest that the records of these samples say (0-100), None where none says.
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
    shifts_ns: tuple[int | None, ...] = ()

    def shift_ns(self, phase: str) -> int:
        """Shift of the component on which a pick of ``phase`` is reported: P on Z before N and E, S on those before Z.

        Components need not be sampled at the same instants: each sample's time is that of its own component.
        """
        vertical, horizontals = self.shifts_ns[:1], self.shifts_ns[1:]
        wanted = horizontals + vertical if phase == "S" else vertical + horizontals
        return next((shift for shift in wanted if shift is not None), self.time_shift_ns)
