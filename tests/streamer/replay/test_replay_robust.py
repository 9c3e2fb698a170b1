"""The server over its whole life: its end, clients that are slow, hostile or too many, a port in use."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from replay_data import (
    assert_served,
    client,
    collect,
    encode,
    replay,
    samples,
    station_file,
    write,
)
from seedlink_client import Protocol
from structlog.testing import capture_logs

from picker.errors import ConfigError
from streamer.replay import ReplayServer

V4 = Protocol.V4


async def test_server_ends_after_lingering(tmp_path: Path) -> None:
    """With linger_s the server finishes by itself and closes its clients; without, connections stay open."""
    path, expected = station_file(tmp_path)
    async with replay(path, wait_for_client=True, linger_s=0.1) as server:
        link = client(server, protocol=V4)
        async with link:
            link.add_stream("BW_UH1")
            packets = await collect(link, len(server.timeline))
            await asyncio.wait_for(server.wait_finished(), 10.0)
    assert_served(packets, "BW_UH1", expected)
    async with replay(path) as server:
        await server.wait_ended()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.wait_finished(), 0.3)


async def test_a_client_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    """It costs no memory: when the ring passes it by, or it takes nothing for too long, it is dropped and named."""
    records = encode("FDSN:BW_UH1__H_H_Z", samples(1, 2000.0))
    path = write(tmp_path / "long.mseed", records * 16)
    overrun: dict[str, Any] = {"ring_packets": 32}
    stalled: dict[str, Any] = {"ring_packets": 10**5, "stall_s": 0.3}
    for options, reason in ((overrun, "too slow"), (stalled, "took no data")):
        with capture_logs() as logs:
            async with replay(path, wait_for_client=True, speed=1e6, **options) as server:
                _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
                writer.transport.pause_reading()
                writer.write(b"SLPROTO 4.0\r\nSTATION *\r\nDATA ALL\r\nEND\r\n")
                await server.wait_ended()
                for _ in range(100):
                    if server.counters.dropped_clients:
                        break
                    await asyncio.sleep(0.05)
                writer.close()
                assert server.counters.dropped_clients == 1
        (dropped,) = [entry for entry in logs if entry["event"] == "client dropped"]
        assert reason in dropped["reason"]


async def test_hostile_clients_do_not_disturb_others(tmp_path: Path) -> None:
    """Endless lines and garbage are cut off with an error while another client gets all its data."""
    path, expected = station_file(tmp_path)

    async def attack(server: ReplayServer, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        answer = b""
        try:
            for _ in range(50):
                writer.write(data)
                await writer.drain()
            answer = await reader.read(-1)
        except ConnectionError:
            answer = answer or b"ERROR (reset)"
        writer.close()
        return answer

    async with replay(path, speed=20.0, wait_for_client=True) as server, client(server, protocol=V4) as link:
        link.add_stream("BW_UH1")
        packets, *answers = await asyncio.gather(
            collect(link, len(server.timeline)),
            attack(server, b"A" * 65536),
            attack(server, b"GET / HTTP/1.1\r\n" * 99),
        )
    assert all(answer.startswith(b"ERROR") for answer in answers)
    assert_served(packets, "BW_UH1", expected)


async def test_too_many_clients_are_refused(tmp_path: Path) -> None:
    """One more than the limit is closed at once, and those there stay."""
    path, _ = station_file(tmp_path)
    async with replay(path, max_clients=1) as server, client(server) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""
        writer.close()
        assert server.counters.refused_clients == 1
        assert "station" in await link.info_dict("STATIONS")


async def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    """The address and the mend are named."""
    path, _ = station_file(tmp_path)
    async with replay(path) as server:
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{server.port} .*--port"):
            async with replay(path, port=server.port):
                pass
