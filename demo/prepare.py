"""Writes the demo's records as miniSEED: ``python -m demo.prepare [FOLDER]``, by default demo/out/data.

Each file holds one source of demo/records.py, moved onto the demo's timeline, as 512-byte miniSEED 2 records (Steim2,
int32) of one second each, as digitisers send that are set to low latency: a full record of 50 Hz data would hold back
the first samples for eight seconds.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from obspy import Trace, UTCDateTime

from demo.records import LEAD_IN_S, SOURCES, Served, load

OUT = Path(__file__).parent / "out"
RECORD_BYTES = 512
RECORD_S = 1.0


def prepare(folder: Path) -> list[Served]:
    """Write the files of all sources into ``folder``, in place of the miniSEED there; raises FileNotFoundError."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.mseed"):
        old.unlink()
    served = [load(source) for source in SOURCES]
    for one in served:
        _path(folder, one).write_bytes(encode(one))
    return served


def encode(served: Served) -> bytes:
    """miniSEED of one source in the order in which a digitiser would send it."""
    records = [record for trace in served.stream for record in _records(trace, served.shift_ns)]
    return b"".join(data for _, data in sorted(records, key=lambda record: record[0]))


def _records(trace: Trace, shift_ns: int) -> list[tuple[int, bytes]]:
    """End time (int ns UTC) and bytes of every second of a trace."""
    step = round(RECORD_S * trace.stats.sampling_rate)
    names = ("network", "station", "location", "channel", "sampling_rate")
    codes = {name: trace.stats[name] for name in names}
    records = []
    for first in range(0, trace.stats.npts, step):
        start_ns = _microsecond(trace.stats.starttime.ns + round(first * 1e9 / trace.stats.sampling_rate)) + shift_ns
        second = Trace(trace.data[first : first + step].copy(), {**codes, "starttime": UTCDateTime(ns=start_ns)})
        buffer = io.BytesIO()
        second.write(buffer, format="MSEED", encoding="STEIM2", reclen=RECORD_BYTES, byteorder=">")
        end_ns = start_ns + round(second.stats.npts * 1e9 / trace.stats.sampling_rate)
        records.append((end_ns, buffer.getvalue()))
    return records


def _microsecond(time_ns: int) -> int:
    """Whole microseconds, which is what miniSEED 2 can say."""
    return round(time_ns / 1000) * 1000


def _path(folder: Path, served: Served) -> Path:
    return folder / f"{served.source.key}.mseed"


def main() -> None:
    """Write the files and say what they hold."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT / "data"
    for one in prepare(folder):
        stations = sorted({f"{trace.stats.network}.{trace.stats.station}" for trace in one.stream})
        print(f"{_path(folder, one)}: {one.source.name} ({' '.join(stations)})")
        print(f"    recorded {one.stream[0].stats.starttime}, served {one.shift_ns / 1e9:+.0f} s", end="")
        print(f", {one.source.note}" if one.source.note else "")
        if one.source.lead_in_s < LEAD_IN_S:
            print(f"    only {one.source.lead_in_s} s before the first onset: the model's normalisation has just begun")


if __name__ == "__main__":
    main()
