"""Thresholds by station in ``streamer pick``, as in the daemon, and what an archive makes of provisional picks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from archive_kit import picked
from daemon_kit import START_NS, three_components, write_config

SETTINGS = """
[picks]
provisional = true
stations = [ { network = "XX", station = "DEAF", thresholds = { P = 0.95 } } ]
"""


def counts(folder: Path, *options: str) -> Counter[tuple[str, str]]:
    """Picks of the stations ONE and DEAF, by station and phase."""
    config = write_config(folder, seedlink=[1], mqtt=1, more=SETTINGS)
    data = folder / "data.mseed"
    data.write_bytes(three_components("ONE", START_NS + 160_000_000) + three_components("DEAF", START_NS + 160_000_000))
    messages = picked(folder, "--config", str(config), *options, str(data))
    assert {one["analyticsInfo"]["extensions"]["onset"]["status"] for one in messages} == {"confirmed"}
    return Counter((one["channel"]["properties"]["station"], one["phase"]) for one in messages)


def test_an_archive_is_picked_by_the_thresholds_of_each_station(tmp_path: Path) -> None:
    """The deaf station gives no P; an archive holds confirmed picks alone, one each."""
    assert counts(tmp_path) == {("ONE", "P"): 3, ("ONE", "S"): 3, ("DEAF", "S"): 3}


def test_an_option_goes_before_the_thresholds_of_stations(tmp_path: Path) -> None:
    """--threshold-p is for all stations, --threshold-s leaves the P of a station as it is."""
    assert counts(tmp_path, "--threshold-p", "0.5") == dict.fromkeys(
        [("ONE", "P"), ("ONE", "S"), ("DEAF", "P"), ("DEAF", "S")], 3
    )
    assert counts(tmp_path, "--threshold-s", "0.95") == {("ONE", "P"): 3}
