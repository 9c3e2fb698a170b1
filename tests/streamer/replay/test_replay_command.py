"""``streamer replay`` as a process: ready line, end, signals, wrong settings, and what it imports."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from replay_data import (
    assert_served,
    client,
    collect,
    station_file,
)
from seedlink_client import Protocol

V4 = Protocol.V4


def run_command(*arguments: str) -> subprocess.Popen[str]:
    """``streamer replay`` in a process of its own, by its two functions."""
    program = (
        "import argparse, sys; from streamer.replay.command import add_arguments, run; "
        "parser = argparse.ArgumentParser(); add_arguments(parser); sys.exit(run(parser.parse_args()))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


async def test_the_command_serves_says_where_and_ends(tmp_path: Path) -> None:
    """The ready line names the port, a client gets the data, and with --linger-s the process exits with 0."""
    path, expected = station_file(tmp_path)
    options = ("--port", "0", "--speed", "1000", "--wait-for-client", "--linger-s", "0.2", "--repack-s", "1")
    with run_command(*options, str(path)) as process:
        assert process.stdout is not None
        words = (await asyncio.to_thread(process.stdout.readline)).split()
        assert words[:2] == ["listening", "on"]
        host, _, port = words[2].rpartition(":")
        assert host == "127.0.0.1"
        async with client(int(port), protocol=V4) as link:
            link.add_stream("BW_UH1")
            packets = await collect(link, int(words[words.index("records,") - 1]))
        assert await asyncio.to_thread(process.wait, 20) == 0
    assert_served(packets, "BW_UH1", expected)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
async def test_the_command_stops_on_a_signal(tmp_path: Path, number: str) -> None:
    """It ends with status 0 and nothing on standard error."""
    import signal

    path, _ = station_file(tmp_path)
    with run_command("--port", "0", str(path)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "waiting" not in await asyncio.to_thread(process.stdout.readline)
        process.send_signal(getattr(signal, number))
        assert await asyncio.to_thread(process.wait, 10) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.mseed"], "gone.mseed: no such file or folder"),
        (["--speed", "0", "x"], "--speed 0"),
        (["--record-length", "500", "x"], "--record-length 500"),
        (["--delay-s", "abc", "x"], "--delay-s 'abc'"),
        (["--virtual-stations", "0", "x"], "--virtual-stations 0"),
    ],
)
def test_the_command_refuses_wrong_settings(arguments: list[str], message: str, capsys: Any) -> None:
    """Exit status 2 and one line that names the option or path."""
    import argparse

    from streamer.replay.command import add_arguments, run

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args(arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_importing_the_replay_brings_no_science_framework() -> None:
    """The replay is part of the daemon's package: no torch, obspy, scipy, matplotlib, pandas."""
    program = "import json, sys; import streamer.replay.command; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", program]))
    assert not {"torch", "obspy", "scipy", "matplotlib", "pandas", "seedlink_client"} & set(loaded)
