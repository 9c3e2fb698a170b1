"""What the tests of health and watchdog share: a daemon whose engine is under control, its endpoint, its manager."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np

from picker.bundle import load_bundle
from picker.stepper import OnnxStepper, State
from streamer.daemon import Daemon
from streamer.outbox import Outbox
from streamer.settings import load_settings


class HeldStepper(OnnxStepper):
    """The real engine, whose calls hang while ``free`` is not set."""

    free: threading.Event

    def step(self, chunk: np.ndarray, valid: np.ndarray, reset: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """See Stepper."""
        assert self.free.wait(30)
        return super().step(chunk, valid, reset, state)


def make_daemon(config: Path, outbox: Outbox | None = None) -> tuple[Daemon, threading.Event]:
    """A daemon that is not yet running, and the event that lets its engine work."""
    settings = load_settings(config)
    bundle = load_bundle(settings.bundle.path)
    stepper = HeldStepper(bundle)
    stepper.free = threading.Event()
    stepper.free.set()
    return Daemon(settings, bundle, stepper, outbox=outbox), stepper.free


@contextlib.asynccontextmanager
async def running(daemon: Daemon) -> AsyncIterator[None]:
    """It runs while the context lasts, and serves when it begins."""
    stop, serving = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(daemon.run(stop, serving.set))
    try:
        await asyncio.wait_for(serving.wait(), 10)
        yield
    finally:
        stop.set()
        await task


def fetch(port: int, path: str = "/healthz") -> tuple[int, dict[str, Any]]:
    """Status and body of what the endpoint answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())


async def health(port: int) -> tuple[int, dict[str, Any]]:
    """The same without holding up the event loop."""
    return await asyncio.to_thread(fetch, port)


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Manager:
    """A service manager: the socket at NOTIFY_SOCKET and what it has heard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def heard(self) -> list[str]:
        """What has come since the last call."""
        words = []
        with contextlib.suppress(BlockingIOError):
            while True:
                words.append(self._socket.recv(256).decode())
        return words

    async def feeding(self, timeout_s: float = 10.0) -> None:
        """Wait for the next feeding."""
        await until(lambda: "WATCHDOG=1" in self.heard(), timeout_s)
