"""The work of ``fuzz.py``, in a process of its own so that a crash can be told: mutate, decode, compare."""

from __future__ import annotations

import asyncio
import faulthandler
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from fuzz_mutate import mutated, mutated_header, same_length, seeds
from pymseed import MS3Record, PymseedError
from rig import HOST
from rig_peer import packet, peer

from streamer.decode import decode_each
from streamer.errors import BadRecord
from streamer.metrics import Metrics
from streamer.record import Record
from streamer.replay.rewrite import crc32c
from streamer.seedlink import SeedLinkReader
from streamer.seedlink_settings import SeedLinkSettings, Selection

HANG_S = 20.0
"""A record or a connection that takes longer is a hang: the process ends with the place where it stood."""
PACKETS_A_CONNECTION = 50
STATION = b"XX_ONE"


def main() -> int:
    """``KIND VERSION SEED COUNT FILE``: what was found goes to stdout as JSON; FILE holds the number in hand."""
    kind, version, seed, count, file = sys.argv[1:]
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    hand = os.open(file, os.O_RDWR | os.O_CREAT)
    work = fuzz_records if kind == "records" else fuzz_packets
    found = work(int(version), int(seed), int(count), hand)
    print(json.dumps(found))
    return 0


def _guard(hand: int, number: int) -> None:
    os.pwrite(hand, b"%12d" % number, 0)


def fuzz_records(version: int, seed: int, count: int, hand: int) -> dict[str, Any]:
    """Mutated records through ``decode_each``."""
    chance, sound = random.Random(seed), seeds(version)
    found: Counter[str] = Counter()
    slowest_s = 0.0
    for number in range(count):
        _guard(hand, number)
        if number % 100 == 0:
            faulthandler.dump_traceback_later(HANG_S, exit=True)
        data = mutated(chance.choice(sound), chance, sound)
        begun_s = time.perf_counter()
        items = list(decode_each(data))
        slowest_s = max(slowest_s, time.perf_counter() - begun_s)
        records = [item for item in items if isinstance(item, Record)]
        found.update(item.reason for item in items if isinstance(item, BadRecord))
        found["accepted"] += bool(records)
        found["wrong"] += sum(one not in truth(data) for one in map(fingerprint, records)) if records else 0
    faulthandler.cancel_dump_traceback_later()
    return {"items": count, "found": dict(found), "slowest_s": slowest_s}


def fingerprint(record: Record) -> tuple[int, int, float, str]:
    """What a record says: first time, number of samples, rate, digest of the samples."""
    digest = hashlib.blake2b(record.samples.tobytes(), digest_size=12).hexdigest()
    return record.start_ns, len(record.samples), record.sampling_rate_hz, digest


def truth(data: bytes) -> set[tuple[int, int, float, str]]:
    """The same of every record that these bytes hold, by pymseed alone, and for miniSEED 3 by the checksum too."""
    return set(_truth(data))


def _truth(data: bytes) -> Iterator[tuple[int, int, float, str]]:
    records = MS3Record.from_buffer(data, unpack_data=True)
    while True:
        try:
            record = next(records, None)
        except (PymseedError, ValueError, BufferError):
            return
        if record is None:
            return
        if record.formatversion == 3 and not _checksum_holds(bytes(record.record)):
            continue
        if record.numsamples == record.samplecnt > 0:
            digest = hashlib.blake2b(record.np_datasamples.tobytes(), digest_size=12).hexdigest()
            yield int(record.starttime), int(record.samplecnt), float(record.samprate), digest


def _checksum_holds(record: bytes) -> bool:
    return crc32c(record[:28] + bytes(4) + record[32:]) == int.from_bytes(record[28:32], "little")


def fuzz_packets(version: int, seed: int, count: int, hand: int) -> dict[str, Any]:
    """Mutated packets through a socket, the client and the decoder, as the daemon reads them."""
    return asyncio.run(_fuzz_packets(version, seed, count, hand))


async def _fuzz_packets(version: int, seed: int, count: int, hand: int) -> dict[str, Any]:
    chance, sound = random.Random(seed), [one for one in seeds(2) if len(one) == 512]
    if version == 4:
        sound += seeds(3)
    metrics, found, sent = Metrics(), Counter[str](), 0
    slowest_s = 0.0
    batch: list[bytes] = []

    async def feed(writer: Any) -> None:
        for piece in batch:
            writer.write(piece)
        await writer.drain()

    async with peer(version, feed) as port:
        while sent < count:
            _guard(hand, sent)
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            batch, known = _batch(version, chance, sound)
            begun_s = time.perf_counter()
            got = await asyncio.wait_for(_read(version, port, metrics), HANG_S)
            slowest_s = max(slowest_s, time.perf_counter() - begun_s)
            sent += len(batch)
            found["accepted"] += len(got)
            found["wrong"] += sum(fingerprint(one) not in known for one in got)
    faulthandler.cancel_dump_traceback_later()
    found["packets_read"] = int(metrics.packets.labels(f"{HOST}:{port}")._value.get())
    return {"items": sent, "found": dict(found), "slowest_s": slowest_s}


def _batch(
    version: int, chance: random.Random, sound: list[bytes]
) -> tuple[list[bytes], set[tuple[int, int, float, str]]]:
    """Packets of one connection, the last with a wrong header, and what their payloads hold."""
    pieces: list[bytes] = []
    known: set[tuple[int, int, float, str]] = set()
    last = PACKETS_A_CONNECTION - 1
    for number in range(last + 1):
        original = chance.choice(sound)
        payload = (mutated if version == 4 else same_length)(original, chance, sound)
        known |= truth(payload) | truth(original)
        kind = b"3D" if payload[:2] == b"MS" else b"2D"
        piece = packet(version, number + 1, payload, STATION, kind)
        spoilt = number == last and chance.random() < 0.5
        pieces.append(mutated_header(piece, version, chance) if spoilt else piece)
    return pieces, known


async def _read(version: int, port: int, metrics: Metrics) -> list[Record]:
    """All records of one connection, by the daemon's own reader."""
    got: list[Record] = []

    async def deliver(record: Record, received_ns: int, origin: object) -> None:
        got.append(record)

    async def no_more(delay_s: float) -> None:
        reader.stop()
        await asyncio.sleep(0)  # here the cancellation arrives

    settings = SeedLinkSettings(
        host=HOST, port=port, protocol="3" if version == 3 else "4", idle_timeout_s=5.0,
        streams=(Selection(network="XX", station="ONE", channels=("HH?",)),),
    )  # fmt: skip
    reader = SeedLinkReader(settings, deliver, metrics, sleep=no_more)
    await reader.run()
    return got


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(main())
