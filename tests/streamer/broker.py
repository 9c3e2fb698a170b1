"""Real MQTT brokers for tests, each a process on its own free port: Mosquitto and amqtt. And a hostile one."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

# Its own process also because amqtt leaves streams unclosed behind, which is an error where warnings are.
AMQTT = """
import asyncio, sys
from amqtt.broker import Broker
async def main():
    await Broker({
        "listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:" + sys.argv[1]}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }).start()
    await asyncio.Event().wait()
asyncio.run(main())
"""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class BrokerProcess:
    """A broker that may be started, killed and started again on the same port."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self.port = port
        self._command, self._log = command, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"broker did not start: {self._log.read_text()}")

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=5)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def mosquitto(folder: Path, lines: str = "") -> BrokerProcess:
    """A Mosquitto for MQTT 5 and 3.1.1, not started; ``lines`` are added to its configuration."""
    assert MOSQUITTO is not None
    port = free_port()
    config = folder / f"mosquitto-{port}.conf"
    anonymous = "" if "password_file" in lines else "allow_anonymous true\n"
    config.write_text(f"user {getpass.getuser()}\n{anonymous}listener {port} 127.0.0.1\n{lines}", encoding="utf-8")
    return BrokerProcess([MOSQUITTO, "-c", str(config)], port, config.with_suffix(".log"))


def amqtt(folder: Path) -> BrokerProcess:
    """An amqtt (MQTT 3.1.1), not started."""
    port = free_port()
    return BrokerProcess([sys.executable, "-c", AMQTT, str(port)], port, folder / f"amqtt-{port}.log")


@contextlib.asynccontextmanager
async def silent_broker() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A peer that takes every MQTT 3.1.1 connection, acknowledges its first publication, and is silent ever after.

    Yields its port and what each connection has sent, in the order of the connections.
    """
    received: list[bytes] = []
    ended: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ended.append(task)
        index = len(received)
        received.append(b"")
        writer.write(b"\x20\x02\x00\x00")  # CONNACK
        greeted = False
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                received[index] += data
                if not greeted and b'"online"' in received[index]:
                    greeted = True
                    writer.write(b"\x40\x02\x00\x01")  # PUBACK of packet identifier 1
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], received
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*ended), 5)


@contextlib.asynccontextmanager
async def flooding_broker(packet_bytes: int = 200_000_000) -> AsyncIterator[tuple[int, list[int]]]:
    """A peer that takes every connection and begins one PUBLISH of ``packet_bytes``, without end.

    Yields its port and how many bytes each connection has taken of it.
    """
    taken: list[int] = []
    length = b""
    rest = packet_bytes
    while rest:
        rest, low = divmod(rest, 128)
        length += bytes([low | (0x80 if rest else 0)])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        index = len(taken)
        taken.append(0)
        with contextlib.suppress(ConnectionError):
            await reader.read(65536)
            writer.write(b"\x20\x02\x00\x00" + b"\x30" + length)
            while taken[index] < packet_bytes:
                writer.write(bytes(65536))
                await writer.drain()
                taken[index] += 65536
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], taken
    finally:
        server.close()
        await server.wait_closed()
