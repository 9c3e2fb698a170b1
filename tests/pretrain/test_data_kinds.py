"""What a trace counts as: teleseisms and quarry blasts as noise, simulated records and how often they are drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from waveforms import noise, row, write_seisbench

from pretrain.bank import Bank, draw_weights, trust_of
from pretrain.cli import main
from pretrain.data.pack import load_pack
from pretrain.data.seisbench import read_seisbench

SHARES = {"manual": 0.5, "simulated": 0.2, "noise": 0.3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A local earthquake, a teleseism and two quarry blasts, the categories spelt as sets spell them."""
    categories = ["earthquake_local", "teleseism", "quarry_blast", "Quarry Blast"]
    rows = [row(f"r{k}", 700, 900, trace_category=category) for k, category in enumerate(categories)]
    return write_seisbench(tmp_path / "mine", rows, {f"r{k}": noise(2000, k) for k in range(4)})


@pytest.mark.parametrize("option", ["--labelled", "--folder"])
def test_categories_are_learnt_as_noise_where_one_says_so(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """Into a file by either option: without labels, as noise records are; by default they are earthquakes."""
    out = tmp_path / "p.npz"
    assert main(["pack", str(out), option, str(folder)]) == 0
    assert [len(trace.labels) for trace in load_pack(out)] == [2] * 4
    more = ["--as-noise", "teleseism", "--as-noise", "quarry blast"]
    assert main(["pack", str(out), option, str(folder), *more]) == 0
    traces = {trace.name: trace for trace in load_pack(out)}
    assert [traces[f"r{k}"].kind for k in range(4)] == ["labelled", "noise", "noise", "noise"]
    assert [len(traces[f"r{k}"].labels) for k in range(4)] == [2, 0, 0, 0]
    assert {traces[f"r{k}"].status for k in range(1, 4)} == {"noise"}
    if option == "--folder":
        assert "2  used: quarry blast as noise" in capsys.readouterr().out


def test_a_folder_of_shards_keeps_to_its_categories(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same folder packed by another rule is refused."""
    command = ["pack", str(tmp_path / "out"), "--folder", str(folder), "--workers", "1"]
    assert main([*command, "--as-noise", "teleseism"]) == 0
    assert main([*command, "--as-noise", "teleseism"]) == 0
    assert main(command) == 2
    assert "packed with as_noise ['teleseism'], not []" in capsys.readouterr().err


def test_simulated_records_are_packed_with_labels_into_folds_and_drawn_by_a_share_of_their_own(
    tmp_path: Path, folder: Path
) -> None:
    """From the command that simulates to the bank: its status is ``simulated``, which a share of draws may name."""
    made, out = tmp_path / "simulated", tmp_path / "p.npz"
    assert main(["simulate", str(made), "--count", "40", "--seconds", "30", "--seed", "3"]) == 0
    assert main(["pack", str(out), "--folder", str(folder), "--folder", str(made), "--tune-share", "0.3"]) == 0
    traces = load_pack(out)
    simulated = [trace for trace in traces if trace.status == "simulated"]
    folds = Counter(trace.fold for trace in simulated)
    assert len(simulated) > 25
    assert folds["train"] > folds["tune"] > 2
    assert {label.phase for trace in simulated for label in trace.labels} == {"P", "S"}
    weights = draw_weights(traces, SHARES)
    share = sum(weight for weight, trace in zip(weights, traces, strict=True) if trace.status == "simulated")
    assert share == pytest.approx(0.2, abs=0.001)
    assert Bank(traces, SHARES, torch.device("cpu")).has_noise
    without = draw_weights(traces, SHARES | {"simulated": 0.0})
    assert not any(weight for weight, trace in zip(without, traces, strict=True) if trace.status == "simulated")


def test_an_arrival_that_a_set_calls_doubtful_is_neither_learnt_nor_denied(tmp_path: Path) -> None:
    """The column that ``pretrain simulate`` writes for arrivals too faint for a label."""
    rows = [row("a", 500, None, trace_s_doubtful_sample=900.0), row("b", 500, 800)]
    made = write_seisbench(tmp_path / "set", rows, {"a": noise(2000), "b": noise(2000, 1)})
    first, second = read_seisbench(made)
    assert [(label.phase, label.sample) for label in first.doubtful] == [("S", 900.0)]
    assert [label.phase for label in first.labels] == ["P"]
    assert not trust_of(first)[800:1000].any()
    assert second.doubtful == ()
