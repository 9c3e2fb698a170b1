"""Folders of shards: what goes in, going on after a kill, budgets, bad input, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from waveforms import START_NS, noise, row, write_miniseed, write_picks_csv, write_seisbench

from picker.errors import ConfigError
from pretrain.data import shards
from pretrain.data.folder_build import FolderPlan, build_folder
from pretrain.data.parts import MINISEED, PICKED, SEISBENCH, Input, Rules
from pretrain.data.sample_codes import decode_samples
from pretrain.data.store import Store

ROOT = Path(__file__).parents[2]


def labelled(root: Path, name: str = "north", events: int = 30, **more: object) -> Input:
    """A set of ``events`` records of 600 to 900 samples."""
    rows = [row(f"{name}{k}", 100, 150, **more) for k in range(events)]
    waveforms = {f"{name}{k}": noise(600 + 10 * k, k) for k in range(events)}
    return Input(kind=SEISBENCH, name=name, folder=write_seisbench(root / name, rows, waveforms))


def days(root: Path, name: str = "days", stations: tuple[str, ...] = ("CHI", "YOT")) -> Input:
    """A folder of miniSEED, 100 s of each station, Z with a gap of 30 s in all components."""
    for number, station in enumerate(stations):
        pieces = [
            (f"CM_{station}_00_H_H_{c}", START_NS + first * 10**9, 100.0, noise(length * 100, number, 50)[k])
            for k, c in enumerate("ZNE")
            for first, length in ((0, 40), (70, 30))
        ]
        write_miniseed(root / name / f"{station}.mseed", pieces)
    return Input(kind=MINISEED, name=name, folder=root / name)


def plan_of(*inputs: Input, **more: object) -> FolderPlan:
    """Small shards, a third held out."""
    values = {"rules": Rules(tune_share=0.3), "shard_bytes": 30_000} | more
    return FolderPlan(inputs=inputs, **values)  # type: ignore[arg-type]


def waveform_of(store: Store, row: int) -> np.ndarray:
    """All samples of a trace."""
    known = store.catalogue
    codes = store.cut(np.array([row]), np.array([0]), int(known.samples[row]))
    return decode_samples(codes, known.scale[[row]], known.bend[[row]])[0][0]


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_holds_every_trace_of_a_set_and_of_miniseed(tmp_path: Path) -> None:
    """Samples to a part of the noise, labels, folds by event, stretches between long gaps, several shards."""
    north, day = labelled(tmp_path), days(tmp_path)
    report = build_folder(plan_of(north, day), tmp_path / "out")
    store = shards.open_folder(tmp_path / "out")
    known = store.catalogue
    names = [known.words["name"][number] for number in range(len(known))]
    assert report.parts == len(store.shards) > 5
    assert {name: reading.read for name, reading in report.readings.items()} == {"north": 30, "days": 4}
    for k in (0, 17, 29):
        number = names.index(f"north{k}")
        truth = noise(600 + 10 * k, k)
        assert np.std(waveform_of(store, number) - (truth - truth[:, :1])) < 0.05
        assert known.label_sample[known.labels(number)].tolist() == [100, 150]
    of_north = known.words["source"].among(["made"])
    assert 0 < known.words["fold"].among(["tune"])[of_north].sum() < 30
    stretches = [int(n) for n in known.samples[known.words["kind"].among(["unlabelled"])]]
    assert sorted(stretches) == [3000, 3000, 4000, 4000]
    assert known.data_sets().texts == ("made", "days")
    assert store.dtype == np.int16
    assert isinstance(store.shards[0], np.memmap)


def test_any_number_of_workers_gives_the_same_folder(tmp_path: Path) -> None:
    """To the last byte; and so does a build that finds half of it done."""
    plan = plan_of(labelled(tmp_path), days(tmp_path))
    build_folder(plan, tmp_path / "one", workers=1)
    done: list[tuple[int, int]] = []
    build_folder(plan, tmp_path / "two", workers=2, progress=lambda *counts: done.append(counts))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert done[0][0] == 0
    assert done[-1] == (32, 32)
    assert all(before[0] <= after[0] for before, after in pairwise(done))
    for path in sorted((tmp_path / "two" / "shards").glob("*.json"))[::2]:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "two" / "shards").glob("*.json")}
    report = build_folder(plan, tmp_path / "two")
    assert report.found_done == len(kept)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())


def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    """After kill -9 the same command finishes the folder, keeps what was done, and leaves no process behind."""
    north = labelled(tmp_path, events=900)
    command = [
        *(sys.executable, "-m", "pretrain", "pack", str(tmp_path / "out"), "--folder", str(north.folder)),
        *("--shard-size", "20KB", "--workers", "2", "--tune-share", "0.3"),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 60
    while len(done := list((tmp_path / "out" / "shards").glob("*.json"))) < 3 and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(done) >= 3
    assert _over(process.pid), "the workers end with the process that started them"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").glob("*.json")}
    parts = len(json.loads((tmp_path / "out" / "pack.json").read_text())["parts"])
    assert len(before) < parts, "it was killed before its end"
    with pytest.raises(ConfigError, match=f"of {parts} parts are not packed yet; run the same `pretrain pack` again"):
        shards.open_folder(tmp_path / "out")
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"{len(before)} of them there before" in " ".join(said.split())
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    build_folder(plan_of(north, shard_bytes=20_000), tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_interrupted_build_ends_at_once_and_says_so(tmp_path: Path) -> None:
    """Ctrl-C leaves status 130, one line and no half a file, and waits for no part to be finished."""
    north = labelled(tmp_path, events=900)
    command = [
        *(sys.executable, "-m", "pretrain", "pack", str(tmp_path / "out"), "--folder", str(north.folder)),
        *("--shard-size", "20KB", "--workers", "2"),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 60
    while len(list((tmp_path / "out" / "shards").glob("*.json"))) < 3 and time.monotonic() < until:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "pretrain: interrupted\n")
    assert _over(process.pid)
    assert not list((tmp_path / "out" / "shards").glob("*.part"))
    assert len(list((tmp_path / "out" / "shards").glob("*.json"))) >= 3


def _over(group: int) -> bool:
    """Whether all processes of a group end within half a minute."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_another_set_can_be_added_and_nothing_else_changed(tmp_path: Path) -> None:
    """A second build adds its set; another dtype, other data of the same name and a strange folder are refused."""
    north, south = labelled(tmp_path), labelled(tmp_path, "south", 8)
    build_folder(plan_of(north), tmp_path / "out")
    before = contents(tmp_path / "out")
    build_folder(plan_of(south), tmp_path / "out")
    assert len(shards.open_folder(tmp_path / "out").catalogue) == 38
    after = contents(tmp_path / "out")
    assert all(after[name] == data for name, data in before.items() if name != "pack.json")
    with pytest.raises(ConfigError, match="packed with dtype int16, not float16; pack into another folder"):
        build_folder(plan_of(north, dtype="float16"), tmp_path / "out")
    labelled(tmp_path, events=31)
    with pytest.raises(ConfigError, match="holds north packed otherwise"):
        build_folder(plan_of(north), tmp_path / "out")
    with pytest.raises(ConfigError, match="2 inputs are called 'south'"):
        build_folder(plan_of(south, replace(south, folder=tmp_path)), tmp_path / "new")
    with pytest.raises(ConfigError, match="is there already and is no folder of shards"):
        build_folder(plan_of(south), south.folder)


