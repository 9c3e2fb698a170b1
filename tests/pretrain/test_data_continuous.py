"""Continuous miniSEED: alignment, gaps, decimation, and the windows cut from it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from waveforms import START_NS, write_miniseed, write_picks_csv

from picker.errors import ConfigError
from pretrain.data.continuous import StationCode, StationRecord, miniseed_files, read_miniseed, read_picks
from pretrain.data.windows import CLEAR_S, cut_windows

CODE = StationCode("CM", "CHI", "00")


def counts(samples: int, seed: int = 0) -> np.ndarray:
    """Noise of 20 counts on an offset that float32 could not hold beside it."""
    return (np.random.default_rng(seed).standard_normal(samples) * 20).astype(np.int32) + 8_000_000


def read_one(path: Path) -> StationRecord:
    """The only instrument of a file."""
    (record,) = read_miniseed(path)
    return record


def test_components_are_aligned_and_a_gap_is_not_valid(tmp_path: Path) -> None:
    """A gap of 5 s on N, and an E that starts 2 s late, are zeros that are not valid; the rest is where it belongs."""
    z, n, e = (counts(6000, seed) for seed in range(3))
    path = write_miniseed(
        tmp_path / "x.mseed",
        [
            ("CM_CHI_00_H_H_Z", START_NS, 100.0, z),
            ("CM_CHI_00_H_H_N", START_NS, 100.0, n[:2000]),
            ("CM_CHI_00_H_H_N", START_NS + 25 * 10**9, 100.0, n[2500:]),
            ("CM_CHI_00_H_H_E", START_NS + 2 * 10**9, 100.0, e[200:]),
        ],
    )
    record = read_one(path)
    assert (record.name, record.start_ns) == ("CM.CHI.00.HH", START_NS)
    assert np.flatnonzero(~record.valid[1]).tolist() == list(range(2000, 2500))
    assert np.flatnonzero(~record.valid[2]).tolist() == list(range(200))
    np.testing.assert_array_equal(record.waveform[0], (z - z[0]).astype(np.float32))
    np.testing.assert_array_equal(record.waveform[1, 2500:], (n - n[0])[2500:].astype(np.float32))
    np.testing.assert_array_equal(record.waveform[2, 200:], (e - e[200])[200:].astype(np.float32))
    assert not record.waveform[~record.valid].any()


def test_numbered_components_and_several_instruments(tmp_path: Path) -> None:
    """HH1 and HH2 become N and E; an accelerometer beside them, here a lone vertical, is a record of its own."""
    path = write_miniseed(
        tmp_path / "x.mseed",
        [(f"CM_CHI_00_H_H_{letter}", START_NS, 100.0, counts(3000, seed)) for seed, letter in enumerate("Z12")]
        + [("CM_CHI_00_H_N_Z", START_NS, 100.0, counts(3000, 5))],
    )
    broadband, strong = read_miniseed(path)
    assert (broadband.band_instrument, strong.band_instrument) == ("HH", "HN")
    second = counts(3000, 1)
    np.testing.assert_array_equal(broadband.waveform[1], (second - second[0]).astype(np.float32))
    assert strong.valid.any(axis=1).tolist() == [True, False, False]


def test_200_hz_is_decimated_without_aliases_and_without_delay(tmp_path: Path) -> None:
    """A 70 Hz tone vanishes instead of folding to 30 Hz; a pulse at 20 s stays at 20 s."""
    time_s = np.arange(12000) / 200
    tone = 10_000 * np.sin(2 * np.pi * 70 * time_s)
    pulse = 50_000 * np.exp(-(((time_s - 20) / 0.05) ** 2)) + np.random.default_rng(0).standard_normal(12000) * 3
    path = write_miniseed(
        tmp_path / "x.mseed",
        [("CM_CHI_00_H_N_Z", START_NS, 200.0, pulse), ("CM_CHI_00_H_N_N", START_NS, 200.0, tone)],
    )
    record = read_one(path)
    assert record.waveform.shape == (3, 6000)
    assert int(record.waveform[0].argmax()) == 2000
    assert np.abs(record.waveform[1, 200:-200]).max() < 100


def test_windows_hold_every_consensus_pick_once_and_at_its_instant(tmp_path: Path) -> None:
    """Each consensus pick is a label of one window, at the sample where its pulse is, weighted by its probability."""
    times_s = {"P": [30.0, 44.5, 200.25, 580.0], "S": [33.0, 205.0]}
    z = counts(60_000)
    for after_s in times_s["P"]:
        z[round(after_s * 100)] += 100_000
    path = write_miniseed(tmp_path / "x.mseed", [("CM_CHI_00_H_H_Z", START_NS, 100.0, z)])
    picks = [(phase, after_s, 0.6) for phase, times in times_s.items() for after_s in times]
    consensus = read_picks(write_picks_csv(tmp_path / "c.csv", picks))[CODE]
    machine = read_picks(write_picks_csv(tmp_path / "m.csv", [*picks, ("P", 50.0, 0.9), ("P", 30.1, 0.4)]))[CODE]
    windows = [w for w in cut_windows(read_one(path), consensus, machine) if w.kind == "pseudo"]
    labels = [label for window in windows for label in window.labels]
    assert sorted(label.phase for label in labels) == ["P"] * 4 + ["S"] * 2
    assert {label.weight for label in labels} == {0.6}
    for window in windows:
        assert window.samples == 12_000
        assert not window.waveform[:, 0].any()
        for label in window.labels:
            if label.phase == "P":
                around = window.waveform[0, round(label.sample) - 3 : round(label.sample) + 4]
                assert around.argmax() == 3
    doubtful = [(label.phase, label.weight) for window in windows for label in window.doubtful]
    assert doubtful == [("P", 0.9)], "a machine pick beside a consensus pick is that pick; any other is doubtful"


def test_noise_windows_keep_clear_of_every_machine_pick(tmp_path: Path) -> None:
    """No noise window holds a pick of any machine, or comes near one; they do not overlap and carry no label."""
    path = write_miniseed(tmp_path / "x.mseed", [("CM_CHI_00_H_H_Z", START_NS, 100.0, counts(90_000))])
    times_s = [100.0, 250.0, 251.0, 520.0]
    machine = read_picks(write_picks_csv(tmp_path / "m.csv", [("S", t, 0.2) for t in times_s]))[CODE]
    record = read_one(path)
    windows = list(cut_windows(record, [], machine))
    starts = [(np.datetime64(w.name.removeprefix("CM.CHI.00.HH."), "ns").astype(int) - START_NS) / 1e9 for w in windows]
    assert [w.kind for w in windows] == ["noise"] * len(windows)
    assert len(windows) == 6  # 1 of 130 s, 2 of 249 s, 3 of 370 s (margins taken off where there is a pick)
    assert not any(w.labels or w.doubtful for w in windows)
    for start in starts:
        assert all(not start - CLEAR_S < t < start + 120 + CLEAR_S for t in times_s)
    assert all(b - a >= 120 for a, b in pairwise(starts))


def test_windows_without_data_are_left_out(tmp_path: Path) -> None:
    """A pick in a long gap gives no window."""
    pieces = [
        ("CM_CHI_00_H_H_Z", START_NS, 100.0, counts(3000)),
        ("CM_CHI_00_H_H_Z", START_NS + 400 * 10**9, 100.0, counts(3000)),
    ]
    record = read_one(write_miniseed(tmp_path / "x.mseed", pieces))
    consensus = read_picks(write_picks_csv(tmp_path / "c.csv", [("P", 200.0, 0.5)]))[CODE]
    assert list(cut_windows(record, consensus, consensus)) == []


def test_errors_name_the_file(tmp_path: Path) -> None:
    """An empty folder, a file that is no miniSEED, and picks with a bad time are clear errors."""
    with pytest.raises(ConfigError, match="no miniSEED file"):
        miniseed_files(tmp_path)
    (tmp_path / "bad.mseed").write_bytes(b"this is not miniSEED at all" * 10)
    with pytest.raises(ConfigError, match=r"bad\.mseed: cannot be read"):
        list(read_miniseed(tmp_path / "bad.mseed"))
    with pytest.raises(ConfigError, match="no such file of picks"):
        read_picks(tmp_path / "none.csv")
    (tmp_path / "p.csv").write_text("network,station,location,phase,time,probability\nCM,CHI,--,P,noon,0.5\n")
    with pytest.raises(ConfigError, match=r"p\.csv:2: "):
        read_picks(tmp_path / "p.csv")
