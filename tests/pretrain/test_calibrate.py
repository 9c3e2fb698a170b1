"""Choosing thresholds and fitting a calibration: what is known of made-up pickers is found again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle
from waveforms import START_NS, bump, row, write_miniseed, write_picks_csv, write_seisbench

from picker.calibration import Calibration
from picker.errors import ConfigError
from picker.spec import PickerSpec
from pretrain.calibrate import FalseRates, choose_thresholds, held_stretches
from pretrain.cli import main
from pretrain.data.blocks import BLOCK_S, held_spans, is_held, touches_held
from pretrain.data.continuous import StationCode, StationRecord
from pretrain.data.windows import cut_windows
from pretrain.evaluate import GRID, Evaluation
from pretrain.fit import FORMS, by_source, fit_probability, fit_width, weighted_quantile
from pretrain.metric import PhaseScore, Tally

BLOCK_NS = BLOCK_S * 10**9


def made_up(temperature: float, bias: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Raw probabilities of picks that are right as often as the scaled probability says."""
    random = np.random.default_rng(5)
    raw = random.uniform(0.3, 0.98, count)
    scaled = 1 / (1 + np.exp(-(np.log(raw / (1 - raw)) / temperature + bias)))
    return raw, random.random(count) < scaled, [f"event {k // 3}" for k in range(count)]


@pytest.mark.parametrize(
    ("temperature", "bias", "form"), [(0.5, 0.0, "temperature"), (2.0, 1.0, "temperature and bias")]
)
def test_temperature_and_bias_are_found_again(temperature: float, bias: float, form: str) -> None:
    """Of many picks, to a tenth; a bias is taken only where there is one."""
    fit = fit_probability(*made_up(temperature, bias))
    assert max(FORMS, key=lambda one: fit.held_out[one]) == form
    assert fit.temperature == pytest.approx(temperature, rel=0.1)
    assert fit.bias == pytest.approx(bias, abs=0.15)


def test_few_and_perfect_picks_do_not_run_away() -> None:
    """Twenty picks, all right: the temperature stays a number that leaves room for a wrong one."""
    raw = np.linspace(0.4, 0.9, 20)
    fit = fit_probability(raw, np.ones(20, bool), [str(k) for k in range(20)])
    assert 0.2 <= fit.temperature <= 10
    assert abs(fit.bias) <= 4


@pytest.mark.parametrize(("factor", "floor"), [(0.5, 0.0), (0.0, 6.0), (0.4, 4.0)])
def test_width_is_found_again(factor: float, floor: float) -> None:
    """68 % of residuals lie within, and where the width tells nothing it is not asked."""
    random = np.random.default_rng(2)
    widths = random.uniform(4, 30, 3000)
    residuals = np.hypot(factor * widths, floor) * random.normal(size=3000)
    found = fit_width(widths, residuals, np.ones(3000))
    stated = np.hypot(found[0] * widths, found[1])
    assert (np.abs(residuals) <= stated).mean() == pytest.approx(0.6827, abs=0.005)
    assert stated == pytest.approx(np.hypot(factor * widths, floor), rel=0.2)


def test_sources_count_alike() -> None:
    """A hundred picks of one source weigh as much as ten of another."""
    weights = by_source(["a"] * 100 + ["b"] * 10)
    assert weights[:100].sum() == pytest.approx(weights[100:].sum())
    values = np.concatenate([np.linspace(0, 1, 100), np.linspace(10, 11, 10)])
    assert weighted_quantile(values, weights, 0.25) == pytest.approx(0.5, abs=0.02)
    assert weighted_quantile(values, weights, 0.75) == pytest.approx(10.5, abs=0.1)


