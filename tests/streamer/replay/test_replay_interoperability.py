"""Clients that others wrote read the replay server: more of obspy's (v3), and EarthScope's without asyncio (v3, v4).

``test_replay_server.py`` has EarthScope's asynchronous client, obspy's request client and its streaming client.
slinktool is EarthScope's program on libslink, in C: https://github.com/EarthScope/slinktool (5.0.0 was tried here).
"""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymseed import MS3Record
from replay_data import assert_served, replay, station_file
from seedlink_client import Protocol, SeedLink

needs_obspy = pytest.mark.skipif(find_spec("obspy") is None, reason="needs the obspy extra")
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""obspy reads its entry points in a way that Python has deprecated."""


SLINKTOOL = shutil.which("slinktool")
NO_SLINKTOOL = "needs slinktool on the path"


class EnoughError(Exception):
    """All that was wanted has come."""


@pytest.mark.parametrize("protocol", [Protocol.V3, Protocol.V4])
async def test_earthscope_client_without_asyncio(tmp_path: Path, protocol: Protocol) -> None:
    """Its blocking client gets every sample bit for bit, in both versions."""
    path, expected = station_file(tmp_path)
    async with replay(path, wait_for_client=True) as server:

        def read() -> list[Any]:
            packets = []
            with SeedLink("127.0.0.1", server.port, protocol=protocol, timeout=20.0) as link:
                link.add_stream("BW_UH1")
                for packet in link.collect(reconnect=False):
                    packets.append(packet)
                    if len(packets) == len(server.timeline):
                        break
            return packets

        packets = await asyncio.to_thread(read)
    assert_served(packets, "BW_UH1", expected)


@needs_obspy
@quiet
async def test_obspy_easy_client_learns_what_there_is_and_streams_it(tmp_path: Path) -> None:
    """obspy's EasySeedLinkClient reads capabilities and streams (INFO, XML), then a selection with a wildcard."""
    from obspy.clients.seedlink.easyseedlink import EasySeedLinkClient

    path, expected = station_file(tmp_path)
    async with replay(path, wait_for_client=True) as server:

        def read() -> tuple[list[str], str, list[Any]]:
            traces: list[Any] = []

            def take(trace: Any) -> None:
                traces.append(trace)
                if sum(len(one.data) for one in traces) == sum(map(len, expected.values())):
                    raise EnoughError

            link = EasySeedLinkClient(f"127.0.0.1:{server.port}", autoconnect=False)
            link.on_data = take
            link.conn.timeout = 20  # without one, obspy 1.5 compares a number with None
            link.connect()
            streams = link.get_info("STREAMS")
            link.select_stream("BW", "UH1", "HH?")
            with pytest.raises(EnoughError):
                link.run()
            link.close()
            return link.capabilities, streams, traces

        capabilities, streams, traces = await asyncio.to_thread(read)
    assert "info:streams" in capabilities
    assert all(f'seedname="HH{letter}"' in streams for letter in "ZNE")
    for stream, data in expected.items():
        got = [trace.data for trace in traces if trace.stats.channel == stream.replace("_", "")]
        assert np.array_equal(np.concatenate(got), data)


@needs_obspy
@quiet
async def test_obspy_resumes_from_its_sequence(tmp_path: Path) -> None:
    """obspy's SLClient, cut off half way, gets the second half and no packet of the first one again."""
    from obspy.clients.seedlink.client.seedlinkconnection import SeedLinkConnection
    from obspy.clients.seedlink.slclient import SLClient

    path, expected = station_file(tmp_path)
    async with replay(path) as server:
        await server.wait_ended()
        count = len(server.timeline)
        half = count // 2

        def read(after: int, wanted: int) -> list[tuple[int, bytes]]:
            link, got = SLClient(timeout=20), []
            link.multiselect = "BW_UH1:HH?"
            link.slconn = SeedLinkConnection(timeout=20)
            link.slconn.set_sl_address(f"127.0.0.1:{server.port}")
            link.initialize()
            for stream in link.slconn.streams:
                stream.seqnum = after

            def handle(turn: int, packet: Any) -> bool:
                got.append((packet.get_sequence_number(), bytes(packet.msrecord)))
                return turn == wanted

            link.run(packet_handler=handle)
            return got

        rest = await asyncio.to_thread(read, half, count - half)
    assert [number for number, _ in rest] == list(range(half + 1, count + 1))
    assert sum(map(len, expected.values())) > 0


async def slinktool(*words: object) -> list[str]:
    """What the program says; it must end by itself, and well."""
    assert SLINKTOOL is not None
    process = await asyncio.create_subprocess_exec(
        SLINKTOOL, *map(str, words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, said
    return said.decode().splitlines()


@pytest.mark.skipif(SLINKTOOL is None, reason=NO_SLINKTOOL)
@pytest.mark.parametrize(("version", "selector"), [("-3", "HHZ"), ("-4", "*_H_H_Z")])
async def test_libslink_lists_reads_and_resumes(tmp_path: Path, version: str, selector: str) -> None:
    """It lists the streams, takes a window of all samples bit for bit, and goes on behind it from its state file."""
    path, expected = station_file(tmp_path, seconds=120.0)
    window = ("-ts", "2010,5,27,16,0,0", "-te", "2010,5,27,16,25,0")
    async with replay(path) as server:
        await server.wait_ended()
        address = f"127.0.0.1:{server.port}"
        assert any("BW_UH1" in line for line in await slinktool(version, "-Q", address))
        await slinktool(version, "-d", "-S", "BW_UH1", *window, "-o", tmp_path / "got", address)
        one_channel = (version, "-p", "-d", "-S", f"BW_UH1:{selector}", "-x", f"{tmp_path / 'state'}:1")
        before = await slinktool(*one_channel, *window, address)
        after = await slinktool(*one_channel, address)
    got = defaultdict(list)
    for record in MS3Record.from_file(str(tmp_path / "got"), unpack_data=True):
        got[record.sourceid].append(record.np_datasamples.copy())
    assert len(got) == 3
    for stream, data in expected.items():
        samples = np.concatenate(got[f"FDSN:BW_UH1_{stream}"])
        assert len(samples) >= 6000
        assert np.array_equal(samples, data[: len(samples)])
    packets = [line for line in before + after if line.startswith("FDSN:BW_UH1__H_H_Z")]
    times = [line.split(", ")[5].split()[0] for line in packets]
    assert times == sorted(set(times)), "no packet twice"
    assert sum(int(line.split(", ")[3].split()[0]) for line in packets) == 12000, "and none left out"
