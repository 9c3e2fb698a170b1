"""Evaluation through an exported graph: what is streamed, what is decided, what is written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle
from waveforms import START_NS, bump, row, write_miniseed, write_picks_csv, write_seisbench

from picker.bundle import load_bundle
from picker.decision import decide
from picker.drive import stream
from picker.errors import ConfigError
from picker.stepper import OnnxStepper
from pretrain.cli import main
from pretrain.data.pack import pack_trace, save_pack
from pretrain.data.trace import Label, Trace
from pretrain.evaluate import batches, best_thresholds, evaluate, read_traces, streamed

Z, N = 0, 1


@pytest.fixture
def stepper(tmp_path: Path) -> OnnxStepper:
    return OnnxStepper(load_bundle(write_tiny_bundle(tmp_path / "bundle")))


def labelled_folder(folder: Path) -> Path:
    """Two events of which the tiny bundle finds three of four onsets, a noise record with a pick, and a train event."""
    rows = [
        row("first", 1000, 1500, split="dev", data_source="here"),
        row("second", 2000, 2600, split="dev", data_source="there"),
        row("quiet", split="dev", data_source="there"),
        row("other", 500, 900),
    ]
    waveforms = {
        "first": bump(3000, (Z, 1004, 0.9), (N, 1500, 0.8), (Z, 1200, 0.2)),
        "second": bump(4500, (Z, 1970, 0.6), (N, 2900, 0.7)),
        "quiet": bump(6000, (Z, 3000, 0.5)),
        "other": bump(2000, (Z, 500, 0.9), (N, 900, 0.4)),
    }
    for waveform in waveforms.values():  # never flat: a flat component is no data
        waveform += np.float32(1e-6) * (np.arange(waveform.shape[1]) % 2)
    return write_seisbench(folder, rows, waveforms)


def test_picks_lie_where_the_waveform_says(stepper: OnnxStepper, tmp_path: Path) -> None:
    """The look-ahead is taken off: a triangle that peaks at a sample is a pick at that sample."""
    evaluation = evaluate(stepper, read_traces(labelled_folder(tmp_path / "d"), split="dev"))
    found = [(p.trace_name, p.phase, round(p.sample, 2), round(p.probability, 3)) for p in evaluation.picks]
    assert found == [
        ("first", "P", 1004.0, 0.9),
        ("first", "P", 1200.0, 0.2),
        ("first", "S", 1500.0, 0.8),
        ("second", "P", 1970.0, 0.6),
        ("second", "S", 2900.0, 0.7),
        ("quiet", "P", 3000.0, 0.5),
    ]
    scores = evaluation.scores()
    assert [scores["P"].tallies[t].hits for t in (0.1, 0.5)] == [1, 2]
    assert (scores["S"].tallies[0.5].hits, scores["S"].tallies[0.5].false_picks) == (1, 1)
    assert scores["P"].false_per_noise_hour == pytest.approx(60.0)
    assert evaluation.sweep[0.15]["P"].tallies[0.5].false_picks == 1
    assert evaluation.sweep[0.65]["P"].noise_picks == 0


def test_batches_change_nothing(stepper: OnnxStepper) -> None:
    """Records streamed in one padded batch give, to the last bit, what each gives alone; every record comes once."""
    draw = np.random.default_rng(0)
    shapes = [(3, int(n)) for n in draw.integers(100, 2000, 40)]
    records = [(draw.random(s).astype(np.float32), draw.random(s) < 0.9) for s in shapes]
    seen = dict(streamed(stepper, records))
    assert sorted(seen) == list(range(40))
    for index, (waveform, valid) in enumerate(records):
        np.testing.assert_array_equal(seen[index], stream(stepper, waveform[None], valid[None])[0])


def test_batches_are_bounded() -> None:
    """No batch holds more than 32 records or, padded, more than 20 million samples; nothing is lost."""
    lengths = [9000] * 70 + [15_000_000, 4_000_000, 10]
    sizes = batches(lengths)
    assert sorted(index for batch in sizes for index in batch) == list(range(73))
    assert all(len(batch) <= 32 for batch in sizes)
    assert all(len(batch) * max(lengths[k] for k in batch) <= 20_000_000 for batch in sizes)


def test_the_picks_at_the_thresholds_in_use_are_the_deciders(stepper: OnnxStepper) -> None:
    """Cut at the thresholds, the sweepable picks are what the decider gives there, though lower down one is hidden.

    The probability rests at 0.2 between two peaks: a decider at 0.1 stays closed after the first.
    """
    waveform = bump(3000, (Z, 1000, 0.7), (Z, 1400, 0.6))
    waveform[Z, 1003:1398] = 0.2
    waveform[Z, 0] = 0.0
    trace = Trace(name="a", waveform=waveform, valid=np.ones(waveform.shape, bool))
    evaluation = evaluate(stepper, [trace], {"P": 0.5, "S": 0.5})
    kept = [(pick.phase, pick.sample) for pick in evaluation.picks if pick.probability >= 0.5]
    probabilities = stream(stepper, waveform[None])[0]
    rules_free = [(pick.phase, pick.sample) for pick in decide(stepper.spec, probabilities)]
    assert kept == rules_free
    assert len(kept) == 2


def test_the_best_threshold_lies_where_f1_stays_high(stepper: OnnxStepper) -> None:
    """Real onsets at 0.6, false ones at 0.37: the best threshold separates them and keeps off the edges."""
    waveform = bump(4000, (Z, 1000, 0.6), (Z, 1300, 0.37), (N, 1500, 0.9))
    trace = Trace(name="a", waveform=waveform, valid=np.ones(waveform.shape, bool))
    labels = (Label(phase="P", sample=1000.0), Label(phase="S", sample=1500.0))
    labelled = Trace(name="b", waveform=trace.waveform, valid=trace.valid, labels=labels)
    assert best_thresholds(evaluate(stepper, [labelled])) == {"P": 0.45, "S": 0.1}


def test_thresholds_out_of_range_and_empty_choices_are_errors(stepper: OnnxStepper, tmp_path: Path) -> None:
    """A threshold of 1 and a split that is not there are named."""
    folder = labelled_folder(tmp_path / "d")
    with pytest.raises(ConfigError, match="threshold of P is 1"):
        evaluate(stepper, read_traces(folder), {"P": 1.0})
    with pytest.raises(ConfigError, match="no trace of split 'test'"):
        read_traces(folder, split="test")


def test_the_command_writes_picks_figures_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``pretrain evaluate`` prints a row a source and phase and writes CSV, JSON and PNG."""
    bundle, data = write_tiny_bundle(tmp_path / "bundle"), labelled_folder(tmp_path / "d")
    out = {name: tmp_path / "out" / name for name in ("picks.csv", "all.json", "page.png")}
    words = ["--split", "dev", "--status", "manual", "--threshold-p", "0.55", "--picks", str(out["picks.csv"])]
    words += ["--json", str(out["all.json"]), "--plot", str(out["page.png"])]
    assert main(["evaluate", str(bundle), str(data), *words]) == 0
    said = capsys.readouterr().out
    assert "tiny-" in said
    assert "here" in said
    with out["picks.csv"].open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["trace_name", "phase", "sample", "probability", "stated_probability", "uncertainty_s"]
    assert rows[1][:2] == ["first", "P"]
    assert float(rows[1][2]) == pytest.approx(1004, abs=0.01)
    figures = json.loads(out["all.json"].read_text())
    assert figures["thresholds"] == {"P": 0.55, "S": 0.3}
    tally = figures["all"]["P"]["0.5s"]
    assert {key: tally[key] for key in ("n", "recall", "precision", "f1")} == {
        "n": 2, "recall": 1.0, "precision": 1.0, "f1": 1.0
    }  # fmt: skip
    assert tally["within"]["f1"] == [1.0, 1.0]
    assert figures["latency_s"]["P"]["picks"] == 2
    assert set(figures["by_instrument"]) == {"unknown"}
    assert set(figures["by_s_minus_p"]) == {"5 to 10 s"}
    assert figures["all"]["P"]["false_per_noise_hour"] == 0.0
    assert set(figures["by_source"]) == {"here", "there"}
    assert figures["sweep"]["0.50"]["P"]["false_per_noise_hour"] == 60.0
    assert out["page.png"].read_bytes().startswith(b"\x89PNG")


