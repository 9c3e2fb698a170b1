"""The training pack: fidelity, folds, budget, determinism, and the command that writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from waveforms import START_NS, noise, row, write_miniseed, write_picks_csv, write_seisbench

from picker.errors import ConfigError
from pretrain.cli import main
from pretrain.data.build import PackPlan, build_pack
from pretrain.data.codec import decode, encode
from pretrain.data.folds import hold_out
from pretrain.data.pack import load_pack, pack_trace, save_pack
from pretrain.data.trace import Label, Trace


def trace_of(waveform: np.ndarray, **more: object) -> Trace:
    """A trace that is valid throughout."""
    return Trace(name="a", waveform=waveform, valid=np.ones(waveform.shape, bool), **more)  # type: ignore[arg-type]


def test_a_quake_a_million_times_the_noise_neither_clips_nor_drowns_it() -> None:
    """Before the onset the error stays a small part of the noise, and the largest peak comes back."""
    waveform = noise(6000)
    waveform[:, 3000:] += 1e6 * np.sin(np.arange(3000) / 5) * np.exp(-np.arange(3000) / 600)
    data, coding = encode(waveform, np.ones(waveform.shape, bool))
    back = decode(data, coding)
    assert coding.dtype == "<i4"
    assert np.std((back - waveform)[:, :3000]) < 0.05
    assert np.abs(back - waveform)[:, 3000:].max() < 0.2


def test_noise_under_a_large_microseism_keeps_its_counts() -> None:
    """The step follows the noise above the microseism, not the microseism."""
    swell = 2000 * np.sin(2 * np.pi * 0.2 * np.arange(6000) / 100)
    waveform = (swell + np.round(noise(6000, level=100)) / 10).astype(np.float32)
    data, coding = encode(waveform, np.ones(waveform.shape, bool))
    assert np.std(decode(data, coding) - waveform) < 10 / 8


def test_quiet_integer_counts_come_back_exactly_and_small() -> None:
    """Integer data with a noise of three counts lose nothing, and take less than a byte a sample."""
    waveform = np.round(noise(6000, level=3)).astype(np.float32)
    data, coding = encode(waveform, np.ones(waveform.shape, bool))
    np.testing.assert_array_equal(decode(data, coding), waveform)
    assert len(data) < waveform.size


def test_a_trace_comes_back_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    """Labels, doubtful picks, valid runs and words survive the file; invalid samples are zero."""
    waveform, valid = noise(1000), np.ones((3, 1000), bool)
    valid[0, 100:200] = valid[2] = False
    trace = Trace(
        name="a", waveform=waveform, valid=valid, labels=(Label(phase="P", sample=10.25, weight=0.5),),
        doubtful=(Label(phase="S", sample=99.0, weight=0.1),), kind="pseudo", fold="tune", status="s", split="train",
        source="x/y", group="g",
    )  # fmt: skip
    save_pack(tmp_path / "p.npz", [pack_trace(trace)])
    (back,) = load_pack(tmp_path / "p.npz")
    for word in ("name", "labels", "doubtful", "kind", "fold", "status", "split", "source", "group"):
        assert getattr(back, word) == getattr(trace, word), word
    np.testing.assert_array_equal(back.valid, valid)
    assert not back.waveform[~valid].any()


def test_folds_are_chosen_and_damage_is_named(tmp_path: Path) -> None:
    """``folds`` and ``kinds`` filter; a cut file, another file and no file are errors that name it."""
    path = tmp_path / "p.npz"
    traces = [trace_of(noise(300), fold=fold, kind=kind) for fold, kind in (("train", "noise"), ("tune", "labelled"))]
    save_pack(path, map(pack_trace, traces))
    assert [t.kind for t in load_pack(path, folds=("tune",))] == ["labelled"]
    assert [t.fold for t in load_pack(path, kinds=("noise",))] == ["train"]
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"p\.npz: damaged or not a pack"):
            load_pack(path)
    with pytest.raises(ConfigError, match="no such pack"):
        load_pack(tmp_path / "none.npz")


def test_the_sizes_of_many_small_traces_bound_the_file(tmp_path: Path) -> None:
    """What a trace is said to take covers its entry in the index: a thousand tiny ones fit within the sum."""
    packed = [pack_trace(trace_of(noise(5, seed))) for seed in range(1000)]
    assert save_pack(tmp_path / "p.npz", packed) <= sum(item.size for item in packed) + 1024


def test_events_are_held_out_whole_from_every_source() -> None:
    """About the share of each source's events is held out, never a part of one, never of another split."""
    traces = [
        trace_of(noise(10), split=split, source=source, status="manual", group=f"{source}{split}{event}", fold=split)
        for split in ("train", "dev")
        for source in ("north", "south")
        for event in range(25)
        for _station in range(3)
    ]
    held = hold_out(traces, 0.12)
    tune = {t.group for t in held if t.fold == "tune"}
    assert {t.group for t in held if t.fold != "tune"}.isdisjoint(tune)
    assert (
        sorted(source for group in tune for source in ("north", "south") if source in group)
        == ["north"] * 3 + ["south"] * 3
    )
    assert all("train" in group for group in tune)
    assert tune == {t.group for t in hold_out(reversed(traces), 0.12) if t.fold == "tune"}, "order does not matter"