def swept(f1: dict[str, dict[float, int]], noise_picks: int = 0, noise_hours: float = 0.0) -> Evaluation:
    """An evaluation of which only the sweep matters: hits of 100 by phase and threshold, without false picks."""

    def of(phase: str, threshold: float) -> PhaseScore:
        hits = max((v for t, v in f1[phase].items() if t <= threshold), default=0)
        tally = Tally(labels=100, hits=hits, false_picks=0)
        return PhaseScore(
            tallies={0.1: tally, 0.5: tally},
            residuals_s=np.zeros(0),
            noise_picks=noise_picks if threshold < 0.5 else 0,
            noise_hours=noise_hours,
        )

    sweep = {threshold: {phase: of(phase, threshold) for phase in "PS"} for threshold in GRID}
    return Evaluation(references=[], picks=[], thresholds={"P": 0.3, "S": 0.3}, sweep=sweep)


def test_thresholds_keep_the_limit_of_false_picks() -> None:
    """F1 is best at the lowest threshold; neither phase may have more than two false picks an hour."""
    # Hits fall as the threshold rises.
    evaluation = swept({"P": {0.0: 0}, "S": {0.0: 0}})
    for threshold, scores in evaluation.sweep.items():
        for phase, worth in (("P", 100), ("S", 50)):
            tally = Tally(labels=100, hits=round(worth * (1 - threshold)), false_picks=0)
            scores[phase].tallies.update({0.1: tally, 0.5: tally})  # type: ignore[attr-defined]
    free, within = choose_thresholds(evaluation)
    assert within
    assert free == {"P": 0.1, "S": 0.1}
    many = {"P": 40, "S": 80}
    alone = {phase: {threshold: round(many[phase] * (1 - threshold)) for threshold in GRID} for phase in "PS"}
    chosen, within = choose_thresholds(evaluation, FalseRates(hours=10.0, alone=alone), most_false=2.0)
    assert within
    assert chosen == {"P": 0.5, "S": 0.75}, "the first of each with 20 in ten hours"
    fewest, within = choose_thresholds(evaluation, FalseRates(hours=0.1, alone=alone), most_false=2.0)
    assert not within
    assert fewest == {"P": 0.9, "S": 0.9}


def test_noise_records_have_a_say_when_they_are_sure() -> None:
    """Fifty picks in an hour of noise rule thresholds out, one pick in a minute does not."""
    f1 = {"P": {0.0: 90, 0.5: 60}, "S": {0.0: 90, 0.5: 60}}
    for scores in (swept(f1, 1, 1 / 60), swept(f1, 50, 1.0)):
        for threshold, by_phase in scores.sweep.items():
            tally = Tally(labels=100, hits=90 if threshold < 0.5 else 60, false_picks=0)
            for phase in "PS":
                by_phase[phase].tallies.update({0.1: tally, 0.5: tally})  # type: ignore[attr-defined]
        chosen, within = choose_thresholds(scores)
        assert within
        assert (chosen["P"] < 0.5) == (scores.sweep[0.1]["P"].noise_picks == 1)


def test_blocks_are_held_out_for_every_station() -> None:
    """About the share that was asked for, by time alone; spans and touching agree with the blocks."""
    held = [block for block in range(2000) if is_held(block * BLOCK_NS, 0.15)]
    assert 0.12 < len(held) / 2000 < 0.18
    block = held[0]
    assert is_held(block * BLOCK_NS + BLOCK_NS - 1, 0.15)
    assert touches_held(block * BLOCK_NS - 10, block * BLOCK_NS + 10, 0.15)
    spans = list(held_spans(0, 2000 * BLOCK_NS, 0.15))
    assert sum(end - start for start, end in spans) == len(held) * BLOCK_NS
    assert all(is_held(start, 0.15) and is_held(end - 1, 0.15) and not is_held(end, 0.15) for start, end in spans[:-1])
    middle = block * BLOCK_NS + BLOCK_NS // 2
    assert next(held_spans(middle, middle + 1000, 0.15)) == (middle, middle + 1000)


def station(blocks: int, start_ns: int) -> StationRecord:
    random = np.random.default_rng(0)
    samples = blocks * BLOCK_S * 100
    return StationRecord(
        file="a.mseed",
        code=StationCode("CM", "CHI", "00"),
        band_instrument="HN",
        start_ns=start_ns,
        waveform=random.normal(size=(3, samples)).astype(np.float32),
        valid=np.ones((3, samples), bool),
    )


