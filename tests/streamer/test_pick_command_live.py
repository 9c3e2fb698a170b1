"""``streamer pick`` and ``streamer run`` make the same picks of the same records."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from archive_kit import COMPONENTS, packets, picked, timeless
from broker import MOSQUITTO, mosquitto
from daemon_kit import SECOND_NS, START_NS, daemon, expected, found, subscriber, three_components, write_config

from streamer.replay import ReplayServer, ReplaySettings

GAPS = {"HHZ": ((17.0, 18.5), (26.0, 28.5)), "HHN": ((17.0, 18.5), (25.5, 29.0)), "HHE": ((3.0, 19.0), (26.0, 29.0))}
"""A short gap in all three, one of 2.5 s after which the model starts afresh, and a component away for 16 s."""


def whole() -> bytes:
    return three_components("ONE") + three_components("TWO", START_NS + 3 * SECOND_NS)


def with_gaps() -> bytes:
    return b"".join(
        record for code, at_s in COMPONENTS.items() for record in packets(code, at_s, (150, 90, 210), gaps_s=GAPS[code])
    )


@pytest.mark.skipif(MOSQUITTO is None, reason="needs the Mosquitto broker")
@pytest.mark.parametrize("data", [whole(), with_gaps()], ids=["whole", "gaps"])
async def test_the_daemon_and_the_command_agree(tmp_path: Path, data: bytes) -> None:
    """Ids, times, probabilities and flags are equal; only what tells of arrival differs."""
    path = tmp_path / "data.mseed"
    path.write_bytes(data)
    settings = ReplaySettings(paths=(path,), port=0, speed=20.0, wait_for_client=True)
    with mosquitto(tmp_path) as broker:
        async with ReplayServer(settings) as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port)
            offline = await asyncio.to_thread(picked, tmp_path, "--config", config, path)
            async with daemon(config) as running:
                await server.wait_ended()
                await asyncio.sleep(0.5)
                await running.stop()
            await picks.receive(len(offline), 5)
            assert await picks.more(0.5) == 0
    assert len(offline) >= 5
    assert timeless(offline) == timeless(picks.messages)


def test_the_data_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    """The whole data hold every pulse of both stations; the gaps cost what lies in them or in the guard."""
    path = tmp_path / "data.mseed"
    path.write_bytes(whole())
    later = expected(["TWO"], start_ns=START_NS + 3 * SECOND_NS)
    assert found(picked(tmp_path, path)) == expected(["ONE"]) | later
    path.write_bytes(with_gaps())
    messages = picked(tmp_path, path)
    assert found(messages) < expected(["ONE"])
    flags = {flag for one in messages for flag in one["analyticsInfo"]["extensions"]["onset"]["quality"]}
    assert "missing_E" in flags
