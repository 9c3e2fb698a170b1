"""Small data sets made on the fly: SeisBench folders, miniSEED files and CSVs of machine picks."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pymseed

START_NS = 1_577_214_000_000_000_000  # 2019-12-24T19:00:00Z


def write_seisbench(
    folder: Path,
    rows: Sequence[Mapping[str, object]],
    waveforms: Mapping[str, np.ndarray],
    data_format: Mapping[str, object] | None = None,
) -> Path:
    """A folder in SeisBench format; a column that a row lacks is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    with h5py.File(folder / "waveforms.hdf5", "w") as file:
        for name, waveform in waveforms.items():
            file[f"data/{name}"] = waveform
        for key, value in (data_format or {}).items():
            file[f"data_format/{key}"] = value
    return folder


def row(name: str, p: float | None = None, s: float | None = None, **more: object) -> dict[str, object]:
    """One row of metadata at 100 Hz."""
    labels = {"trace_p_arrival_sample": "" if p is None else p, "trace_s_arrival_sample": "" if s is None else s}
    status = "noise" if p is None and s is None else "manual"
    return {
        "trace_name": name, "split": "train", "trace_sampling_rate_hz": 100.0, "trace_component_order": "ZNE",
        "trace_p_status": status, "source_id": name, "data_source": "made", **labels, **more,
    }  # fmt: skip


def noise(samples: int, seed: int = 0, level: float = 1.0) -> np.ndarray:
    """(3, N) float32 Gaussian noise."""
    return (np.random.default_rng(seed).standard_normal((3, samples)) * level).astype(np.float32)


def bump(samples: int, *peaks: tuple[int, int, float]) -> np.ndarray:
    """(3, N) zeros with triangles of half width 10 samples; a peak is (component, sample, height)."""
    out = np.zeros((3, samples), np.float32)
    for component, sample, height in peaks:
        for lag in range(-9, 10):
            out[component, sample + lag] = height * (1 - abs(lag) / 10)
    return out


def write_miniseed(path: Path, pieces: Sequence[tuple[str, int, float, np.ndarray]]) -> Path:
    """A file of segments, each a source such as ``CM_CHI_00_H_H_Z``, a start in ns, a rate in Hz and int32 samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pymseed.MS3TraceList() as traces:
        for source, start_ns, rate_hz, samples in pieces:
            traces.add_data(f"FDSN:{source}", samples.astype(np.int32), "i", rate_hz, starttime=start_ns)
        traces.to_file(str(path), overwrite=True, max_record_length=512, encoding=pymseed.DataEncoding.STEIM2)
    return path


def write_picks_csv(path: Path, picks: Sequence[tuple[str, float, float]], station: str = "CHI") -> Path:
    """Picks of CM.<station>.00, each a phase, seconds after START_NS and a probability."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("network", "station", "location", "phase", "time", "probability"))
        for phase, after_s, probability in picks:
            time = np.datetime_as_string(np.datetime64(START_NS + round(after_s * 1e9), "ns"))
            writer.writerow(("CM", station, "00", phase, time.replace("T", " "), probability))
    return path
