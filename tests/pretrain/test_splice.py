"""Splicing events into streams after short and long histories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_bundle import write_tiny_bundle
from waveforms import START_NS, bump, row, write_miniseed, write_picks_csv, write_seisbench

from picker.spec import PickerSpec, StateTensor
from picker.stepper import State
from pretrain.cli import main
from pretrain.data.continuous import StationCode, StationRecord
from pretrain.data.trace import Label, Trace
from pretrain.splice import EARLY_S, NoiseStream, event_of, loudness, noise_streams, recalls, splice, usual_loudness

LATE_S = 640.0


class Forgetful:
    """Picks P where the vertical is large, but after ``lasts`` chunks of stream no longer."""

    def __init__(self, lasts: float) -> None:
        self.spec = PickerSpec(name="f", lookahead_samples=0, state=(StateTensor(name="age", shape=(1,)),))
        self.lasts = lasts

    def fresh_state(self, rows: int) -> State:
        """No age."""
        return (np.zeros((rows, 1), np.float32),)

    def step(
        self, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """P of the vertical as long as it lasts, S of the north for ever."""
        (age,) = state
        p = np.clip(20 * chunk[:, 0], 0, 0.99) * (age < self.lasts)
        s = np.clip(20 * chunk[:, 1], 0, 0.99)
        return np.stack([p, s, 1 - np.maximum(p, s)], axis=1).astype(np.float32), (age + 1,)


def traces(count: int) -> list[Trace]:
    """Events of a spike on the vertical and one on the north."""
    out = []
    for k in range(count):
        waveform = bump(4000, (0, 1000 + k, 0.9), (1, 1300 + k, 0.8))
        waveform += np.random.default_rng(k).normal(size=waveform.shape).astype(np.float32) * 1e-4
        labels = (Label(phase="P", sample=1000.0 + k), Label(phase="S", sample=1300.0 + k))
        out.append(
            Trace(name=f"e{k}", waveform=waveform, valid=np.ones(waveform.shape, bool), labels=labels, group=f"g{k}")
        )
    return out


def record(seconds: int) -> StationRecord:
    waveform = np.random.default_rng(1).normal(size=(3, seconds * 100)).astype(np.float32) * 1e-3 + 5
    return StationRecord(
        file="a", code=StationCode("CM", "CHI", "00"), band_instrument="HH", start_ns=START_NS, waveform=waveform,
        valid=np.ones(waveform.shape, bool),
    )  # fmt: skip


def test_streams_are_of_quiet_data_alone() -> None:
    """Disturbed stretches do not appear, what is short is repeated to the length, and too little noise is no stream."""
    one, other = record(500), record(200)
    loud = one.waveform.copy()
    loud[:, 10_000:15_000] += 100
    one = StationRecord(**{**vars(one), "waveform": loud})
    quiet = np.ones(50_000, bool)
    quiet[10_000:15_000] = False
    (stream,) = noise_streams([one, other], [quiet, np.ones(20_000, bool)], LATE_S)
    assert stream.history.shape == (3, 64_000)
    assert np.abs(stream.history).max() < 0.01
    assert stream.bed.shape == (3, 12_000)


def test_events_are_cut_with_their_ends_at_zero() -> None:
    """From 2 s before P, tapered; a record that begins at P or lacks the vertical has none."""
    (trace,) = traces(1)
    cut, begin = event_of(trace) or (np.zeros((3, 0)), 0)
    assert begin == 800
    assert np.abs(cut[:, [0, -1]]).max() < 1e-3
    assert cut[0, 200] == pytest.approx(0.9, abs=0.01)
    dead = trace.valid.copy()
    dead[2] = False
    assert not (event_of(Trace(**{**vars(trace), "valid": dead})) or (np.ones(3), 0))[0][2].any()
    dead[0] = False
    assert event_of(Trace(**{**vars(trace), "valid": dead})) is None
    assert event_of(Trace(**{**vars(trace), "labels": (Label(phase="P", sample=100.0),)})) is None


@pytest.mark.parametrize(("lasts", "late"), [(np.inf, 1.0), (400, 0.0)])
def test_a_picker_that_forgets_is_found_out(lasts: float, late: float) -> None:
    """One that is the same for ever has the same recall; one that fades after 400 chunks loses every late P, no S."""
    streams = noise_streams([record(500)] * 2, [np.ones(50_000, bool)] * 2, LATE_S)
    done = splice(Forgetful(lasts), streams, traces(70))
    assert len(done) == 140, "each event in each stream"
    assert recalls(done, "P")[:3] == (140, 1.0, late)
    assert recalls(done, "P")[3] == (late - 1, late - 1)
    assert recalls(done, "S")[:3] == (140, 1.0, 1.0)


def test_the_early_state_has_seen_a_minute() -> None:
    """The last minute before the splice, and no more: a picker that fades after 80 chunks is still awake for it."""
    streams = noise_streams([record(500)], [np.ones(50_000, bool)], LATE_S)
    chunks = round(EARLY_S * 100) // 64
    onset = 30 * 100 // 64
    for lasts, early in ((chunks + onset + 1, 1.0), (chunks + onset - 1, 0.0)):
        assert recalls(splice(Forgetful(lasts), streams, traces(3)), "P")[1] == early


def test_an_event_brings_no_noise_of_its_own_that_could_be_heard() -> None:
    """Bursts do not count as the level of a bed; a noisy event is scaled down, and left out where nothing is left."""
    (stream,) = noise_streams([record(500)], [np.ones(50_000, bool)], LATE_S)
    bed = stream.bed.copy()
    bed[:, 200:300] *= 1000
    assert usual_loudness(bed) == pytest.approx(loudness(stream.bed), rel=0.05)
    (clear,) = traces(1)
    hiss = np.random.default_rng(7).normal(size=clear.waveform.shape).astype(np.float32)
    seen = []

    class Spy(Forgetful):
        def step(self, chunk: NDArray[np.float32], *rest: Any) -> Any:
            seen.append(chunk)
            return super().step(chunk, *rest)

    for loud, count in ((0.002, 1), (0.5, 0)):
        seen.clear()
        noisy = Trace(**{**vars(clear), "waveform": clear.waveform + loud * hiss})
        done = splice(Spy(np.inf), [NoiseStream(name="b", history=stream.history, bed=bed)], [noisy])
        assert len(done) == count
        if count:
            streamed = np.concatenate(seen[-188:], axis=2)[0]  # of the second run, the last one padded
            ratio = loudness(streamed[:, 2850:2930]) / loudness(stream.bed)
            assert 1.0 < ratio < 1.3, "half of the noise's amplitude on top is a quarter of its power"


def test_loudness_is_blind_to_offset_and_drift() -> None:
    """An offset of a million and a slow swell change nothing."""
    waveform = np.random.default_rng(0).normal(size=(3, 3000)).astype(np.float32)
    swell = (200 * np.sin(np.arange(3000) / 3000 * 6)).astype(np.float32)
    assert loudness(waveform + 1000 + swell) == pytest.approx(loudness(waveform), rel=0.3)


def test_the_command_prints_both_recalls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through a bundle on disk, with figures in JSON; a folder without quiet data is named."""
    noise = (np.random.default_rng(0).normal(size=(3, 60_000)) * 20).astype(np.int32)
    pieces = [(f"CM_CHI_00_H_H_{letter}", START_NS, 100.0, noise[k]) for k, letter in enumerate("ZNE")]
    write_miniseed(tmp_path / "c" / "a.mseed", pieces)
    write_picks_csv(tmp_path / "c" / "picks_machine.csv", [("P", 50.0, 0.5)])
    data = write_seisbench(
        tmp_path / "d",
        [row(f"r{k}", 1000, 1300) for k in range(4)],
        {f"r{k}": bump(4000, (0, 1000, 0.9), (1, 1300, 0.8)) + traces(1)[0].waveform * 0.01 for k in range(4)},
    )
    bundle, out = write_tiny_bundle(tmp_path / "bundle"), tmp_path / "s.json"
    words = [str(bundle), str(data), str(tmp_path / "c"), "--late-s", "300", "--json", str(out)]
    assert main(["evaluate-splice", *words]) == 0
    assert "after 60 s" in capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert (figures["events"], figures["P"]["times"]) == (4, 4)
    assert figures["P"]["difference"] == 0.0
    assert main(["evaluate-splice", *words[:2], str(tmp_path / "c"), "--late-s", "1"]) == 2
    (tmp_path / "c" / "picks_machine.csv").unlink()
    write_picks_csv(tmp_path / "c" / "picks_machine.csv", [("P", float(k), 0.5) for k in range(0, 600, 30)])
    assert main(["evaluate-splice", *words]) == 2
