"""A replay server as a process that comes back after a kill as if it had never been away.

    python benchmarks/rig_server.py PORT FOLDER SPEED BEGAN_S [--shaken | --spread] [--faults FILE]

It is ``streamer.replay.ReplayServer`` over the miniSEED of FOLDER, its clock set to the moment BEGAN_S (Unix time) of
the first start: what was due since then lies in its rings, under the same sequence numbers. It prints ``ready`` when
they are filled and ``ended`` after the last record. ``--shaken`` delays, mixes up and repeats records, within bounds;
``--spread`` makes each station late by a second or less, so that they do not all send at once.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
from chaos_data import Fault, faulty, read_faults

from streamer.replay import ReplayServer, ReplaySettings
from streamer.replay.settings import Delay
from streamer.replay.source import RecordReader, SourceRecord
from streamer.replay.timeline import Timeline, TimelineStation

JITTER_S = 2.0
EAST_LATE_S = 2.0
REPEATED = 0.1
"""Share of the records that come twice."""
REPEATED_AFTER_S = 5.0


def main() -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("speed", type=float)
    parser.add_argument("began_s", type=float)
    parser.add_argument("--shaken", action="store_true")
    parser.add_argument("--spread", action="store_true")
    parser.add_argument("--faults", type=Path)
    options = parser.parse_args()
    asyncio.run(_serve(options))
    return 0


async def _serve(options: argparse.Namespace) -> None:
    settings = ReplaySettings.model_validate(
        {
            "paths": (options.folder,),
            "port": options.port,
            "speed": options.speed,
            "wait_for_client": True,
            "ring_packets": 1 << 14,
            "delays": _delays(options),
            "jitter_s": JITTER_S if options.shaken else 0.0,
            "reorder": options.shaken,
            "seed": 1,
        }
    )
    faults = read_faults(options.faults) if options.faults else []
    async with ReplayServer(settings) as server:
        timeline = with_faults(server.timeline, faults)
        if options.shaken:
            timeline = repeated(timeline)
        server.timeline = ahead(timeline, (time.time() - options.began_s) * options.speed)
        due = sum(int(np.count_nonzero(station.release_ns <= 0)) for station in server.timeline.stations)
        server.begin()
        while server.counters.records < due:  # noqa: ASYNC110 (the server has no event for it)
            await asyncio.sleep(0.01)
        print(f"ready: {due} of {len(server.timeline)} records are due", flush=True)
        await server.wait_ended()
        print("ended", flush=True)
        await asyncio.Event().wait()


def _delays(options: argparse.Namespace) -> tuple[Delay, ...]:
    if options.spread:
        return (Delay(pattern="*", low_s=0.0, high_s=1.0),)
    return (Delay(pattern="*_E", low_s=0.0, high_s=EAST_LATE_S),) if options.shaken else ()


def ahead(timeline: Timeline, data_s: float) -> Timeline:
    """``timeline`` as if its replay had begun ``data_s`` of data earlier."""
    lead_ns = round(data_s * 1e9)
    return dataclasses.replace(
        timeline,
        stations=tuple(
            dataclasses.replace(station, release_ns=station.release_ns - lead_ns) for station in timeline.stations
        ),
    )


def repeated(timeline: Timeline) -> Timeline:
    """``timeline`` in which a share of the records come again some seconds later, the same ones at each start."""

    def again(station: TimelineStation, seed: int) -> TimelineStation:
        twice = np.random.default_rng(seed).random(len(station.order)) < REPEATED
        order = np.concatenate([station.order, station.order[twice]])
        release_ns = np.concatenate([station.release_ns, station.release_ns[twice] + round(REPEATED_AFTER_S * 1e9)])
        sorting = np.argsort(release_ns, kind="stable")
        return dataclasses.replace(station, order=order[sorting], release_ns=release_ns[sorting])

    stations = tuple(again(station, number) for number, station in enumerate(timeline.stations))
    return dataclasses.replace(timeline, stations=stations)


def with_faults(timeline: Timeline, faults: list[Fault]) -> Timeline:
    """``timeline`` whose records are damaged as ``faults`` say, each at its old time."""
    if not faults:
        return timeline
    reader = RecordReader()

    def damaged(station: TimelineStation) -> TimelineStation:
        mine = [fault for fault in faults if fault.station == station.station]
        records: list[SourceRecord] = []
        release_ns: list[int] = []
        for due_ns, index in zip(station.release_ns, station.order, strict=True):
            record = station.records[index]
            fault = next((one for one in mine if one.hits(record, timeline.start_ns)), None)
            pieces = [record] if fault is None else faulty(fault, record, reader.read(record))
            records += pieces
            release_ns += [int(due_ns)] * len(pieces)
        order = np.arange(len(records))
        return dataclasses.replace(station, records=records, order=order, release_ns=np.array(release_ns))

    try:
        return dataclasses.replace(timeline, stations=tuple(map(damaged, timeline.stations)))
    finally:
        reader.close()


if __name__ == "__main__":
    sys.exit(main())