def data_folders(root: Path, events: int = 10) -> tuple[Path, Path]:
    """A labelled folder of ``events`` records, and ten minutes of two stations, one dense with picks and one quiet."""
    rows = [row(f"e{k}", 1000, 1500) for k in range(events)] + [row("dev", 1000, split="dev")]
    labelled = write_seisbench(
        root / "labelled", rows, {str(r["trace_name"]): noise(3000, k) for k, r in enumerate(rows)}
    )
    for station, seed in (("CHI", 1), ("YOT", 2)):
        samples = [
            (f"CM_{station}_00_H_H_{c}", START_NS, 100.0, noise(60_000, seed, 50)[k]) for k, c in enumerate("ZNE")
        ]
        write_miniseed(root / "continuous" / "train" / f"{station}.mseed", samples)
    write_picks_csv(root / "continuous" / "picks_consensus.csv", [("P", 40.0 + 50 * k, 0.7) for k in range(11)])
    return labelled, root / "continuous"


def test_the_pack_takes_all_labelled_traces_then_windows_in_turn_within_the_budget(tmp_path: Path) -> None:
    """The file stays within its budget, holds every labelled trace of the split, and windows of both stations."""
    labelled, continuous = data_folders(tmp_path)
    everything = build_pack(
        PackPlan(labelled=labelled, continuous=continuous, budget_bytes=2**30), tmp_path / "all.npz"
    )
    assert everything.left_out == 0
    budget = everything.size_bytes * 2 // 3
    report = build_pack(PackPlan(labelled=labelled, continuous=continuous, budget_bytes=budget), tmp_path / "some.npz")
    assert report.left_out > 0
    assert (tmp_path / "some.npz").stat().st_size == report.size_bytes <= budget
    traces = load_pack(tmp_path / "some.npz")
    assert sum(t.kind == "labelled" for t in traces) == 10
    assert sum(t.fold == "tune" for t in traces if t.kind == "labelled") == 1
    assert {t.source for t in traces if t.kind != "labelled"} == {"continuous/CM.CHI", "continuous/CM.YOT"}
    assert all(t.fold == "train" for t in traces if t.kind == "pseudo")
    with pytest.raises(ConfigError, match="raise --budget"):
        build_pack(PackPlan(labelled=labelled, continuous=None, budget_bytes=10_000), tmp_path / "none.npz")


def test_the_command_writes_the_same_bytes_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``pretrain pack`` says what went in, and a second run gives the same file to the last bit."""
    labelled, continuous = data_folders(tmp_path, events=4)
    for name in ("one.npz", "two.npz"):
        arguments = ["--labelled", str(labelled), "--continuous", str(continuous), "--budget", "2MiB"]
        assert main(["pack", str(tmp_path / name), *arguments]) == 0
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    said = capsys.readouterr().out
    assert "labelled, fold train" in said
    assert "one.npz: " in said.replace("\n", "")


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to pack is exit status 2 and one line on stderr; a size that is none is a usage error."""
    assert main(["pack", str(tmp_path / "p.npz")]) == 2
    assert (
        capsys.readouterr().err
        == "pretrain: nothing to pack: give --labelled, --continuous, --picked, --set or --folder\n"
    )
    with pytest.raises(SystemExit) as stop:
        main(["pack", str(tmp_path / "p.npz"), "--budget", "much"])
    assert stop.value.code == 2
    assert "'much' is not a size" in capsys.readouterr().err