def test_bad_traces_are_skipped_and_counted_by_reason(tmp_path: Path) -> None:
    """Missing components, rates, NaN and constant traces: what can be used is, the rest is counted with its reason."""
    constant, spoilt = np.full((3, 600), 7.0, np.float32), noise(600)
    spoilt[1, 50:60] = np.nan
    rows = [
        row("good", 100), row("vertical", 100, trace_component_order="Z"), row("constant", 100), row("spoilt", 100),
        row("nan", 100), row("slow", 100, trace_sampling_rate_hz=1.0), row("half", 100, trace_sampling_rate_hz=50.0),
        row("lost", 100), row("odd", 100, trace_component_order="ZN"), row("text", "soon"),
        row("letters", 100, trace_component_order="ZUV"), row("dev", 100, split="dev"),
    ]  # fmt: skip
    waveforms = {
        "good": noise(600), "vertical": noise(600)[:1], "constant": constant, "spoilt": spoilt,
        "nan": constant * np.nan, "slow": noise(600), "half": noise(600), "odd": noise(600), "text": noise(600),
        "letters": noise(600), "dev": noise(600),
    }  # fmt: skip
    folder = write_seisbench(tmp_path / "mixed", rows, waveforms)
    report = build_folder(plan_of(Input(kind=SEISBENCH, name="mixed", folder=folder)), tmp_path / "out")
    reading = report.readings["mixed"]
    known = shards.open_folder(tmp_path / "out").catalogue
    assert sorted(known.words["name"][number] for number in range(4)) == ["good", "half", "spoilt", "vertical"]
    assert reading.read == len(known) == 4
    assert reading.skipped == Counter(
        {
            "no data: every component is missing, constant or NaN": 2,
            "sampling rate 1.0 Hz: Onset resamples 20 to 1000 Hz to 100 Hz": 1,
            "no waveform of that name": 1,
            "waveform and component order do not fit": 1,
            "a value that cannot be read": 1,
            "component 'U' is not known": 1,
        }
    )
    assert reading.notes == Counter(
        {
            "2 component(s) missing or constant": 1,
            "with samples that are not finite (not valid)": 1,
            "resampled from 50 Hz": 1,
        }
    )
    assert known.alive.sum(axis=1).tolist().count(1) == 1
    assert any("skipped: no waveform of that name" in line for line in reading.lines())


