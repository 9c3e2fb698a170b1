"""Many servers at once: what dead, slow and hostile ones do stays theirs, and memory and tasks stay bounded."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import struct
import tracemalloc
from pathlib import Path

import pytest
import structlog
from broker import free_port
from daemon_kit import DURATION_S, START_NS, channel, three_components
from scripted_seedlink import Client, Peer, close, peer, play, scripted_seedlink, split
from seedlink_kit import reading
from structlog.testing import capture_logs

from streamer import recovery, seedlink, seedlink_client, seedlink_session, subscription
from streamer.replay import ReplayServer, ReplaySettings
from streamer.replay.packet import encode_info_v3

RECORDS = split(channel("HHZ"))
QUIET = structlog.make_filtering_bound_logger(50)


async def endless_line(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """No end of line, for ever."""
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and then."""
    while True:
        writer.write(b"S")
        await writer.drain()
        await asyncio.sleep(0.1)


async def mute(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Nothing at all."""
    await asyncio.Event().wait()


async def garbage(client: Client) -> None:
    """Packets full of what is no record, as fast as they are taken."""
    while True:
        client.send(1, b"\x00garbage" * 8192)
        await client.writer.drain()


async def huge(client: Client) -> None:
    """A packet that announces 16 MB, the most that is allowed, and is followed by one that announces 4 GB."""
    client.writer.write(struct.pack("<2s2sIQB", b"SE", b"2D", 2**24, 1, 6) + b"XX_ONE" + bytes(2**24))
    client.writer.write(struct.pack("<2s2sIQB", b"SE", b"2D", 2**32 - 1, 1, 6) + b"XX_ONE")
    while True:
        client.writer.write(b"x" * 65536)
        await client.writer.drain()


def endless_info() -> bytes:
    """A list of a megabyte, in parts of 512 bytes."""
    return encode_info_v3("x" * 1_000_000, START_NS)


async def test_bad_servers_do_not_hold_up_the_others(tmp_path: Path) -> None:
    """Six bad servers, absent, mute, slow, endless, garbage, huge: a good one delivers in time, as if alone."""
    path = tmp_path / "data.mseed"
    path.write_bytes(three_components())
    settings = ReplaySettings(paths=(path,), port=0, speed=20.0, wait_for_client=True)
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        ports = [free_port()]
        for serve in (endless_line, drip, mute):
            ports.append(await enter(peer(serve)))
        for script in (garbage, huge):
            ports.append((await enter(scripted_seedlink(4, script))).port)
        bad = [await enter(reading(port, connect_timeout_s=0.5, idle_timeout_s=0.5)) for port in ports]
        server = await enter(ReplayServer(settings))
        good = await enter(reading(server.port))
        begun_s = asyncio.get_running_loop().time()
        await good.until(lambda: sum(good.samples().values()) == 300 * DURATION_S)
        took_s = asyncio.get_running_loop().time() - begun_s
        assert took_s < DURATION_S / 20 + 2.5
        assert all(one.slept_s for one in bad if one is not bad[4]), "each was left and tried again"
        assert bad[4].count("onset_bad_records_total", reason="corrupt") > 0
        assert not any(one.records for one in bad)


@pytest.mark.parametrize("serve", [endless_line, drip, mute])
async def test_peer_that_is_no_seedlink_server_is_left(serve: Peer) -> None:
    """Within the connect timeout, again and again, by one warning and delays that grow."""
    with capture_logs() as logs:
        async with peer(serve) as port, reading(port, connect_timeout_s=0.3) as one:
            await one.until(lambda: len(one.slept_s) >= 3)
    assert one.slept_s[:3] == [0.5, 1, 2]
    assert len([line for line in logs if line["log_level"] == "warning"]) == 1


async def test_endless_list_of_stations_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut off at a bound, the next connection asks for none, and the data come."""
    monkeypatch.setattr(seedlink_client, "MOST_INFO_BYTES", 100_000)
    with capture_logs() as logs:
        async with (
            scripted_seedlink(3, play(RECORDS[:3]), info=endless_info) as server,
            reading(server.port, connect_timeout_s=5) as one,
        ):
            await one.until(lambda: len(one.records) == 3)
    reasons = [line["reason"] for line in logs if line["event"] == "server absent: trying again"]
    assert reasons == ["an answer to INFO of more than 100000 bytes"]
    assert [any(line.startswith("INFO") for line in client.commands) for client in server.clients] == [True, False]


async def test_nothing_is_left_behind_by_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred lost connections: no more tasks and no more memory than after the first fifty."""
    for module in (seedlink, recovery, subscription):
        monkeypatch.setattr(module, "_log", structlog.wrap_logger(None, wrapper_class=QUIET))  # pytest keeps the text
    async with scripted_seedlink(4, play(RECORDS[:1], close)) as server, reading(server.port) as one:

        async def quick(_: float) -> None:
            await asyncio.sleep(0)

        one.reader._sleep = quick
        await one.until(lambda: len(server.clients) >= 50, 30)
        tasks = len(asyncio.all_tasks())
        del server.clients[:-1]
        tracemalloc.start()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            await one.until(lambda: len(server.clients) >= 50, 30)
            del server.clients[:-1]
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert len(asyncio.all_tasks()) <= tasks + 5
        assert grown < 1_000_000


async def test_server_with_signs_of_life_but_no_data_is_kept_longer_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keep-alives are answered: it is left after several idle timeouts, and says why."""
    monkeypatch.setattr(seedlink_session, "QUIET_FACTOR", 2)
    answer = struct.pack("<2s2sIQB", b"SE", b"JI", 2, 0, 0) + b"{}"

    async def alive(client: Client) -> None:
        while True:
            assert await client.line() == "INFO ID"
            client.writer.write(answer)

    with capture_logs() as logs:
        async with (
            scripted_seedlink(4, alive) as server,
            reading(server.port, keepalive_s=1.0, idle_timeout_s=2.1) as one,
        ):
            await asyncio.sleep(3.5)
            assert one.slept_s == []
            await one.until(lambda: len(one.slept_s) == 1)
    reasons = [line["reason"] for line in logs if line["event"] == "server absent: trying again"]
    assert reasons == ["signs of life but no data for 4.2 s"]


async def test_packet_of_many_records_is_delivered_whole_and_numbered_at_its_end() -> None:
    """Version 4 allows several records in a packet: only the last carries the number, bad ones aside."""
    payload = b"".join(RECORDS[:3]) + RECORDS[3][:100]

    async def script(client: Client) -> None:
        client.send(9, payload)
        await client.writer.drain()
        await asyncio.sleep(5)

    async with scripted_seedlink(4, script) as server, reading(server.port) as one:
        await one.until(lambda: len(one.records) == 3)
    assert [origin.sequence for origin in one.origins] == [None, None, 9]
    assert {(origin.server, origin.station, origin.protocol) for origin in one.origins} == {
        (one.reader.settings.address, "XX_ONE", "4")
    }
