"""The server of ``soak.py``: an hour of made-up data over and over, as fast as the one client takes it.

    python benchmarks/soak_server.py PORT STATIONS HOURS

SeedLink 4 with miniSEED 2. The first hour begins HOURS before now, so nothing is from the future.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import numpy as np
from pymseed import MS3Record
from rig_peer import packet, peer
from rig_waves import COMPONENTS, SECOND_NS, quakes, records, source_id, waveforms

from streamer.replay.rewrite import rewrite

HOUR_S = 3600
QUAKE_EVERY_S = 600.0
POOL = 4
"""Stations with waveforms of their own; others have the same ones."""
BEHIND_S = 60
PACKETS_A_WRITE = 32


def hour_of(samples: np.ndarray, start_ns: int) -> list[tuple[int, bytes]]:
    """Records of three components and when each ends (ns), in order."""
    found = []
    for component, line in zip(COMPONENTS, samples, strict=True):
        for record in records(line, source_id("XX", "POOL", component), start_ns):
            found.append((int(MS3Record.parse(record).endtime), record))
    return sorted(found, key=lambda one: one[0])


def packets(stations: int, hours: float, start_ns: int) -> Iterator[bytes]:
    """Every packet of the run: stations in turn, second after second."""
    pool = [hour_of(waveforms(HOUR_S, quakes(HOUR_S, QUAKE_EVERY_S, seed), seed), start_ns) for seed in range(POOL)]
    merged = sorted((end_ns, number, record) for number in range(stations) for end_ns, record in pool[number % POOL])
    names = [f"S{number + 1:03d}" for number in range(stations)]
    sequence = [1] * stations
    for hour in range(-(-int(hours * HOUR_S) // HOUR_S)):
        for end_ns, number, record in merged:
            if (end_ns - start_ns) / SECOND_NS + hour * HOUR_S > hours * HOUR_S:
                return
            payload = rewrite(record, "2", station=names[number], shift_s=hour * HOUR_S)
            yield packet(4, sequence[number], payload, b"XX_" + names[number].encode())
            sequence[number] += 1


async def _serve(port: int, stations: int, hours: float) -> None:
    start_ns = (time.time_ns() // SECOND_NS - round(hours * HOUR_S) - BEHIND_S) // 64 * 64 * SECOND_NS
    stream = packets(stations, hours, start_ns)
    first = next(stream)

    async def feed(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        for count, piece in enumerate(stream):
            writer.write(piece)
            if count % PACKETS_A_WRITE == 0:
                await writer.drain()
        await writer.drain()
        print("ended", flush=True)
        await asyncio.Event().wait()

    async with peer(4, feed, port):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
