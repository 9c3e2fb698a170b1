"""``streamer pick``: what it writes, what it leaves out and counts, and how it says what is wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import uuid
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from archive_kit import bundle, picked
from daemon_kit import P_AT_S, SECOND_NS, START_NS, channel, expected, found, three_components
from jsonschema import validate
from station_data import miniseed, noise

from streamer.cli import main
from streamer.instant import utc_ns

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "pick.schema.json").read_text())

needs_obspy = pytest.mark.skipif(find_spec("obspy") is None, reason="needs the obspy extra")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """``three_components`` in a file."""
    path = tmp_path / "one.mseed"
    path.write_bytes(three_components())
    return path


def pick(folder: Path, *arguments: str | Path) -> int:
    return main(["pick", "--model", str(bundle(folder)), *map(str, arguments)])


def test_lines_of_json_are_payloads(tmp_path: Path, data: Path) -> None:
    """Each line is a message as MQTT carries it, at its time, by the published schema; nothing took time."""
    messages = picked(tmp_path, "--agency", "TEST", "--author", "me", data)
    assert found(messages) == expected()
    for message in messages:
        validate(message, SCHEMA)
        onset = message["analyticsInfo"]["extensions"]["onset"]
        assert set(onset["latency"].values()) == {0.0}
        assert onset["published_time"] == onset["decided_time"]
        assert message["source"] == {"agencyID": "TEST", "author": "me"}


def test_csv_is_the_default(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output holds nothing but CSV, one line a pick, which says the same as the lines of JSON."""
    assert pick(tmp_path, data) == 0
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    messages = picked(tmp_path, data)
    assert [row["id"] for row in rows] == [message["id"] for message in messages]
    for row, message in zip(rows, messages, strict=True):
        codes = message["channel"]["properties"]
        assert {name: row[name] for name in codes} == codes
        assert (row["time"], row["phase"]) == (message["time"], message["phase"])
        assert float(row["probability"]) == message["analyticsInfo"]["predictions"][0]["probability"]
        assert row["flags"].split() == message["analyticsInfo"]["extensions"]["onset"]["quality"]
    assert "1 stations, 0.01 station-hours; picks: 3 P, 3 S" in captured.err
    assert "1 files, 0 unreadable; 108 records, none refused" in captured.err


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("a.csv", "time,"),
        ("a.json", "{"),
        ("a.jsonl", "{"),
        pytest.param("a.xml", "<?xml", marks=needs_obspy),
    ],
)
def test_the_name_says_the_format(tmp_path: Path, data: Path, name: str, first: str) -> None:
    """The suffix of --out chooses the format, and --format overrides it."""
    assert pick(tmp_path, data, "--out", tmp_path / name) == 0
    assert (tmp_path / name).read_text().startswith(first)
    assert pick(tmp_path, data, "--out", tmp_path / name, "--format", "csv") == 0
    assert (tmp_path / name).read_text().startswith("time,")


@needs_obspy
def test_quakeml_is_read_by_obspy(tmp_path: Path, data: Path) -> None:
    """One Pick element each: identifiers from the ids, phases, codes, times, and the probability as a comment."""
    messages = {message["id"]: message for message in picked(tmp_path, data)}
    assert pick(tmp_path, data, "--out", tmp_path / "picks.xml") == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # obspy reads its entry points in a way that Python has deprecated
        import obspy

        (event,) = obspy.read_events(str(tmp_path / "picks.xml"), format="QUAKEML")
        assert obspy.io.quakeml.core._validate(str(tmp_path / "picks.xml"))
    assert len(event.picks) == len(messages) == 6
    text = (tmp_path / "picks.xml").read_text()
    assert pick(tmp_path, data, "--out", tmp_path / "picks.xml") == 0
    assert (tmp_path / "picks.xml").read_text() == text, "the same data give the same document"
    assert pick(tmp_path, data, "--threshold-s", "0.95", "--out", tmp_path / "picks.xml") == 0
    assert event.resource_id.id not in (tmp_path / "picks.xml").read_text(), "other picks are another event"
    for one in event.picks:
        message = messages[one.resource_id.id.rsplit("/", 1)[1]]
        assert one.phase_hint == message["phase"]
        assert one.waveform_id.id == ".".join(message["channel"]["properties"].values())
        assert one.time.ns == utc_ns(message["time"])
        probability = message["analyticsInfo"]["predictions"][0]["probability"]
        assert one.comments[0].text == f"probability={probability}"
        assert one.evaluation_mode == "automatic"