def test_tune_uses_only_the_held_out_fold_of_a_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--tune`` on a pack evaluates its fold tune and prints thresholds ready to be used."""
    bundle, data = write_tiny_bundle(tmp_path / "bundle"), labelled_folder(tmp_path / "d")
    traces = read_traces(data)
    packed = [pack_trace(Trace(**{**vars(t), "fold": "tune" if t.name == "first" else "train"})) for t in traces]
    save_pack(tmp_path / "p.npz", packed)
    assert main(["evaluate", str(bundle), str(tmp_path / "p.npz"), "--tune"]) == 0
    said = capsys.readouterr().out
    assert "1 records" in said
    assert "best on fold tune: --threshold-p" in said


def test_continuous_picks_are_counted_against_other_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pick that another machine has is not alone, one beside a pick of the other phase is; consensus picks outside
    the data are not asked, and the interval of a rate is Poisson's."""
    monkeypatch.setenv("COLUMNS", "200")
    counts = np.zeros(36_000, dtype=np.int32)
    counts[::50] = -1
    counts[0] = 0
    counts[[10_000, 12_000]] = 1
    pieces = [("CM_CHI_00_H_H_Z", START_NS, 100.0, counts)]
    write_miniseed(tmp_path / "data" / "dev" / "CHI.mseed", pieces)
    write_picks_csv(tmp_path / "data" / "picks_machine.csv", [("P", 100.3, 0.5), ("S", 120.0, 0.5)])
    write_picks_csv(
        tmp_path / "data" / "picks_consensus.csv", [("P", 100.3, 0.5), ("P", 300.0, 0.5), ("P", 900.0, 0.5)]
    )
    bundle = write_tiny_bundle(tmp_path / "bundle", {"P": 0.9, "S": 0.9})
    words = ["--split", "dev", "--json", str(tmp_path / "c.json")]
    assert main(["evaluate-continuous", str(bundle), str(tmp_path / "data"), *words]) == 0
    said = capsys.readouterr().out
    cells = next(line for line in said.splitlines() if "CM.CHI.00.HH" in line).replace("│", " ").split()
    figures = json.loads((tmp_path / "c.json").read_text())
    assert figures["all"]["P"]["alone"] == 1
    assert figures["all"]["P"]["alone_of_any"] == 0
    assert figures["all"]["false_per_hour"] == {"value": 10.0, "within": pytest.approx([0.253, 55.716], abs=0.01)}
    assert figures["by_instrument"]["velocity"]["P"]["agreement"] == 0.5
    assert "an hour of one station: 10.00 (0.25 to 55.72)" in " ".join(said.split())
    assert cells == ["CM.CHI.00.HH", "2019-12-24", "0.10", "20.0", "(10.0)", "1/2", "0.0", "(0.0)", "0/0"]


def test_python_m_pretrain_answers_without_a_deep_learning_framework() -> None:
    """``--version`` and ``--help`` work as a module, and neither they nor the evaluation reach PyTorch."""
    code = (
        "import sys; import pretrain.cli, pretrain.evaluate; pretrain.cli.parser();"
        "sys.exit(any(m in sys.modules for m in ('torch', 'scipy', 'matplotlib', 'obspy')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    run = subprocess.run(
        [sys.executable, "-m", "pretrain", "--version"], check=True, env=environment, capture_output=True, text=True
    )
    assert run.stdout.startswith("onset ")


def test_errors_are_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bundle that is not there is named on stderr, without a traceback."""
    assert main(["evaluate", str(tmp_path / "none"), str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pretrain: ")
    assert "none: no such bundle folder" in error
    assert error.count("\n") == 1
