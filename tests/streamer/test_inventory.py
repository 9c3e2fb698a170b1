"""What a server's list of stations means, and which of them are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from daemon_kit import DURATION_S, START_NS, three_components

from streamer.inventory import Inventory, Offer, Stream, Wanted, expand, parse_v3, parse_v4, unexpanded
from streamer.replay import ReplayServer, ReplaySettings
from streamer.seedlink_session import Connection, Ended
from streamer.seedlink_settings import SeedLinkSettings, Selection


def select(*entries: dict[str, Any]) -> list[Selection]:
    return [Selection.model_validate(entry) for entry in entries]


def offer(*codes: str) -> Offer:
    """A station with the channels ``LL.CCC``."""
    streams = (code.split(".") for code in codes)
    return Offer(tuple(Stream(location, channel, None) for location, channel in streams), None)


@pytest.mark.parametrize("version", ["3", "4"])
async def test_list_of_a_server_in_either_version(tmp_path: Path, version: str) -> None:
    """Stations, channels, how far their data go, and the last number, of the replay server's own answer."""
    path = tmp_path / "data.mseed"
    path.write_bytes(three_components())
    settings = SeedLinkSettings.model_validate(
        {"host": "127.0.0.1", "streams": [{"network": "XX", "station": "*"}], "protocol": version}
    )
    async with ReplayServer(ReplaySettings(paths=(path,), port=0, speed=10_000.0)) as server:
        await server.wait_ended()
        async with Connection(settings.model_copy(update={"port": server.port})) as connection:
            found = await connection.inventory(["XX_*", "YY_*"])
    assert found is not None
    (one,) = found.values()
    end_ns = START_NS + DURATION_S * 10**9
    assert set(one.streams) == {Stream("", f"HH{letter}", end_ns) for letter in "ZNE"}
    assert one.end_ns == end_ns
    assert one.last_sequence == len(server.timeline) + 1


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"station": 1}', '{"station": [1]}', "<a/>", "[" * 100_000])
def test_what_is_no_list_is_refused(text: str) -> None:
    """Errors, other documents and nonsense are a ValueError in both versions."""
    for parse in (parse_v3, parse_v4):
        with pytest.raises(ValueError, match=r"list|Expecting"):
            parse(text)


def test_missing_details_are_left_out() -> None:
    """Servers say less than they should: a station without streams, times or numbers is still one."""
    v4 = parse_v4(json.dumps({"station": [{"id": "XX_A", "end_seq": "x", "stream": [{"id": "00_B_H_Z"}]}]}))
    assert v4 == {"XX_A": Offer((Stream("00", "BHZ", None),), None)}
    v3 = parse_v3('<seedlink><station name="A" network="XX" end_seq="?"/></seedlink>\0\0')
    assert v3 == {"XX_A": Offer((), None)}


LIST: Inventory = {
    "BW_UH1": offer(".HHZ", ".LHZ"),
    "BW_UH2": offer(".LHZ"),
    "BW_ALT": offer("00.EHZ"),
    "GR_FUR": offer(".BHZ", "00.HHZ"),
    "XX_NEW": Offer((), None),
}


@pytest.mark.parametrize(
    ("entries", "stations"),
    [
        ([{"network": "BW", "station": "*"}], ["BW_ALT", "BW_UH1"]),
        ([{"network": "B?", "station": "UH?", "channels": []}], ["BW_UH1", "BW_UH2"]),
        ([{"network": "*", "station": "*", "location": "--"}], ["BW_UH1", "GR_FUR", "XX_NEW"]),
        ([{"network": "GR", "station": "FUR", "channels": ["VMZ"]}], ["GR_FUR"]),
        ([{"network": "YY", "station": "FAR"}], ["YY_FAR"]),
        ([{"network": "YY", "station": "*"}], []),
    ],
)
def test_wildcards_mean_the_stations_that_have_such_channels(entries: list[Any], stations: list[str]) -> None:
    """A named station is asked for whatever the list says; a wildcard means what the list has, and unknown streams."""
    assert [one.station for one in expand(select(*entries), LIST)] == stations


def test_selections_of_one_station_are_put_together() -> None:
    """Asked for twice, a station is subscribed once with the selectors of both, or without any for everything."""
    both = select({"network": "BW", "station": "*", "channels": ["HHZ"]},
                  {"network": "BW", "station": "UH1", "channels": ["LHZ", "HHZ"]})  # fmt: skip
    assert expand(both, LIST) == [Wanted("BW_UH1", ("HHZ", "LHZ"))]
    everything = [*both, *select({"network": "BW", "station": "UH1", "channels": []})]
    assert expand(everything, LIST) == [Wanted("BW_UH1", ())]
    assert unexpanded(both) == [Wanted("BW_*", ("HHZ",)), Wanted("BW_UH1", ("LHZ", "HHZ"))]


def test_station_that_has_delivered_is_asked_for_although_the_list_lacks_it() -> None:
    """A server that has just started does not list all yet; one that was never wanted is not added."""
    wanted = expand(select({"network": "BW", "station": "*"}), {}, ["BW_OLD", "YY_OTHER"])
    assert [one.station for one in wanted] == ["BW_OLD"]


async def test_question_that_ends_the_connection_is_told(tmp_path: Path) -> None:
    """A connection that is cut during the answer is Ended, and not an empty list."""
    path = tmp_path / "data.mseed"
    path.write_bytes(three_components())
    async with ReplayServer(ReplaySettings(paths=(path,), port=0)) as server:
        settings = SeedLinkSettings.model_validate(
            {"host": "127.0.0.1", "port": server.port, "streams": [{"network": "XX", "station": "*"}]}
        )
        async with Connection(settings) as connection:
            for one in list(server._connections):
                one.drop("by the test")
            with pytest.raises(Ended):
                await connection.inventory(["XX_*"])