def test_a_set_without_any_usable_trace_is_one_error_with_its_reasons(tmp_path: Path) -> None:
    """So are a set of other splits, and miniSEED that is none."""
    rows = [row(f"t{k}", 100, trace_sampling_rate_hz=1.0) for k in range(3)]
    folder = write_seisbench(tmp_path / "slow", rows, {f"t{k}": noise(600) for k in range(3)})
    with pytest.raises(ConfigError, match=r"^slow: nothing to pack in it: 3 x sampling rate 1.0 Hz"):
        build_folder(plan_of(Input(kind=SEISBENCH, name="slow", folder=folder)), tmp_path / "a")
    dev = labelled(tmp_path, "devs", split="dev")
    with pytest.raises(ConfigError, match="devs: nothing to pack in it: no trace of split 'train'"):
        build_folder(plan_of(dev), tmp_path / "b")
    assert build_folder(plan_of(dev, rules=Rules(split="all")), tmp_path / "c").readings["devs"].read == 30
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.mseed").write_text("no miniSEED at all")
    with pytest.raises(ConfigError, match="1 x a file that cannot be read as miniSEED"):
        build_folder(plan_of(Input(kind=MINISEED, name="text", folder=tmp_path / "text")), tmp_path / "d")


def test_an_instrument_that_cannot_be_used_does_not_spoil_its_file(tmp_path: Path) -> None:
    """A long-period channel beside a broadband one is counted, the broadband one read."""
    pieces = [(f"CM_CHI_00_{b}_H_{c}", START_NS, rate, noise(4000)[0]) for b, rate in (("H", 100.0), ("L", 1.0))
              for c in "ZNE"]  # fmt: skip
    write_miniseed(tmp_path / "days" / "a.mseed", pieces)
    source = Input(kind=MINISEED, name="days", folder=tmp_path / "days")
    reading = build_folder(plan_of(source), tmp_path / "out").readings["days"]
    assert (reading.read, sum(reading.skipped.values())) == (1, 1)


def test_a_budget_bounds_the_folder_and_every_input_gets_its_share(tmp_path: Path) -> None:
    """A small set goes in whole, a large one in part, from all of it; the folder stays within the budget."""
    large, small = labelled(tmp_path, "large", 200), labelled(tmp_path, "small", 5)
    budget = 150_000
    report = build_folder(plan_of(large, small, budget_bytes=budget, shard_bytes=500_000), tmp_path / "out")
    assert 0.7 * budget < report.size_bytes <= budget
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) == report.size_bytes
    assert report.readings["small"].read == 5
    assert 10 < report.readings["large"].read < 100
    assert report.readings["large"].left_out > 0
    known = shards.open_folder(tmp_path / "out").catalogue
    numbers = [int(name.removeprefix("large")) for name in known.words["name"].texts if name.startswith("large")]
    assert max(numbers) > 100, "not only the first"
    with pytest.raises(ConfigError, match="--budget: too small"):
        build_folder(plan_of(large, small, budget_bytes=1000), tmp_path / "none")


def test_miniseed_with_picks_of_machines_keeps_its_labels(tmp_path: Path) -> None:
    """The kind of input that ``--continuous`` names gives windows with labels, as in the small pack."""
    days(tmp_path)
    write_picks_csv(tmp_path / "days" / "picks_consensus.csv", [("P", 20.0, 0.9), ("S", 25.0, 0.8)])
    source = Input(kind=PICKED, name="days", folder=tmp_path / "days")
    build_folder(plan_of(source, rules=Rules(window_s=30.0)), tmp_path / "out")
    known = shards.open_folder(tmp_path / "out").catalogue
    pseudo = np.flatnonzero(known.words["kind"].among(["pseudo"]))
    assert len(pseudo) == 1
    assert known.label_phase[known.labels(int(pseudo[0]))].tolist() == [0, 1]


def test_damage_is_named_with_its_mend(tmp_path: Path) -> None:
    """A cut shard, a spoilt catalogue, a plan that is none, another version and no folder."""
    out = tmp_path / "out"
    build_folder(plan_of(labelled(tmp_path), shard_bytes=10**9), out)
    (codes,), (catalogue,) = (list((out / "shards").glob(f"*.{end}")) for end in ("npy", "catalogue"))
    for path, match in ((codes, "of the wrong length|damaged"), (catalogue, "damaged"), (out / "pack.json", "damaged")):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ConfigError, match=match):
            shards.open_folder(out)
        path.write_bytes(whole)
    plan = json.loads((out / "pack.json").read_text())
    (out / "pack.json").write_text(json.dumps(plan | {"version": 99}))
    with pytest.raises(ConfigError, match="version 99, this Onset reads 1; pack again"):
        shards.open_folder(out)
    with pytest.raises(ConfigError, match=r"pack\.json: missing; write a folder of shards with `pretrain pack`"):
        shards.open_folder(tmp_path)
