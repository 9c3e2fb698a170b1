"""A decoded miniSEED record: contiguous samples of one channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray


class Nslc(NamedTuple):
    """Network, station, location and channel codes; a blank location is the empty string."""

    network: str
    station: str
    location: str
    channel: str

    def __str__(self) -> str:
        return ".".join(self)


@dataclass(frozen=True, kw_only=True)
class Record:
    """Samples of one channel, as they came from a server or a file.

    ``start_ns`` is the time of the first sample, int nanoseconds UTC since the epoch. ``samples`` is (n,) int32,
    float32 or float64 in the digitiser's unit. ``timing_quality`` is 0-100 or None where the record does not say.
    """

    nslc: Nslc
    start_ns: int
    sampling_rate_hz: float
    samples: NDArray[Any]
    timing_quality: int | None = None
    clock_questionable: bool = False

    @property
    def end_ns(self) -> int:
        """Time of the sample that would follow the last one."""
        return self.start_ns + round(len(self.samples) * 1e9 / self.sampling_rate_hz)
