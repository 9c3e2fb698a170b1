"""What happened to stations, as log lines for the operator."""

from __future__ import annotations

import structlog

from streamer.station_events import (
    DroppedChannel,
    NewChannel,
    NewStation,
    NoUsableChannel,
    OddDirections,
    StationEvent,
    TooManyStations,
    VerticalOnly,
)

EXPECTED_REASONS = frozenset({"not_preferred"})
"""Reasons of a dropped channel that are the rule rather than a fault."""

_log = structlog.get_logger(__name__)


def announce(event: StationEvent) -> None:
    """One line for one event."""
    match event:
        case NewStation(station, channels):
            _log.info("station is picked", station=str(station), channels=" ".join(channels))
        case NewChannel(station, channel):
            _log.info("channel joined its station", station=str(station), channel=channel)
        case VerticalOnly(station):
            _log.warning("station has only a vertical: S picks will be rare", station=str(station))
        case OddDirections(station):
            _log.warning("directions of components cannot be true: they are left as they are", station=str(station))
        case DroppedChannel(nslc, reason) if reason in EXPECTED_REASONS:
            _log.info("channel not used", channel=str(nslc), reason=reason)
        case DroppedChannel(nslc, reason):
            _log.warning("channel dropped", channel=str(nslc), reason=reason)
        case NoUsableChannel(network, station, reasons):
            _log.warning(
                "station has no usable channel: it sends data but cannot be picked",
                station=f"{network}.{station}",
                reasons=", ".join(f"{channel} {reason}" for channel, reason in reasons),
            )
        case TooManyStations(limit):
            _log.warning("too many stations: further ones are dropped, subscribe to fewer", limit=limit)
