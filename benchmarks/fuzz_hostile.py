"""Hostile peers: SeedLink servers and an MQTT broker that send what would fill a careless client's memory, or stall it.

python benchmarks/fuzz_hostile.py NAME PORT        a process that is one of them until it is killed
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress

from rig import HOST
from rig_peer import V4_HEADER

BLOCK = 65536
MOST_READ = 1 << 20


async def endless_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer to HELLO that never ends."""
    await _send(writer, b"x" * BLOCK)


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Random bytes as fast as they are taken."""
    chance = random.Random(1)
    await _send(writer, chance.randbytes(BLOCK))


async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and then, never a whole line."""
    while True:
        writer.write(b"S")
        await writer.drain()
        await asyncio.sleep(0.5)


async def oversized(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """After an honest greeting a packet that says it is 4 GB long, and begins to be."""
    await _greet(reader, writer)
    writer.write(V4_HEADER.pack(b"SE", b"2D", 0xFFFFFFFF, 1, 6) + b"XX_ONE")
    await _send(writer, bytes(BLOCK))


async def endless_list(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A list of stations without end, in packets of 64 kB."""
    await _greet(reader, writer, until=b"INFO")
    await _send(writer, V4_HEADER.pack(b"SE", b"JI", BLOCK, 0, 0) + b"[" * BLOCK)


async def many_small(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Packets that hold one byte, of a new station each time."""
    await _greet(reader, writer)
    number = 0
    while True:
        names = (b"XX_S%07d" % (number + turn) for turn in range(1000))
        writer.write(b"".join(V4_HEADER.pack(b"SE", b"2D", 1, number, len(name)) + name + b"x" for name in names))
        await writer.drain()
        number += 1000


async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the connection, then publishes messages of 200 MB that never end, and acknowledges nothing."""
    await reader.read(BLOCK)
    writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK of MQTT 5
    writer.write(b"\x30\xff\xff\xff\x5f\x00\x01a")  # PUBLISH to "a", remaining length 200 MB
    await _send(writer, bytes(BLOCK))


SEEDLINK = {
    "endless_line": endless_line,
    "garbage": garbage,
    "slow": slow,
    "oversized": oversized,
    "endless_list": endless_list,
    "many_small": many_small,
}


async def _send(writer: asyncio.StreamWriter, block: bytes) -> None:
    while True:
        writer.write(block)
        await writer.drain()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, until: bytes = b"END") -> None:
    """Answer honestly up to a command."""
    while True:
        line = (await reader.readuntil(b"\r")).strip().upper()
        if line.startswith(until):
            return
        if line.startswith(b"HELLO"):
            writer.write(b"rig 1 :: SLPROTO:4.0 TIME\r\nhostile\r\n")
        elif line.startswith(b"INFO"):
            writer.write(b"ERROR UNSUPPORTED no list\r\n")
        else:
            writer.write(b"OK\r\n")


async def _serve(name: str, port: int) -> None:
    behave = broker if name == "broker" else SEEDLINK[name]

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await behave(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(accept, HOST, port)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