def test_windows_keep_off_held_blocks_and_stretches_are_those() -> None:
    """No training window touches a held-out block; `calibrate` streams exactly these, after a minute of warming up."""
    record = station(30, 1_577_214_000 * 10**9 // BLOCK_NS * BLOCK_NS)
    windows = list(cut_windows(record, [], [], held_share=0.15))
    free = list(cut_windows(record, [], []))
    assert windows
    assert 0 < len(free) - len(windows) < len(free)
    assert {trace.channel for trace in windows} == {"HN"}
    stretches = held_stretches([record], 0.15)
    held = sum(is_held(record.start_ns + k * BLOCK_NS, 0.15) for k in range(30))
    assert sum(piece.waveform.shape[1] - warm for piece, warm in stretches) == held * BLOCK_S * 100
    for piece, warm in stretches:
        assert warm in (0, 6000)
        at = round((piece.start_ns - record.start_ns) / 10**7)
        expected = record.waveform[:, at : at + 1000] - record.waveform[:, at : at + 1]
        np.testing.assert_allclose(piece.waveform[:, :1000], expected, atol=1e-5)


def test_the_command_writes_what_export_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Thresholds, calibration and what they rest on; a pick of its own on held-out data counts against a threshold."""
    rows, waveforms = [], {}
    for k in range(60):
        rows.append(row(f"r{k}", 1000, 1500, source_id=f"event {k}", trace_p_status="manual"))
        height = 0.55 + 0.4 * (k % 8) / 8
        waveforms[f"r{k}"] = bump(2500, (0, 1000 + k % 7 - 3, height), (1, 1500 + k % 9 - 4, height), (0, 1300, 0.35))
        waveforms[f"r{k}"] += np.float32(1e-6) * (np.arange(2500) % 2)
    data = write_seisbench(tmp_path / "d", rows, waveforms)
    bundle = write_tiny_bundle(tmp_path / "bundle")
    out = tmp_path / "c.json"
    counts = np.zeros(720_000, dtype=np.int32)
    counts[::50] = -1
    counts[0] = 0
    write_miniseed(tmp_path / "c" / "train" / "a.mseed", [("CM_CHI_00_H_H_Z", START_NS, 100.0, counts)])
    write_picks_csv(tmp_path / "c" / "picks_machine.csv", [("P", 100.3, 0.5)])
    words = ["--fold", "train", "--continuous", str(tmp_path / "c"), "--out", str(out)]
    assert main(["calibrate", str(bundle), str(data), *words]) == 0
    said = capsys.readouterr().out
    assert "P: threshold 0.4" in said
    result = Calibration.from_json(out.read_text(), "c.json")
    assert result.fitted["fold"] == "train"
    assert result.fitted["P"]["fitted"] is True
    assert set(json.loads(out.read_text())["phases"]["P"]) == {"temperature", "bias", "width_factor", "floor_samples"}
    spec = PickerSpec.from_json((bundle / "spec.json").read_text(), "spec.json")
    (bundle / "spec.json").write_text(replace(spec, calibration=result.phases).to_json())
    assert main(["calibrate", str(bundle), str(data), *words]) == 0
    again = Calibration.from_json(out.read_text(), "c.json")
    assert again.phases == result.phases, "what a bundle states already is not fitted upon"
    assert (
        main(["calibrate", str(bundle), str(data), "--fold", "train", "--threshold-p", "0.7", "--out", str(out)]) == 0
    )
    assert Calibration.from_json(out.read_text(), "c.json").thresholds["P"] == 0.7
    assert main(["calibrate", str(bundle), str(data), "--rough", "manual", "--fold", "train", "--out", str(out)]) == 2


def test_a_fold_without_records_is_named(tmp_path: Path) -> None:
    """Not an empty calibration."""
    data = write_seisbench(tmp_path / "d", [row("a", 500, 900)], {"a": bump(2000, (0, 500, 0.9))})
    from pretrain.evaluate import read_traces

    with pytest.raises(ConfigError, match="fold 'tune'"):
        read_traces(data, fold="tune")
