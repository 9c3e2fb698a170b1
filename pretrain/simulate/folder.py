"""Writing recordings as a data set in SeisBench's format.

Format: https://seisbench.readthedocs.io/en/stable/pages/data_format.html. Records lie in blocks, ``data/bucketN``, as
float32: whole counts of 24 bits are exact in it, and lost samples are NaN. A row of the metadata describes the first
event of its record; what is specific to a simulation has names of its own.
"""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.errors import ConfigError
from pretrain.data.trace import COMPONENTS, RATE_HZ
from pretrain.simulate.recording import Recording

BLOCK = 256
"""Records in one array of the file."""
_START = datetime(2000, 1, 1)
FORMAT = {
    "dimension_order": "CW",
    "component_order": COMPONENTS,
    "sampling_rate": RATE_HZ,
    "unit": "counts",
    "instrument_response": "not restituted",
}


def describe(recording: Recording) -> dict[str, Any]:
    """The row of a recording, without its ``trace_name``."""
    trace, instrument = recording.trace, recording.station.instrument
    start = _START + timedelta(hours=recording.index)
    row: dict[str, Any] = {
        "split": trace.split,
        "trace_sampling_rate_hz": RATE_HZ,
        "trace_component_order": COMPONENTS,
        "trace_npts": trace.samples,
        "trace_start_time": start.isoformat(timespec="milliseconds"),
        "trace_channel": instrument.channel,
        "trace_category": "noise" if trace.status == "noise" else "earthquake_local",
        "trace_p_status": trace.status,
        "station_network_code": "XX",
        "station_code": f"S{recording.index % 10000:04d}",
        "station_instrument": instrument.name,
        "source_id": trace.group,
        "data_source": trace.source,
        "trace_p_arrival_sample": trace.p_sample,
        "trace_s_arrival_sample": trace.s_sample,
    }
    for phase in "PS":
        doubtful = (label.sample for label in trace.doubtful if label.phase == phase)
        row[f"trace_{phase.lower()}_doubtful_sample"] = next(doubtful, None)
    return row | _event(recording, start)


def _event(recording: Recording, start: datetime) -> dict[str, Any]:
    """What is known of the first event; nothing but the keys where there is none."""
    keys = [
        "source_origin_time",
        "source_magnitude",
        "source_magnitude_type",
        "source_depth_km",
        "source_stress_drop_mpa",
    ]
    keys += ["path_ep_distance_km", "path_azimuth_deg", "path_back_azimuth_deg", "path_p_travel_s", "path_s_travel_s"]
    keys += ["trace_snr_db", "trace_s_snr_db"]
    if not recording.events:
        return dict.fromkeys(keys)
    seen = recording.events[0]
    event, geometry = seen.event, seen.event.geometry
    origin = start + timedelta(seconds=seen.onset["P"] / RATE_HZ - event.time_s("P"))
    azimuth = math.degrees(geometry.azimuth)
    values = [origin.isoformat(timespec="milliseconds"), round(event.source.magnitude, 2), "mw", geometry.depth_km]
    values += [event.source.stress_drop_pa / 1e6, geometry.distance_km, azimuth, (azimuth + 180) % 360]
    values += [event.time_s("P"), event.time_s("S"), *(_decibel(seen.snr[phase]) for phase in "PS")]
    rounded = (round(value, 3) if isinstance(value, float) else value for value in values)
    return dict(zip(keys, rounded, strict=True))


def _decibel(ratio: float) -> float | None:
    return 20 * math.log10(ratio) if ratio > 0 else None


def write_folder(folder: Path, records: Iterable[tuple[dict[str, Any], NDArray[np.float32]]]) -> int:
    """Write rows and waveforms (3, N) whole or not at all; returns how many. Raises ConfigError where it is there."""
    import h5py

    if folder.exists():
        raise ConfigError(f"{folder}: is there already; remove it or choose another name")
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    with h5py.File(partial / "waveforms.hdf5", "w") as file:
        for key, value in FORMAT.items():
            file[f"data_format/{key}"] = value
        block: list[NDArray[np.float32]] = []
        for row, waveform in records:
            bucket = len(rows) // BLOCK
            rows.append({"trace_name": f"bucket{bucket}${len(block)},:3,:{waveform.shape[1]}", **row})
            block.append(waveform)
            if len(block) == BLOCK:
                _store(file, bucket, block)
        if block:
            _store(file, (len(rows) - 1) // BLOCK, block)
    with (partial / "metadata.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, list(rows[0]) if rows else ["trace_name"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.rename(folder)
    return len(rows)


def _store(file: Any, bucket: int, block: list[NDArray[np.float32]]) -> None:
    """Write a block and empty it."""
    data = np.stack(block)
    file.create_dataset(
        f"data/bucket{bucket}",
        data=data,
        chunks=(1, *data.shape[1:]),
        shuffle=True,
        compression="gzip",
        compression_opts=1,
    )
    block.clear()
