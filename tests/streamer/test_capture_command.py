"""The commands around captures: what they say, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from archive_kit import bundle
from capture_kit import HEADER, captured, played, write_capture
from daemon_kit import expected, found, write_config
from tiny_bundle import write_tiny_bundle

from picker.bundle import load_bundle
from streamer.capture.entry import Header, Hole
from streamer.cli import main


def test_the_summary_tells_what_is_missing(tmp_path: Path, capsys: Any) -> None:
    """Lost and damaged packets, records not used, and an end that was not one, in plain words on standard error."""
    packets = captured()
    foreign = packets[3]._replace(format="J", payload=b"{}")
    path = write_capture(tmp_path / "c", [*packets[:30], Hole(7), foreign, packets[5], *packets[30:]], end=False)
    played(tmp_path, path)
    error = capsys.readouterr().err
    assert f"{len(packets) + 2} packets of 2 servers, {len(packets)} records, not used: not_miniseed 1, seen 1" in error
    assert "packets that the capture lacks: 7" in error
    assert "what is open at the end of the capture is not decided" in error
    assert "the capture lacks packets here" in error


def test_another_model_is_a_warning(tmp_path: Path, capsys: Any) -> None:
    """A capture made beside one model and played with another says so; with the same one it does not."""
    same = load_bundle(bundle(tmp_path)).digest
    values = {name: getattr(HEADER, name) for name in ("run", "part", "started_ns", "servers")}
    for digest, told in ((same, False), ("0" * 64, True)):
        path = write_capture(tmp_path / digest[:4], captured(), header=Header(**values, bundle=digest))
        played(tmp_path, path)
        assert ("picked with another model" in capsys.readouterr().err) == told


def test_thresholds_go_before_the_settings(tmp_path: Path) -> None:
    """A capture may be tried with other thresholds than those of the daemon."""
    path = write_capture(tmp_path / "c", captured())
    config = write_config(tmp_path, seedlink=[1], mqtt=1)
    assert found(played(tmp_path, "--config", config, "--threshold-s", "0.95", path)) == expected(phases="P")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pick", "--capture", "--select", "X", "x"], "--select: a capture is played as it came"),
        (["pick", "--capture", "--start", "2020-01-01", "x"], "--start: a capture is played as it came"),
        (["pick", "--capture", "-"], "a capture is read from files"),
        (["pick", "--capture", "x"], "x: no such file or folder"),
        (["replay", "--capture", "--server", "a:1", "x"], "x: no such file or folder"),
        (["replay", "--capture", "--jitter-s", "1", "x"], "--jitter-s: a capture is played as it came"),
    ],
)
def test_what_does_not_go_with_a_capture(tmp_path: Path, arguments: list[str], said: str, capsys: Any) -> None:
    """Exit status 2 and one line."""
    if arguments[0] == "pick":
        arguments = [*arguments, "--model", str(bundle(tmp_path))]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rotate-h", "0"], "--rotate-h 0: give a number above 0"),
        (["--max-gb", "-1"], "--max-gb -1: give a number above 0"),
        (["--for-s", "0"], "--for-s 0: give seconds above 0"),
    ],
)
def test_options_of_capture_that_cannot_be(tmp_path: Path, arguments: list[str], said: str, capsys: Any) -> None:
    """Exit status 2 and the option."""
    config = write_config(tmp_path, seedlink=[1], mqtt=1)
    assert main(["capture", "--config", str(config), *arguments, str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert main(["capture", "--config", str(config), str(tmp_path / "gone" / "out")]) == 2
    assert "there is no folder to put the capture into" in capsys.readouterr().err


def test_a_check_says_where_the_capture_goes(tmp_path: Path, capsys: Any) -> None:
    """``streamer run --check`` names the folder and its bound, and refuses one that cannot be made."""
    write_tiny_bundle(tmp_path / "bundle")
    config = write_config(tmp_path, seedlink=[1], mqtt=1, more='[capture]\npath = "kept"\nmax_gb = 3\n')
    assert main(["run", "--check", "--config", str(config)]) == 0
    assert f"capture   {tmp_path / 'kept'}, at most 3 GB" in capsys.readouterr().out
    config.write_text(config.read_text().replace('"kept"', '"gone/kept"'))
    assert main(["run", "--check", "--config", str(config)]) == 2
    assert "mend capture.path" in capsys.readouterr().err
