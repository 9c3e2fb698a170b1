"""Mutations of miniSEED records and SeedLink packets, drawn from a seed: the same seed gives the same bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

import numpy as np
from pymseed import DataEncoding, MS3Record
from rig_peer import V4_HEADER
from rig_waves import RATE_HZ, SECOND_NS, waveforms

START_NS = 1_700_000_000 * SECOND_NS
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ENCODINGS = {
    DataEncoding.STEIM2: np.int32,
    DataEncoding.STEIM1: np.int32,
    DataEncoding.INT32: np.int32,
    DataEncoding.FLOAT32: np.float32,
    DataEncoding.FLOAT64: np.float64,
}
HEADER_BYTES = 64
"""About as much as is header: most mutations go there."""


def seeds(version: int) -> list[bytes]:
    """Sound records of 512 bytes, of every encoding that a station may use."""
    counts = waveforms(60.0, [20.0, 40.0], seed=version)[0]
    out: list[bytes] = []
    for encoding, kind in ENCODINGS.items():
        template = MS3Record(reclen=512, encoding=encoding)
        template.sourceid, template.formatversion, template.samprate = "FDSN:XX_ONE__H_H_Z", version, float(RATE_HZ)
        template.starttime = START_NS
        code = {"int32": "i", "float32": "f", "float64": "d"}[np.dtype(kind).name]
        out += list(template.generate(counts.astype(kind), code))[:4]
    return out


def mutated(record: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """``record`` with one to four mutations of any kind."""
    out = bytearray(record)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        _mutate(out, chance, others)
    return bytes(out)


def same_length(record: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """The same, cut or padded to the length of ``record``: what a packet of SeedLink 3 can carry."""
    return mutated(record, chance, others)[: len(record)].ljust(len(record), b"\0")


def _place(out: bytearray, chance: random.Random) -> int:
    last = min(len(out), HEADER_BYTES) if chance.random() < 0.7 else len(out)
    return chance.randrange(max(1, last))


def _mutate(out: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    if not out:
        return
    place = _place(out, chance)
    match chance.randrange(8):
        case 0:
            out[place] ^= 1 << chance.randrange(8)
        case 1:
            out[place] = chance.randrange(256)
        case 2:
            layout = chance.choice(("<B", ">H", "<H", ">I", "<I"))
            size = struct.calcsize(layout)
            place = min(place, max(0, len(out) - size))
            out[place : place + size] = struct.pack(layout, chance.choice(NUMBERS) % (1 << 8 * size))
        case 3:
            del out[chance.randrange(len(out)) :]
        case 4:
            out += chance.randbytes(chance.randrange(1, 600))
        case 5:
            del out[place : place + chance.randrange(1, 32)]
        case 6:
            other = chance.choice(others)
            out[place:] = other[place:]
        case _:
            out[place : place + 16] = chance.randbytes(16)


def mutated_header(packet: bytes, version: int, chance: random.Random) -> bytes:
    """A SeedLink packet with a wrong header: signature, sequence, lengths, station; or cut short."""
    header_bytes = 8 if version == 3 else V4_HEADER.size + 6
    out = bytearray(packet)
    match chance.randrange(4):
        case 0:
            out[chance.randrange(header_bytes)] = chance.randrange(256)
        case 1:
            out[chance.randrange(header_bytes)] ^= 1 << chance.randrange(8)
        case 2:
            del out[chance.randrange(1, len(out)) :]
        case _:
            place = 4 if version == 4 else 2
            out[place : place + 4] = struct.pack("<I", chance.choice(NUMBERS))
    return bytes(out)
