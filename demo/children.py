"""The demo's other processes: started with a log file each, watched, and always ended."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"
READY_S = 20.0
"""Time that a process has to open its port."""
STOP_S = 8.0
"""Time that a process has to end after SIGTERM."""


class DemoError(Exception):
    """The demo cannot go on: its text says what failed and where to look."""


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Child:
    """A process with a log file. As an async context manager it is ended on the way out, whatever happened."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path) -> None:
        self.name, self.log = name, log
        self._command = [str(part) for part in command]

    async def __aenter__(self) -> Self:
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the demo alone, which then ends its children in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def ready(self, port: int) -> None:
        """Wait until somebody listens on ``port``; raises DemoError where the process ends or takes too long."""
        for _ in range(round(READY_S / 0.05)):
            if self._process.returncode is not None:
                raise self.failure()
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
        raise DemoError(f"{self.name} does not listen on {HOST}:{port} after {READY_S:.0f} s: see {self.log}")

    async def wait(self) -> int:
        """Wait for the end of the process; its exit status."""
        return await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM, and SIGKILL where that does not help; its exit status."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        return await self._process.wait()

    def failure(self) -> DemoError:
        """What to say about a process that ended when it should not have."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = "".join(f"\n    {line}" for line in lines[-5:])
        status = self._process.returncode
        return DemoError(f"{self.name} ended with status {status}: see {self.log}, which ends with{said or ' nothing'}")


def python(module: str, *arguments: str | Path) -> list[str | Path]:
    """Command that runs a module of this environment."""
    return [sys.executable, "-m", module, *arguments]


class Broker:
    """An MQTT broker on ``port``: Mosquitto where it is installed, else amqtt in this process (MQTT 3.1.1).

    An async context manager; ``protocol`` is the version of MQTT that it speaks, ``name`` is for people.
    """

    def __init__(self, out: Path, port: int) -> None:
        self._out, self._port = out, port
        self._mosquitto = find_mosquitto()
        self.protocol = "5" if self._mosquitto else "3.1.1"
        self.name = "Mosquitto" if self._mosquitto else "amqtt, in this process"

    async def __aenter__(self) -> Self:
        if self._mosquitto:
            await self._start_mosquitto(self._mosquitto)
        else:
            await self._start_amqtt()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mosquitto:
            await self._child.stop()
        else:
            await self._broker.shutdown()

    async def _start_mosquitto(self, program: str) -> None:
        settings = self._out / "mosquitto.conf"
        settings.write_text(
            f"listener {self._port} {HOST}\nallow_anonymous true\npersistence false\nlog_dest stderr\n",
            encoding="utf-8",
        )
        self._child = Child("the MQTT broker (Mosquitto)", [program, "-c", settings], self._out / "broker.log")
        await self._child.__aenter__()
        try:
            await self._child.ready(self._port)
        except BaseException:
            await self._child.stop()
            raise

    async def _start_amqtt(self) -> None:
        import logging

        from amqtt.broker import Broker as AmqttBroker

        logging.getLogger("amqtt").setLevel(logging.ERROR)
        logging.getLogger("transitions").setLevel(logging.ERROR)
        self._broker: Any = AmqttBroker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{self._port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await self._broker.start()


def find_mosquitto() -> str | None:
    """Path of Mosquitto; Debian keeps it in a folder that is not on every user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
