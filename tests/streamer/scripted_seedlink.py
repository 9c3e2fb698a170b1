"""A SeedLink server that takes every subscription and then does what the test says, for what no good server does."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

RECORD_BYTES = 512


@dataclass
class Client:
    """One connection: the commands that the client has sent, and packets to it."""

    version: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    commands: list[str] = field(default_factory=list)
    info: Callable[[], bytes] | None = None
    refuse: tuple[str, ...] = ()
    refusal: bytes = b""

    async def subscribe(self) -> None:
        """Answer commands until END."""
        while True:
            line = await self.line()
            self.commands.append(line)
            match line.split()[0]:
                case "HELLO":
                    self.writer.write(f"scripted 1 :: SLPROTO:{self.version}.0 TIME\r\nTest\r\n".encode())
                case "END":
                    return
                case "INFO":
                    self.writer.write(self.info() if self.info is not None else b"ERROR UNSUPPORTED no list\r\n")
                case _ if line.startswith(self.refuse):
                    self.writer.write(self.refusal)
                case _:
                    self.writer.write(b"OK\r\n")

    async def line(self) -> str:
        """The next command."""
        line = b""
        while not line.endswith((b"\r", b"\n")):
            byte = await self.reader.readexactly(1)
            line = (line + byte).lstrip(b"\r\n") if byte in b"\r\n" and not line else line + byte
        return line.decode().strip()

    def send(self, sequence: int, payload: bytes, station: bytes = b"XX_ONE", kind: bytes = b"2D") -> None:
        """One packet."""
        if self.version == 3:
            self.writer.write(b"SL%06X" % sequence + payload)
        else:
            header = struct.pack("<2s2sIQB", b"SE", kind, len(payload), sequence, len(station))
            self.writer.write(header + station + payload)


Script = Callable[[Client], Awaitable[None]]


@dataclass
class ScriptedServer:
    """Its port, and the clients so far, in order."""

    port: int
    clients: list[Client] = field(default_factory=list)


@contextlib.asynccontextmanager
async def scripted_seedlink(
    version: int,
    *scripts: Script,
    info: Callable[[], bytes] | None = None,
    refuse: tuple[str, ...] = (),
    refusal: bytes = b"ERROR ARGUMENTS no\r\n",
) -> AsyncIterator[ScriptedServer]:
    """The n-th connection runs the n-th script after its subscription, later ones the last; then it is closed.

    ``info`` makes the answer to INFO; without it there is none but an ERROR. Commands that start as one of ``refuse``
    are answered ``refusal``.
    """
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        client = Client(version, reader, writer, info=info, refuse=refuse, refusal=refusal)
        served.clients.append(client)
        script = scripts[min(len(served.clients), len(scripts)) - 1]
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await client.subscribe()
            await script(client)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()
        handlers.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    served = ScriptedServer(server.sockets[0].getsockname()[1])
    try:
        yield served
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def peer(serve: Peer, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP or TLS server that does as it likes; its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next turn


def split(data: bytes) -> list[bytes]:
    """Records of 512 bytes."""
    return [data[start : start + RECORD_BYTES] for start in range(0, len(data), RECORD_BYTES)]


def play(payloads: Sequence[bytes], then: Script | None = None) -> Script:
    """Send ``payloads`` with sequences from 1, then do ``then``; the default is to stay silent for ever."""

    async def script(client: Client) -> None:
        for sequence, payload in enumerate(payloads, 1):
            client.send(sequence, payload)
            await client.writer.drain()
        await (then or silence)(client)

    return script


async def silence(_: Client) -> None:
    """Neither send nor close."""
    await asyncio.Event().wait()


async def close(_: Client) -> None:
    """Close the connection at once."""
