"""``streamer pick`` as it is used: with a daemon's settings, at a terminal, on a full disk, interrupted."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from archive_kit import COMPONENTS, bundle, packets, picked
from daemon_kit import DURATION_S, SECOND_NS, START_NS, channel, expected, found, three_components, write_config

from streamer.archive.command import add_arguments
from streamer.archive.plan import MOST_SAID
from streamer.archive.writers import COLUMNS, SUFFIXES
from streamer.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """``three_components`` in a file."""
    path = tmp_path / "one.mseed"
    path.write_bytes(three_components())
    return path


def command(folder: Path, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "streamer", "pick", "--model", str(bundle(folder)), *map(str, arguments)]


def test_help_teaches() -> None:
    """``python -m streamer pick --help`` shows an SDS archive, standard input, the formats and the exit statuses."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "streamer", "pick", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    for words in ("/sds", "streamer pick - ", "NET.STA.LOC.CHA", "{csv,jsonl,quakeml}", "exit status: 0 done; 1 "):
        assert words in " ".join(result.stdout.split()) + result.stdout


def test_settings_of_a_daemon(tmp_path: Path, data: Path) -> None:
    """--config takes model, thresholds, stations and agency; options go before it; the daemon's ids follow."""
    more = "[picks]\nrelease = 0.4\n[picks.thresholds]\nS = 0.95\n"
    config = write_config(tmp_path, seedlink=[18000], mqtt=1883, more=more)
    out = tmp_path / "config.jsonl"
    assert main(["pick", "--config", str(config), "--out", str(out), str(data)]) == 0
    messages = [json.loads(line) for line in out.read_text().splitlines()]
    assert found(messages) == expected(phases="P")
    assert {one["source"]["agencyID"] for one in messages} == {"TEST"}
    usual = {one["id"] for one in picked(tmp_path, data)}
    assert usual.isdisjoint(one["id"] for one in messages), "release is part of the id"
    arguments = [
        "pick",
        "--config",
        str(config),
        "--threshold-s",
        "0.3",
        "--agency",
        "ME",
        "--out",
        str(out),
        str(data),
    ]
    assert main(arguments) == 0
    messages = [json.loads(line) for line in out.read_text().splitlines()]
    assert found(messages) == expected()
    assert {one["source"]["agencyID"] for one in messages} == {"ME"}


def test_stations_of_a_daemon(tmp_path: Path) -> None:
    """The instrument that the daemon's settings prefer is the one that is picked."""
    path = tmp_path / "two-instruments.mseed"
    path.write_bytes(three_components() + channel("BHZ", (20.0,)))
    config = write_config(tmp_path, seedlink=[18000], mqtt=1883, more='[stations]\nprefer = ["BH", "HH"]\n')
    assert found(picked(tmp_path, path)) == expected()
    assert found(picked(tmp_path, "--config", config, path)) == {("ONE", "P", START_NS + 20 * SECOND_NS)}


def test_one_channel_of_a_station(tmp_path: Path, data: Path) -> None:
    """--select down to a channel leaves the others out, and the flags say so."""
    messages = picked(tmp_path, "--select", "XX.ONE.*.HHZ", data)
    assert found(messages) == expected(phases="P")
    flags = {flag for one in messages for flag in one["analyticsInfo"]["extensions"]["onset"]["quality"]}
    assert flags == {"missing_E", "missing_N"}


def at_a_terminal(folder: Path, *arguments: str | Path) -> tuple[int, str]:
    """Exit status and all that is written to a terminal which is standard error."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(
        command(folder, *arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 65_536)
            except OSError:  # how Linux says that the terminal is closed
                break
            if not part:
                break
            shown += part
    os.close(leader)
    return process.returncode, shown.decode()


def test_the_bar_is_for_terminals(tmp_path: Path, data: Path) -> None:
    """A terminal gets a bar with the share done, which is wiped at the end; a pipe gets the summary alone."""
    out = tmp_path / "picks.csv"
    status, shown = at_a_terminal(tmp_path, "--out", out, data)
    assert status == 0
    assert "%" in shown
    assert "times real time" in shown
    assert "\x1b[" in shown
    environment = {**os.environ, "FORCE_COLOR": "1"}
    result = subprocess.run(
        command(tmp_path, "--out", out, data), cwd=ROOT, capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout == ""
    assert "\x1b" not in result.stderr
    assert "%" not in result.stderr
    assert result.stderr.startswith("1 stations, 0.01 station-hours; picks: 3 P, 3 S\n")
    assert result.stderr.count("\n") <= 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("to_file", [True, False])
def test_a_full_disk_is_one_line(tmp_path: Path, data: Path, to_file: bool) -> None:
    """Where picks cannot be written: one line, exit status 2, no traceback."""
    arguments: list[str | Path] = [data, "--format", "csv"] + (["--out", "/dev/full"] if to_file else [])
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            command(tmp_path, *arguments), cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    name = "--out /dev/full" if to_file else "standard output"
    assert result.returncode == 2
    assert result.stderr == f"streamer: {name}: cannot be written (No space left on device)\n"


def test_an_interrupted_run(tmp_path: Path) -> None:
    """Ctrl-C ends a long run at once with exit status 130 and no traceback."""
    path = tmp_path / "long.mseed"
    with path.open("wb") as file:
        for turn in range(600):
            start_ns = START_NS + turn * DURATION_S * SECOND_NS
            file.write(b"".join(record for c in COMPONENTS for record in packets(c, (), (4000,), start_ns=start_ns)))
    out = tmp_path / "picks.csv"
    with subprocess.Popen(
        command(tmp_path, "--out", out, path), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        until_s = time.monotonic() + 30
        while not out.exists() and time.monotonic() < until_s:
            time.sleep(0.05)
        time.sleep(0.5)
        assert process.poll() is None, "the run is long enough"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_many_bad_files_do_not_flood(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of fifty files that are not miniSEED some are named, all are counted, and the good one is picked."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(50):
        (folder / f"{number}.txt").write_text("notes")
    (folder / "good.mseed").write_bytes(three_components())
    assert found(picked(tmp_path, folder)) == expected()
    said = capfd.readouterr().err
    assert said.count("file cannot be read: left out") == MOST_SAID + 1
    assert said.count("further files are only counted") == 1
    assert "51 files, 50 unreadable" in said


def test_the_page_says_what_the_command_does() -> None:
    """docs/pick.md has a row for each column in its order, each suffix, each exit status, and options that exist."""
    text = (ROOT / "docs" / "pick.md").read_text()
    table = text.split("<!-- columns -->")[1].split("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", "".join(rows)) == list(COLUMNS)
    for suffix in SUFFIXES:
        assert f"`{suffix}`" in text
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == ["0", "1", "2", "130"]
    assert f"Of one kind of warning {MOST_SAID} are shown" in text
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings}
    assert set(re.findall(r"--[a-z]+[a-z-]*", text)) - {"--"} <= options


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_ends_near_a_pulse(tmp_path: Path, seconds: float) -> None:
    """A span that is too short for any pick is no error: a line of names and exit status 0."""
    path = tmp_path / "short.mseed"
    path.write_bytes(channel("HHZ", (12.0,)))
    out = tmp_path / "picks.csv"
    end = f"2023-11-14T22:13:{21 + seconds:04.1f}"
    assert main(["pick", "--model", str(bundle(tmp_path)), "--end", end, "--out", str(out), str(path)]) == 0
    assert out.read_text() == ",".join(COLUMNS) + "\n"
