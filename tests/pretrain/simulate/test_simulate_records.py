"""Whole records: labels, determinism, formats and the sub-command."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from picker.errors import ConfigError
from pretrain.cli import main
from pretrain.data.pack import load_pack
from pretrain.data.seisbench import read_seisbench
from pretrain.data.trace import LABELLED, NOISE, RATE_HZ, Trace
from pretrain.simulate.crew import PACK, SEISBENCH, make_all
from pretrain.simulate.recording import Recording, signal_to_noise, simulate
from pretrain.simulate.settings import SimulationSettings

SETTINGS = SimulationSettings(seconds=40, seed=5, gap_share=0.2, glitch_share=0.2)
COUNT = 40


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    """Forty records of 40 s, some with faults."""
    return [simulate(SETTINGS, index) for index in range(COUNT)]


def same(one: Trace, other: Trace) -> bool:
    """The two traces are the same in waveform, gaps, labels and kind."""
    return (
        np.array_equal(one.waveform, other.waveform)
        and np.array_equal(one.valid, other.valid)
        and (one.labels, one.doubtful, one.kind, one.fold) == (other.labels, other.doubtful, other.kind, other.fold)
    )


def test_a_record_depends_on_seed_and_index_alone(recordings: list[Recording]) -> None:
    """Made again, alone and in another order, records are the same to the last bit; another seed gives others."""
    for index in (31, 0, 17):
        assert same(simulate(SETTINGS, index).trace, recordings[index].trace)
    assert not same(simulate(SimulationSettings(seconds=40, seed=6), 0).trace, recordings[0].trace)


def test_records_are_sound(recordings: list[Recording]) -> None:
    """Finite float32, zero where not valid, whole counts of 24 bits, labels in order within the record."""
    for recording in recordings:
        trace = recording.trace
        assert trace.waveform.dtype == np.float32
        assert trace.waveform.shape == trace.valid.shape == (3, 4000)
        assert np.isfinite(trace.waveform).all()
        assert not trace.waveform[~trace.valid].any()
        counts = recording.counts[np.isfinite(recording.counts)]
        assert (counts == np.rint(counts)).all()
        assert np.abs(counts).max() < 2**23
        places = [label.sample for label in trace.labels]
        assert places == sorted(places)
        assert all(0 <= place < 4000 and place == int(place) for place in places)
        assert (trace.kind == NOISE) == (not recording.events)
        assert trace.kind != NOISE or not trace.labels


def test_labels_are_where_events_are_and_stand_clear(recordings: list[Recording]) -> None:
    """Labels are the onsets at or above the least SNR, fainter ones are doubtful; most records have P and S."""
    for recording in recordings:
        onsets = {(phase, onset): seen.snr[phase] for seen in recording.events for phase, onset in seen.onset.items()}
        labels = {(label.phase, int(label.sample)) for label in recording.trace.labels}
        doubtful = {(label.phase, int(label.sample)) for label in recording.trace.doubtful}
        inside = {key for key in onsets if 0 <= key[1] < 4000}
        assert labels == {key for key in inside if onsets[key] >= SETTINGS.min_snr}
        assert inside - labels <= doubtful
    events = [recording.trace for recording in recordings if recording.events]
    assert sum(trace.p_sample is not None and trace.s_sample is not None for trace in events) > 0.6 * len(events)


def test_energy_rises_at_the_labels() -> None:
    """In loud records without faults the power in the second after P is more than four times that before it."""
    settings = SimulationSettings(
        seconds=40, seed=2, min_snr=20, cultural_share=0, glitch_share=0, gap_share=0, several_share=0,
        teleseism_share=0, noise_share=0, offset_share=0,
    )  # fmt: skip
    for index in range(12):
        trace = simulate(settings, index).trace
        if trace.p_sample is None or trace.p_sample < 300:
            continue
        onset = int(trace.p_sample)
        steps = np.diff(trace.waveform.astype(np.float64), n=2, axis=1)
        before, after = (
            np.square(part).mean(axis=1) for part in (steps[:, onset - 250 : onset - 2], steps[:, onset : onset + 100])
        )
        assert (after / before).max() > 4


def test_signal_to_noise_is_of_the_best_component() -> None:
    """Ten times the noise on one component is a ratio of ten; outside the record it is zero."""
    noise = np.ones((3, 1000))
    signal = np.zeros((3, 1000))
    signal[1, 500:] = 10
    assert signal_to_noise(signal, noise, 500) == pytest.approx(10)
    assert signal_to_noise(signal, noise, -1) == signal_to_noise(signal, noise, 1000) == 0


def test_the_share_of_noise_is_kept() -> None:
    """All or no record is noise where the share is one or zero."""
    for share, expected in ((0.0, {LABELLED}), (1.0, {NOISE})):
        settings = SimulationSettings(seconds=20, noise_share=share)
        assert {simulate(settings, index).trace.kind for index in range(8)} == expected


def test_a_pack_comes_back_through_its_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pretrain simulate OUT.npz` writes what `simulate` gives; labels are exact, waveforms to the pack's step."""
    path = tmp_path / "a.npz"
    assert main(["simulate", str(path), "--count", "12", "--seconds", "30", "--seed", "4"]) == 0
    assert "records a second" in capsys.readouterr().out
    settings = SimulationSettings(seconds=30, seed=4)
    traces = load_pack(path)
    assert len(traces) == 12
    for index, trace in enumerate(traces):
        expected = simulate(settings, index).trace
        assert (trace.name, trace.labels, trace.doubtful) == (expected.name, expected.labels, expected.doubtful)
        np.testing.assert_array_equal(trace.valid, expected.valid)
        scale = np.abs(np.diff(expected.waveform, axis=1)).max(axis=1, keepdims=True)
        assert (np.abs(trace.waveform - expected.waveform) <= 0.5 * scale + 1e-6).all()


