"""``streamer compare``: what matches, what differs, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from capture_kit import captured, played, write_capture

from streamer.cli import main
from streamer.compare import compare, read_picks


@pytest.fixture
def messages(tmp_path: Path) -> list[dict[str, Any]]:
    """Six real messages."""
    return played(tmp_path, write_capture(tmp_path / "c", captured()))


def moved(message: dict[str, Any], seconds: float = 0.0, gain: float = 0.0, **onset: Any) -> dict[str, Any]:
    """A copy, later and more probable by so much."""
    copy: dict[str, Any] = json.loads(json.dumps(message))
    time = datetime.fromisoformat(copy["time"]) + timedelta(seconds=seconds)
    copy["time"] = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    copy["analyticsInfo"]["predictions"][0]["probability"] += gain
    copy["analyticsInfo"]["extensions"]["onset"] |= onset
    return copy


def written(path: Path, messages: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    return path


def status(folder: Path, a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]], *options: str) -> int:
    """Exit status of the comparison."""
    return main(["compare", str(written(folder / "a", a)), str(written(folder / "b", b)), *options])


def test_the_same_picks_are_identical(tmp_path: Path, messages: list[dict[str, Any]], capsys: Any) -> None:
    """In another order and with other arrivals: status 0, and every pair is identical."""
    other = [moved(one, published_time="2030-01-01T00:00:00.000000Z", latency={"data_s": 9}) for one in messages[::-1]]
    assert status(tmp_path, messages, other) == 0
    assert "A 6 picks, B 6; matched 6, identical 6, only in A 0, only in B 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"), [((), 1), (("--tolerance-s", "0.05"), 0), (("--tolerance-s", "0.01"), 1)]
)
def test_times_within_the_tolerance(
    tmp_path: Path, messages: list[dict[str, Any]], options: tuple[str, ...], expected: int, capsys: Any
) -> None:
    """The largest difference decides; the table has its percentiles."""
    other = [moved(one, 0.04 if number == 2 else 0.0, 0.01) for number, one in enumerate(messages)]
    assert status(tmp_path, messages, other, *options) == expected
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[2:6] == ["0.0000"] * 4
    assert lines[2].split()[-1] == "0.0400"
    assert lines[3].split()[1:] == ["0.0100"] * 7


def test_picks_without_a_partner_are_listed(tmp_path: Path, messages: list[dict[str, Any]], capsys: Any) -> None:
    """One missing, one moved by more than half a second, one of another phase: each is named, status 1."""
    other = [
        moved(messages[0], 0.6),
        *messages[2:5],
        {**messages[5], "phase": "S" if messages[5]["phase"] == "P" else "P"},
    ]
    assert status(tmp_path, messages, other, "--tolerance-s", "0.5") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("matched 3, identical 3, only in A 3, only in B 2")
    only_a = [line for line in lines if line.startswith("only in A")]
    assert [messages[place]["time"] in line for place, line in zip((0, 1, 5), only_a, strict=True)] == [True] * 3


def test_the_nearest_matches_first(tmp_path: Path, messages: list[dict[str, Any]]) -> None:
    """Of two candidates the nearer one is the partner, whichever comes first."""
    one = messages[0]
    a = read_picks(written(tmp_path / "a", [one]))
    far = {**moved(one, -0.3), "id": "far"}
    near = {**moved(one, 0.1), "id": "near"}
    comparison = compare(a, read_picks(written(tmp_path / "b", [far, near])))
    assert comparison.times_s == pytest.approx([0.1])
    assert [round(pick.time_ns - a[0].time_ns, -6) for pick in comparison.only_b] == [-300_000_000]


def test_the_last_revision_counts(tmp_path: Path, messages: list[dict[str, Any]]) -> None:
    """Provisional messages are superseded whatever the order; what was retracted, or never ended, is no pick."""
    confirmed, retracted, unfinished = messages[:3]
    lines = [
        moved(confirmed, revision=2, status="confirmed"),
        moved(confirmed, 0.2, revision=1, status="provisional"),
        moved(retracted, revision=1, status="provisional"),
        moved(retracted, revision=2, status="retracted"),
        moved(unfinished, revision=1, status="provisional"),
    ]
    (pick,) = read_picks(written(tmp_path / "a", lines))
    assert pick.time == confirmed["time"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("time,network\n", "line 1 is no pick"),
        ("{}\n", "line 1 is no pick"),
        (None, "no such file"),
        ("\xff", "cannot be"),
    ],
)
def test_files_that_are_no_picks(tmp_path: Path, content: str | None, said: str, capsys: Any) -> None:
    """Exit status 2 and one line that names the file."""
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    assert main(["compare", str(path), str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert str(path) in error
    assert error.count("\n") == 1


def test_no_picks_at_all_are_equal(tmp_path: Path, capsys: Any) -> None:
    """Two empty files: nothing differs."""
    assert status(tmp_path, [], []) == 0
    assert capsys.readouterr().out.startswith("A 0 picks, B 0")
