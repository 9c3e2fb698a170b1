"""A small SeedLink server that sends what it is told to: for floods and for packets that no honest server sends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from rig import HOST

V4_HEADER = struct.Struct("<2s2sIQB")
V3_SEQUENCES = 1 << 24


def packet(version: int, sequence: int, payload: bytes, station: bytes, kind: bytes = b"2D") -> bytes:
    """A SeedLink packet: of version 3 (payload of 512 bytes) or 4 (SeedLink 4.0, 'packet structure')."""
    if version == 3:
        return b"SL%06X" % (sequence % V3_SEQUENCES) + payload
    return V4_HEADER.pack(b"SE", kind, len(payload), sequence, len(station)) + station + payload


Feed = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(version: int, feed: Feed, port: int = 0) -> AsyncIterator[int]:
    """Serves while the context lasts; yields its port. Each client that has subscribed gets what ``feed`` writes."""
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        task.add_done_callback(handlers.discard)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            await _subscribe(version, reader, writer)
            await feed(writer)
            await writer.drain()
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, HOST, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


async def _subscribe(version: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer commands until END."""
    while True:
        line = (await _line(reader)).upper()
        if not line:
            continue
        if line.startswith(b"HELLO"):
            writer.write(b"rig 1 :: SLPROTO:%d.0 TIME\r\nOnset rig\r\n" % version)
        elif line.startswith(b"INFO"):
            writer.write(b"ERROR UNSUPPORTED no list\r\n")
        elif line.split()[0] == b"END":
            return
        else:
            writer.write(b"OK\r\n")


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Up to CR or LF, without it."""
    line = b""
    while (byte := await reader.readexactly(1)) not in b"\r\n":
        line += byte
    return line.strip()
