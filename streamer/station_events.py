"""What an operator should hear once about stations and channels."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.chunk import StationKey
from streamer.record import Nslc


@dataclass(frozen=True)
class NewStation:
    """An instrument is picked from now on, with the channels known so far."""

    station: StationKey
    channels: tuple[str, ...]


@dataclass(frozen=True)
class OddDirections:
    """StationXML has directions for a station's components that are far from right angles."""

    station: StationKey


@dataclass(frozen=True)
class NewChannel:
    """A channel has joined a station that is already picked."""

    station: StationKey
    channel: str


@dataclass(frozen=True)
class VerticalOnly:
    """A station has no horizontal channel yet: it is picked from its vertical, S picks will be rare."""

    station: StationKey


@dataclass(frozen=True)
class DroppedChannel:
    """All records of a channel are dropped for ``reason``."""

    nslc: Nslc
    reason: str


@dataclass(frozen=True)
class NoUsableChannel:
    """A station sends data, but nothing that can be picked; ``reasons`` pairs channels with their reason."""

    network: str
    station: str
    reasons: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TooManyStations:
    """Records of further stations are dropped: raise ``max_stations`` or subscribe to fewer."""

    limit: int


StationEvent = (
    NewStation | NewChannel | VerticalOnly | OddDirections | DroppedChannel | NoUsableChannel | TooManyStations
)
