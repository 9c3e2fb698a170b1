"""What the daemon's tests share: data whose picks are known, settings, the daemon as a process, and a subscriber.

With the tiny bundle a pulse on the vertical is a P and one on the north component an S, at its highest sample.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import numpy as np
from pymseed import DataEncoding
from station_data import miniseed
from tiny_bundle import write_tiny_bundle

from streamer.instant import utc_ns

ROOT = Path(__file__).parents[2]
SECOND_NS = 1_000_000_000
DURATION_S = 40
P_AT_S = (12.0, 22.0, 30.0)
S_AT_S = (14.0, 24.0, 32.5)
START_NS = 1_700_000_000 * SECOND_NS
TICK_S = 0.02


def pulses(at_s: Sequence[float], rate_hz: float = 100.0) -> np.ndarray:
    """Zeros with a symmetric pulse of height 0.9 at each time; (N,) float32."""
    samples = np.zeros(round(DURATION_S * rate_hz), dtype=np.float32)
    shape = 0.9 * (1 - np.abs(np.arange(-10, 11)) / 11)
    for moment_s in at_s:
        centre = round(moment_s * rate_hz)
        samples[centre - 10 : centre + 11] = shape
    return samples


def channel(code: str, at_s: Sequence[float] = (), station: str = "ONE", start_ns: int = START_NS) -> bytes:
    """miniSEED of one channel of XX.<station>, in records of 512 bytes, about 1.1 s each."""
    return miniseed(
        pulses(at_s),
        encoding=DataEncoding.FLOAT32,
        source_id=f"FDSN:XX_{station}__{'_'.join(code)}",
        start_ns=start_ns,
    )


def three_components(station: str = "ONE", start_ns: int = START_NS) -> bytes:
    """HHZ with P, HHN with S, HHE quiet."""
    return b"".join(
        channel(code, at_s, station, start_ns) for code, at_s in (("HHZ", P_AT_S), ("HHN", S_AT_S), ("HHE", ()))
    )


def expected(
    stations: Sequence[str] = ("ONE",), phases: str = "PS", start_ns: int = START_NS
) -> set[tuple[str, str, int]]:
    """Picks of ``three_components``: station, phase, time in ns."""
    moments = {"P": P_AT_S, "S": S_AT_S}
    return {
        (station, phase, start_ns + round(moment_s * SECOND_NS))
        for station in stations
        for phase in phases
        for moment_s in moments[phase]
    }


def found(messages: Sequence[dict[str, Any]]) -> set[tuple[str, str, int]]:
    """The same of messages received, to 100 microseconds."""
    return {(m["channel"]["properties"]["station"], m["phase"], round(utc_ns(m["time"]), -5)) for m in messages}


def write_config(
    folder: Path,
    *,
    seedlink: Sequence[int],
    mqtt: int,
    more: str = "",
    server: str = "",
    channels: Sequence[str] = ("HH?",),
) -> Path:
    """Settings that read the servers at the ports ``seedlink``, with the tiny bundle beside them."""
    write_tiny_bundle(folder / "bundle")
    servers = "".join(
        f'[[seedlink]]\nhost = "127.0.0.1"\nport = {port}\n{server}'
        f'streams = [{{ network = "XX", station = "*", channels = {list(channels)} }}]\n'
        for port in seedlink
    )
    path = folder / "streamer.toml"
    path.write_text(
        f'agency = "TEST"\n[bundle]\npath = "bundle"\n{servers}[mqtt]\nhost = "127.0.0.1"\nport = {mqtt}\n'
        f'[log]\nformat = "json"\n{more}'
    )
    return path


@dataclass
class DaemonProcess:
    """``python -m streamer run`` and what it logs."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)

    async def logged(self, event: str, timeout_s: float = 20.0, **values: Any) -> dict[str, Any]:
        """The first line of ``event`` with ``values``; waits for it."""
        async with asyncio.timeout(timeout_s):
            while True:
                for line in self.lines:
                    if line["event"] == event and all(line.get(key) == value for key, value in values.items()):
                        return line
                assert self.process.returncode is None, self.lines
                await asyncio.sleep(TICK_S)

    def of(self, event: str) -> list[dict[str, Any]]:
        """All lines of ``event`` so far."""
        return [line for line in self.lines if line["event"] == event]

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; returns exit status and seconds it took."""
        begun_s = asyncio.get_running_loop().time()
        self.process.send_signal(number)
        status = await asyncio.wait_for(self.process.wait(), 10)
        return status, asyncio.get_running_loop().time() - begun_s


@contextlib.asynccontextmanager
async def daemon(config: Path, **environment: str) -> AsyncIterator[DaemonProcess]:
    """The daemon while the context lasts, serving when it begins."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "streamer", "run", "--config", str(config),
        cwd=ROOT, env={**os.environ, **environment}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    running = DaemonProcess(process)

    async def read() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            try:
                running.lines.append(json.loads(line))
            except ValueError:
                running.lines.append({"event": "not json", "text": line.decode()})

    reading = asyncio.create_task(read())
    try:
        await running.logged("serving")
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading
    assert not running.of("not json"), running.lines


class Subscriber:
    """Receives picks from a broker until it has enough."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client, self.messages = client, []

    async def receive(self, count: int, timeout_s: float = 30.0) -> list[dict[str, Any]]:
        """Wait until ``count`` picks have come in all."""
        async with asyncio.timeout(timeout_s):
            while len(self.messages) < count:
                message = await anext(self.client.messages)
                self.messages.append(json.loads(message.payload))
        return self.messages

    async def more(self, wait_s: float) -> int:
        """How many more picks come within ``wait_s``."""
        before = len(self.messages)
        with contextlib.suppress(TimeoutError):
            await self.receive(before + 1000, wait_s)
        return len(self.messages) - before


@contextlib.asynccontextmanager
async def subscriber(port: int) -> AsyncIterator[Subscriber]:
    """Subscribed to all picks of the broker at ``port``."""
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("onset/v1/picks/#", qos=1)
        yield Subscriber(client)