def test_quakeml_without_obspy_names_the_extra(tmp_path: Path, data: Path) -> None:
    """Where obspy cannot be imported, one line says which extra brings it, before anything is written or picked."""
    blocked = "import sys; sys.modules['obspy'] = None\nfrom streamer.cli import main\nsys.exit(main(sys.argv[1:]))"
    out = tmp_path / "picks.xml"
    result = subprocess.run(
        [sys.executable, "-c", blocked, "pick", "--model", str(bundle(tmp_path)), "--out", str(out), str(data)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "streamer: QuakeML needs obspy: pip install 'onset[obspy]', or take --format csv or jsonl\n"
    )
    assert not out.exists()


def test_other_formats_load_no_obspy(tmp_path: Path, data: Path) -> None:
    """Picking to CSV, as a process, imports neither obspy nor PyTorch."""
    code = (
        "import sys\nfrom streamer.cli import main\nassert main(sys.argv[1:]) == 0\n"
        "assert not {'obspy', 'torch', 'scipy'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, "pick", "--model", str(bundle(tmp_path)), str(data)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 7


def test_standard_input(tmp_path: Path) -> None:
    """``-`` reads all of standard input, whatever its order, beside other paths."""
    (tmp_path / "two.mseed").write_bytes(three_components("TWO"))
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "streamer", "pick", "--model", str(bundle(tmp_path)),
         "--format", "jsonl", "-", str(tmp_path / "two.mseed")],
        cwd=ROOT, input=three_components("ONE"), capture_output=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert found([json.loads(line) for line in result.stdout.splitlines()]) == expected(["ONE", "TWO"])


@pytest.mark.parametrize("content", [b"", b"no waveform"])
def test_standard_input_without_data(tmp_path: Path, content: bytes) -> None:
    """Nothing, or nothing that is miniSEED, on standard input is said of standard input."""
    result = subprocess.run(
        [sys.executable, "-m", "streamer", "pick", "--model", str(bundle(tmp_path)), "-"],
        cwd=ROOT, input=content, capture_output=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    said = result.stderr.decode().splitlines()
    assert said[-1] == "streamer: nothing to pick in standard input: files that cannot be read: 1"
    assert len(said) == 2


def test_a_reader_that_leaves_is_no_crash(tmp_path: Path, data: Path) -> None:
    """``streamer pick ... | head -0``: exit status 1, no traceback."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "streamer", "pick", "--model", str(bundle(tmp_path)), str(data)],
        cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr


def test_a_damaged_file_between_good_ones(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Garbage, an empty file, one cut short and one with damaged records: a warning each, and nothing else is lost."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "1.mseed").write_bytes(three_components("ONE"))
    (folder / "2.mseed").write_bytes(b"\x07garbage" * 1000)
    (folder / "3.mseed").write_bytes(b"")
    (folder / "4.mseed").write_bytes(three_components("FOUR")[:-200])
    damaged = bytearray(three_components("FIVE"))
    damaged[512 * 80 + 20] = 255  # the month and day of a header of HHE, which holds no pulse
    damaged[512 * 80 : 512 * 80 + 8] = b"\xff" * 8
    (folder / "5.mseed").write_bytes(damaged)
    (folder / "6.mseed").write_bytes(three_components("SIX"))
    messages = picked(tmp_path, folder)
    assert found(messages) == expected(["ONE", "FOUR", "FIVE", "SIX"])
    said = capfd.readouterr().err
    assert said.count("file cannot be read: left out") == 2
    assert said.count("damaged parts of a file left out") == 2
    assert "6 files, 2 unreadable" in said
    assert "refused: corrupt 2" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is a warning that says why."""
    locked = tmp_path / "locked.mseed"
    locked.write_bytes(b"")
    locked.chmod(0)
    assert found(picked(tmp_path, locked, data)) == expected()
    assert "Permission denied" in capfd.readouterr().err


def test_damage_inside_records_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Steim frames that fail their integrity check are refused one by one, with one warning for their file."""
    content = bytearray(miniseed(noise(20_000), source_id="FDSN:XX_ONE__H_H_E"))
    for record in range(3, 9):
        content[record * 512 + 200 : record * 512 + 300] = bytes(100)
    (tmp_path / "noise.mseed").write_bytes(content)
    (tmp_path / "two.mseed").write_bytes(three_components("TWO"))
    assert found(picked(tmp_path, tmp_path / "noise.mseed", tmp_path / "two.mseed")) == expected(["TWO"])
    said = capfd.readouterr().err
    assert said.count("damaged record left out") == 1
    assert "refused: corrupt 6" in said


@pytest.mark.parametrize(
    ("globs", "stations"),
    [
        (["XX.ONE"], ["ONE"]),
        (["T*"], ["TWO", "THREE"]),
        (["xx.t?o"], ["TWO"]),
        (["ONE", "XX.TH*"], ["ONE", "THREE"]),
        (["XX.*"], ["ONE", "TWO", "THREE"]),
        (["xx.*.--.HH?"], ["ONE", "TWO", "THREE"]),
        (["XX.ONE..HH*", "XX.TWO.*", "XX.THREE.00.HHZ"], ["ONE", "TWO"]),
    ],
)
def test_station_filter(tmp_path: Path, globs: list[str], stations: list[str]) -> None:
    """--select takes STA, NET.STA or more with wildcards, in any case, and may be repeated."""
    folder = tmp_path / "data"
    folder.mkdir()
    for station in ("ONE", "TWO", "THREE"):
        (folder / f"{station}.mseed").write_bytes(three_components(station))
    options = [word for glob in globs for word in ("--select", glob)]
    assert found(picked(tmp_path, folder, *options)) == expected(stations)


def test_thresholds_and_batch(tmp_path: Path, data: Path) -> None:
    """--threshold-s alone silences S and is part of no P's id; stations in one call or in several are the same."""
    usual = picked(tmp_path, data)
    strict = picked(tmp_path, "--threshold-s", "0.95", data)
    assert [one["id"] for one in strict] == [one["id"] for one in usual if one["phase"] == "P"]
    (tmp_path / "two.mseed").write_bytes(three_components("TWO"))
    both = [data, tmp_path / "two.mseed"]
    assert picked(tmp_path, "--batch", "1", *both) == picked(tmp_path, *both)


def test_old_and_odd_times_are_data(tmp_path: Path) -> None:
    """Records of 1999 and of 2099 beside today's are neither late nor in the future: all are picked."""
    starts = {"A": 915_148_800, "B": START_NS // SECOND_NS, "C": 4_070_908_800}
    paths = []
    for station, start_s in starts.items():
        paths.append(tmp_path / f"{station}.mseed")
        paths[-1].write_bytes(three_components("ONE", start_s * SECOND_NS))
    wanted = set().union(*(expected(start_ns=start_s * SECOND_NS) for start_s in starts.values()))
    assert found(picked(tmp_path, *paths)) == wanted


def complaint(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str | Path) -> str:
    """The one line on standard error of a run that ends with status 2 and writes nothing."""
    assert pick(folder, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out in ("", "time,network,station,location,channel,phase,probability,flags,id\n")
    return captured.err.splitlines()[-1]


def test_wrong_options_are_one_line(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each names the option and the mend."""

    def said(*arguments: str | Path) -> str:
        return complaint(capsys, tmp_path, *arguments)

    assert said(tmp_path / "absent.mseed") == f"streamer: {tmp_path / 'absent.mseed'}: no such file or folder"
    assert said(data, "--out", "picks.txt").startswith("streamer: --out picks.txt: its suffix names no format")
    assert said(data, "--out", tmp_path / "no" / "a.csv").endswith("cannot be written (No such file or directory)")
    assert said(data, "--threshold-p", "1.5") == "streamer: --threshold-p 1.5: give a probability between 0 and 1"
    assert said(data, "--threads", "0") == "streamer: --threads 0: give 1 or more"
    assert "--start yesterday: not a time" in said(data, "--start", "yesterday")
    assert said(data, "--start", "2024-01-02", "--end", "2024-01-01") == "streamer: --end must be later than --start"
    assert "no such folder; name a model bundle" in said(data, "--model", tmp_path / "elsewhere")
    assert said(data, "--model", tmp_path).startswith(f"streamer: {tmp_path}")  # a folder without a bundle
    assert said(data, "--select", "XX.ONE.00").startswith("streamer: nothing to pick")
    assert said(data, "--select", "A.B.C.D.E").startswith("streamer: --select 'A.B.C.D.E': write STA, NET.STA or")
    assert said(data, "--config", tmp_path / "no.toml").startswith(f"streamer: {tmp_path / 'no.toml'}: no such file")


def test_no_data_is_an_error(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing there, nothing asked for, nothing that can be picked: status 2 and the reason in one line."""
    (tmp_path / "empty").mkdir()
    assert "no data of the stations and times asked for" in complaint(capsys, tmp_path, tmp_path / "empty")
    assert "no data of the stations and times" in complaint(capsys, tmp_path, data, "--select", "ZZ.*")
    assert "no data of the stations and times" in complaint(capsys, tmp_path, data, "--start", "2023-320")
    (tmp_path / "text").write_text("no waveform")
    assert "files that cannot be read: 1" in complaint(capsys, tmp_path, tmp_path / "text")
    (tmp_path / "slow").write_bytes(miniseed(noise(600), rate_hz=1.0))
    assert "refused: bad_rate" in complaint(capsys, tmp_path, tmp_path / "slow")
    (tmp_path / "sound").write_bytes(channel("HDF", P_AT_S))
    assert "not_seismic" in complaint(capsys, tmp_path, tmp_path / "sound")


def test_ids_are_uuids(tmp_path: Path, data: Path) -> None:
    """The id of a pick is the UUIDv5 that docs/mqtt.md describes, and no two picks share one."""
    ids = [uuid.UUID(message["id"]) for message in picked(tmp_path, data)]
    assert {one.version for one in ids} == {5}
    assert len(set(ids)) == len(ids)


def test_flags_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A station of one vertical is picked and its picks say what was missing."""
    path: Path = tmp_path / "z.mseed"
    path.write_bytes(channel("HHZ", P_AT_S))
    assert pick(tmp_path, path) == 0
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["phase"], row["flags"]) for row in rows] == [("P", "missing_E missing_N")] * 3
