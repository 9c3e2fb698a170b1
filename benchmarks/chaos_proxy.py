"""A TCP proxy between two processes that can go silent without closing anything, as a dead router does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

from rig import HOST


class Proxy:
    """Forwards connections to ``upstream``: ``async with Proxy(upstream) as proxy: proxy.port``."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.admits = True
        """Whether new connections are passed on; others are closed at once, as a host without a server does."""
        self.connections = 0
        self._silenced: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """Port that is listened on."""
        return int(self._server.sockets[0].getsockname()[1])

    def go_silent(self) -> int:
        """Stop forwarding on every connection there is, closing none; new ones work. Returns how many."""
        alive = {task for task in self._tasks if not task.done()}
        fresh = alive - self._silenced
        self._silenced |= fresh
        return len(fresh)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        with suppress(OSError, asyncio.CancelledError):
            if self.admits:
                await self._serve(task, reader, writer)
        writer.transport.abort()

    async def _serve(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        there, back = await asyncio.open_connection(HOST, self.upstream)
        ways = [asyncio.create_task(self._forward(task, *way)) for way in ((reader, back), (there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            back.transport.abort()

    async def _forward(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Until the end of ``reader``; what comes after ``go_silent`` is read by nobody."""
        while data := await reader.read(65536):
            if task in self._silenced:
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()
