"""Picks of a QuakeML file, by obspy (extra ``obspy``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from picker.errors import ConfigError
from pretrain.data.picks import AUTOMATIC, MANUAL, Pick, phase_of, unknown_phase
from pretrain.data.reading import BadTrace, Reading
from pretrain.data.seisbench_row import STATUS_WEIGHTS


def read_quakeml(path: Path, reading: Reading) -> Iterator[Pick]:
    """The picks of every event; a phase is that of the arrival of the preferred origin, else the hint of the pick.

    Automatic picks have the trust of automatic ones; rejected picks and those of no station are counted and left out.
    Raises ConfigError where obspy is missing or cannot read the file.
    """
    try:
        from obspy import read_events
    except ModuleNotFoundError as error:
        raise ConfigError(f"{path}: QuakeML is read by obspy: pip install 'onset[obspy]'") from error
    try:
        events = read_events(str(path), format="QUAKEML")
    except Exception as error:  # obspy raises what its parsers raise
        raise ConfigError(f"{path}: cannot be read as QuakeML ({type(error).__name__}: {error})") from error
    for event in events:
        yield from _picks_of(event, reading)


def _picks_of(event: Any, reading: Reading) -> Iterator[Pick]:
    origin = event.preferred_origin() or next(iter(event.origins), None)
    arrivals = {str(a.pick_id): a.phase for a in (origin.arrivals if origin else ()) if a.phase}
    for pick in event.picks:
        name = arrivals.get(str(pick.resource_id)) or pick.phase_hint or ""
        phase, where = phase_of(name), pick.waveform_id
        if pick.evaluation_status == "rejected":
            reading.skip(BadTrace(f"{pick.resource_id}: rejected", "picks that were rejected"))
        elif where is None or not where.network_code or not where.station_code or pick.time is None:
            reading.skip(BadTrace(f"{pick.resource_id}: of no station", "picks without a station or a time"))
        elif phase is None:
            reading.skip(unknown_phase(name))
        else:
            status = AUTOMATIC if pick.evaluation_mode == "automatic" else MANUAL
            location = where.location_code
            yield Pick(
                network=where.network_code,
                station=where.station_code,
                location=location.replace("-", "") if location else None,
                channel=where.channel_code or "",
                phase=phase,
                time_ns=pick.time.ns,
                weight=STATUS_WEIGHTS[status],
                status=status,
                event=str(event.resource_id),
            )
