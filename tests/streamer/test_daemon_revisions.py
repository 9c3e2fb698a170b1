"""The daemon with provisional picks and thresholds by station, against a real SeedLink server and a real Mosquitto."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broker import MOSQUITTO, mosquitto
from daemon_kit import DURATION_S, START_NS, channel, daemon, subscriber, three_components, write_config
from pymseed import DataEncoding
from station_data import miniseed

from streamer.message import PickMessage
from streamer.replay import ReplayServer, ReplaySettings

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs the Mosquitto broker")

SHIFTED_NS = START_NS + 160_000_000
"""A start at which the P at 12 s and the S at 32.5 s of ``three_components`` lie across a chunk's border."""
PICKS = """
[picks]
provisional = true
stations = [ { station = "DEA?", thresholds = { P = 0.95 } } ]
"""


def onset_of(message: dict[str, Any]) -> dict[str, Any]:
    added: dict[str, Any] = message["analyticsInfo"]["extensions"]["onset"]
    return added


def clashing() -> bytes:
    """XX.TAKEN: a plateau of 0.5 on the vertical from just before a chunk's border on, an S of 0.9 right after it."""
    border = (18 * 64) / 100
    vertical = np.zeros(DURATION_S * 100, dtype=np.float32)
    vertical[18 * 64 - 4 : 18 * 64 + 20] = 0.5
    plateau = miniseed(vertical, encoding=DataEncoding.FLOAT32, source_id="FDSN:XX_TAKEN__H_H_Z", start_ns=START_NS)
    return plateau + channel("HHN", (border + 0.12,), "TAKEN") + channel("HHE", (), "TAKEN")


async def test_revisions_reach_the_subscriber(tmp_path: Path) -> None:
    """Provisional picks come first and under the id of their end; a deaf station has its own threshold."""
    path = tmp_path / "data.mseed"
    path.write_bytes(three_components("ONE", SHIFTED_NS) + three_components("DEAF", SHIFTED_NS) + clashing())
    settings = ReplaySettings(paths=(path,), port=0, speed=20.0, wait_for_client=True)
    with mosquitto(tmp_path) as broker:
        async with ReplayServer(settings) as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=PICKS)
            async with daemon(config) as running:
                messages = list(await picks.receive(15))
                assert await picks.more(0.5) == 0
                await running.stop()
    lives: dict[tuple[str, str], list[tuple[str, str, int]]] = {}
    for message in messages:
        PickMessage.model_validate(message)
        onset = onset_of(message)
        key = (message["channel"]["properties"]["station"], message["id"])
        lives.setdefault(key, []).append((message["phase"], onset["status"], onset["revision"]))

    def of(station: str) -> list[list[tuple[str, str, int]]]:
        return sorted(life for (name, _), life in lives.items() if name == station)

    at_once = {phase: [(phase, "confirmed", 1)] for phase in "PS"}
    in_two = {phase: [(phase, "provisional", 1), (phase, "confirmed", 2)] for phase in "PS"}
    assert of("ONE") == [at_once["P"], at_once["P"], in_two["P"], at_once["S"], at_once["S"], in_two["S"]]
    assert of("DEAF") == [at_once["S"], at_once["S"], in_two["S"]]
    assert of("TAKEN") == [[("P", "provisional", 1), ("P", "retracted", 2)], at_once["S"]]
    assert all(onset_of(message)["reset_age_s"] > 3 for message in messages)
    assert all(onset_of(message)["latency"].get("high") for message in messages), "data of 2023 are late"