def test_a_folder_comes_back_through_its_reader(tmp_path: Path) -> None:
    """A folder gives the same waveforms to the last bit and the same labels, with magnitude, distance and SNR."""
    folder, page = tmp_path / "a", tmp_path / "a.png"
    arguments = ["simulate", str(folder), "--count", "14", "--seconds", "30", "--seed", "9", "--plot", str(page)]
    assert main(arguments) == 0
    settings = SimulationSettings(seconds=30, seed=9, several_share=0.0)
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    traces = list(read_seisbench(folder))
    assert len(rows) == len(traces) == 14
    for index, (row, trace) in enumerate(zip(rows, traces, strict=True)):
        recording = simulate(settings, index)
        np.testing.assert_array_equal(trace.waveform, recording.trace.waveform)
        np.testing.assert_array_equal(trace.valid, recording.trace.valid)
        assert (trace.labels, trace.group) == (recording.trace.labels, recording.trace.name)
        if recording.events:
            seen = recording.events[0]
            assert float(row["source_magnitude"]) == pytest.approx(seen.event.source.magnitude, abs=0.01)
            assert float(row["path_ep_distance_km"]) == pytest.approx(seen.event.geometry.distance_km, abs=0.01)
            assert float(row["path_p_travel_s"]) == pytest.approx(seen.event.time_s("P"), abs=0.01)
            assert {"source_depth_km", "path_back_azimuth_deg", "trace_snr_db", "trace_channel"} <= row.keys()
    assert page.stat().st_size > 10_000


def test_the_number_of_workers_changes_nothing() -> None:
    """Two processes give the same rows and waveforms, in the same order, as one."""
    settings = SimulationSettings(seconds=20)
    one, two = (list(make_all(settings, SEISBENCH, 20, workers)) for workers in (1, 2))
    for left, right in zip(one, two, strict=True):
        assert left.row == right.row
        np.testing.assert_array_equal(left.waveform, right.waveform)
    assert next(make_all(settings, PACK, 1, 1)).packed is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seconds", "5"], "--seconds 5"),
        (["--noise-share", "1.5"], "--noise-share 1.5"),
        (["--min-snr", "0"], "--min-snr 0"),
        (["--magnitude", "4", "2"], "--magnitude 4 2"),
        (["--distance", "0", "50"], "--distance 0 50"),
        (["--count", "0"], "--count 0"),
        (["--workers", "0"], "--workers 0"),
        (["--seed", "-1"], "--seed -1"),
    ],
)
def test_wrong_arguments_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """One error that names the argument, exit status 2, and nothing written."""
    assert main(["simulate", str(tmp_path / "a.npz"), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    """A folder that is there already is an error that names it, and stays as it was."""
    (tmp_path / "keep").mkdir()
    for name in ("keep", "keep.npz"):
        (tmp_path / "keep.npz").mkdir(exist_ok=True)
        assert main(["simulate", str(tmp_path / name), "--count", "1", "--seconds", "20"]) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["keep", "keep.npz"]


def test_settings_name_their_option() -> None:
    """A share beyond one is refused with the name of its option."""
    with pytest.raises(ConfigError, match="--gap-share"):
        SimulationSettings(gap_share=2)


def test_s_is_behind_p_by_less_than_the_record_of_200_km(recordings: list[Recording]) -> None:
    """S comes 0.1 to 30 s behind P for distances up to 200 km, later the farther the source."""
    delays = [
        (seen.event.geometry.distance_km, seen.event.sample("S") / RATE_HZ) for r in recordings for seen in r.events
    ]
    assert all(0.1 < delay < 30 for _, delay in delays)
    assert np.corrcoef(*zip(*delays, strict=True))[0, 1] > 0.95
