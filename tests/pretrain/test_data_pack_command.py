"""``pretrain pack`` with sets, folders and miniSEED, into a file and into a folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from waveforms import START_NS, noise, row, write_miniseed, write_picks_csv, write_seisbench

from pretrain.cli import main
from pretrain.data.pack import load_pack
from pretrain.data.shards import open_folder


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """STEAD of thirty records in a cache of its own, a folder of ten with a bad one, and a minute of miniSEED."""
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(tmp_path / "cache"))
    for folder, count in ((tmp_path / "cache" / "datasets" / "stead", 30), (tmp_path / "mine", 10)):
        rows = [row(f"{folder.name}{k}", 100, data_source="") for k in range(count)]
        rows[0]["trace_sampling_rate_hz"] = 1.0
        write_seisbench(folder, rows, {str(r["trace_name"]): noise(2500, k) for k, r in enumerate(rows)})
    pieces = [(f"CM_CHI_00_H_H_{c}", START_NS, 100.0, noise(6000, k, 50)[0]) for k, c in enumerate("ZNE")]
    write_miniseed(tmp_path / "days" / "a.mseed", pieces)
    return ["--set", "stead", "--folder", str(tmp_path / "mine"), "--miniseed", str(tmp_path / "days")]


def test_a_folder_of_everything_says_what_became_of_it(
    tmp_path: Path, inputs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Data sets are called by the names of SeisBench and of their folders, and a second run finds all done."""
    out = tmp_path / "packed"
    for _ in range(2):
        assert main(["pack", str(out), *inputs, "--dtype", "float16", "--workers", "1"]) == 0
    store = open_folder(out)
    sets = store.catalogue.data_sets()
    assert Counter(sets[k] for k in range(len(store.catalogue))) == {"STEAD": 29, "mine": 9, "days": 1}
    assert store.dtype == np.float16
    said = capsys.readouterr().out
    assert "STEAD: 29 traces" in said
    assert "1  skipped: sampling rate 1.0 Hz" in said
    assert "in 3 parts, 3 of them there before" in " ".join(said.split())


def test_a_budget_fills_a_file_from_every_input_in_turn(tmp_path: Path, inputs: list[str]) -> None:
    """No input is left out for another's sake, the file stays within its size and is the same again."""
    for name in ("one.npz", "two.npz"):
        assert main(["pack", str(tmp_path / name), *inputs, "--budget", "140KiB"]) == 0
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert 100 * 1024 < (tmp_path / "one.npz").stat().st_size <= 140 * 1024
    found = Counter(trace.source.partition("/")[0] for trace in load_pack(tmp_path / "one.npz"))
    assert found["days"] == 1
    assert 3 <= found["mine"] <= 9
    assert 3 <= found["STEAD"] < 29


def test_continuous_data_leave_room_for_the_other_inputs(tmp_path: Path, inputs: list[str]) -> None:
    """Windows of an hour of a station would fill the file; of three inputs each has a part of it."""
    pieces = [(f"CM_YOT_00_H_H_{c}", START_NS, 100.0, noise(360_000, k, 50)[0]) for k, c in enumerate("ZNE")]
    write_miniseed(tmp_path / "hours" / "a.mseed", pieces)
    write_picks_csv(tmp_path / "hours" / "picks_consensus.csv", [])
    more = ["--continuous", str(tmp_path / "hours"), "--budget", "300KiB"]
    assert main(["pack", str(tmp_path / "p.npz"), *inputs[:4], *more]) == 0
    sizes = Counter[str]()
    for trace in load_pack(tmp_path / "p.npz"):
        sizes[trace.source.partition("/")[0]] += trace.samples
    assert set(sizes) == {"STEAD", "mine", "continuous"}
    assert sizes["continuous"] > 10_000
    assert (tmp_path / "p.npz").stat().st_size <= 300 * 1024


def test_a_budget_bounds_a_folder_too(tmp_path: Path, inputs: list[str]) -> None:
    """All files of it together."""
    assert main(["pack", str(tmp_path / "small"), *inputs, "--budget", "300KB", "--workers", "1"]) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "small").rglob("*") if path.is_file())
    assert 200_000 < size <= 300_000
    assert len(open_folder(tmp_path / "small").catalogue.data_sets().texts) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["out"], "nothing to pack: name a set, a folder in SeisBench format or a folder of miniSEED"),
        (["out", "--set", "GEOFON"], "the set GEOFON is not there; fetch it with"),
        (["out", "--folder", "nowhere"], "metadata.csv: missing"),
        (["out", "--miniseed", "nowhere"], "no miniSEED file"),
        (["out", "--set", "stead", "--workers", "0"], "--workers 0: from 1"),
        (["out.npz", "--set", "stead", "--tune-share", "1.5"], "--tune-share 1.5: it is a share"),
    ],
)
def test_what_cannot_be_packed_is_one_line(
    tmp_path: Path,
    inputs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    """Exit status 2, what is wrong and the mend."""
    monkeypatch.chdir(tmp_path)
    assert main(["pack", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
