"""Gaps that somebody has filled with zeros are gaps, and instruments whose data are zeros are left as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from station_data import EPOCH_NS, by_time, packets, run, same

from picker.bundle import load_bundle
from picker.stepper import OnnxStepper
from streamer.engine import Engine
from streamer.metrics import Metrics
from streamer.payload import PickReport
from streamer.pick_settings import PickSettings
from streamer.picking import Picking
from streamer.record import Record
from streamer.stations import Stations
from streamer.zero_fill import LEARNT_SAMPLES, ZeroFill

SHIPPED = Path(__file__).parents[2] / "models" / "small"
GAPS = ((40.0, 0.1), (60.0, 1.0), (80.0, 5.0), (110.0, 60.0))
"""When each begins and how long it lasts (s)."""
LONG_S = 200.0


def ground(seed: int, offset: float = 0.0, loudness: float = 50.0) -> NDArray[np.int32]:
    """Microseism and noise in counts."""
    random = np.random.default_rng(seed)
    time_s = np.arange(round(LONG_S * 100)) / 100
    waves = sum(3 * np.sin(2 * np.pi * (f * time_s + random.uniform())) for f in (0.14, 0.21, 0.27))
    return np.rint(loudness * (waves + random.normal(0, 1, len(time_s))) + offset).astype(np.int32)


def filled(samples: NDArray[np.int32], gaps: Sequence[tuple[float, float]] = GAPS) -> NDArray[np.int32]:
    """``samples`` with zeros in the gaps."""
    out = samples.copy()
    for begin_s, length_s in gaps:
        out[round(begin_s * 100) : round((begin_s + length_s) * 100)] = 0
    return out


def holed(letter: str, samples: NDArray[np.int32], sizes: Sequence[int]) -> list[Record]:
    """Records of ``samples`` with nothing in the gaps."""
    borders = [0.0, *(edge for begin_s, length_s in GAPS for edge in (begin_s, begin_s + length_s)), LONG_S]
    return [
        one
        for begin_s, end_s in zip(borders[::2], borders[1::2], strict=True)
        for one in packets(letter, samples[round(begin_s * 100) : round(end_s * 100)], sizes, begin_s)
    ]


def picked(records: Sequence[Record]) -> list[PickReport]:
    """What the shipped model picks."""
    bundle, reports = load_bundle(SHIPPED), list[PickReport]()
    picking = Picking(
        bundle, PickSettings().rules(bundle.spec), Stations(), Engine(OnnxStepper(bundle, 2)), reports.append,
        Metrics(), guard_s=3.0, clock_ns=lambda: 0,
    )  # fmt: skip

    async def work() -> None:
        working = asyncio.create_task(picking.run())
        for one in records:
            await picking.deliver(one, one.end_ns)
        await picking.end()
        await working

    asyncio.run(work())
    assert picking.counts["P"] + picking.counts["S"] == len(reports)
    return reports


@pytest.mark.parametrize("letters", ["ZNE", "Z", "N"])
@pytest.mark.parametrize("kind", ["missing", "filled"])
@pytest.mark.parametrize("offset", [0.0, 20_000.0])
def test_no_pick_at_the_edges_of_a_gap(kind: str, letters: str, offset: float) -> None:
    """0.1, 1, 5 and 60 s without data in noise, in all components or in one: the shipped model picks nothing."""
    records = []
    for seed, letter in enumerate("ZNE"):
        samples = ground(seed, offset)
        if letter not in letters:
            records += packets(letter, samples, [100])
        elif kind == "filled":
            records += packets(letter, filled(samples), [100])
        else:
            records += holed(letter, samples, [100])
    assert [(one.pick.phase, (one.time_ns - EPOCH_NS) / 1e9) for one in picked(by_time(records))] == []


def test_the_test_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for data, the same zeros make picks."""
    monkeypatch.setattr("streamer.zero_fill.LEARNT_SAMPLES", 10**9)
    records = by_time([one for seed, code in enumerate("ZNE") for one in packets(code, filled(ground(seed)), [100])])
    assert len(picked(records)) > 2


@pytest.mark.parametrize("rate_hz", [100.0, 50.0, 125.0])
def test_zeros_are_invalid_and_counted(rate_hz: float) -> None:
    """Exactly the samples of the gaps, at any rate; the chunks say so as they do of a gap."""
    lines = {code: filled(ground(seed, 20_000.0)) for seed, code in enumerate("ZNE")}
    records = by_time([one for code in "ZNE" for one in packets(code, lines[code], [97], 0.0, rate_hz)])
    chunks, station = run(records)
    assert station.counts["zero_filled"] == 3 * round(sum(length_s for _, length_s in GAPS) * 100)
    valid = np.concatenate([chunk.valid for chunk in chunks], axis=1)
    samples = np.concatenate([chunk.samples for chunk in chunks], axis=1)
    assert np.abs(samples[valid]).max() < 1000, "nothing of the steps down to zero is left"
    assert station.counts["reset"] == 3, "at first, and after 5 and 60 s"
    assert "gap" in frozenset().union(*(chunk.flags for chunk in chunks))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4096), min_size=1, max_size=5),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    loudness=st.sampled_from([0.3, 1.0, 3.0, 50.0]),
    rate_hz=st.sampled_from([100.0, 50.0]),
)
def test_any_packetisation(sizes: list[int], lengths: list[int], loudness: float, rate_hz: float) -> None:
    """Short runs that may or may not be a fill, quiet instruments, zeros across the borders of packets: the same."""
    lines = {}
    for seed, code in enumerate("ZNE"):
        gaps = [(31.0 + 3.3 * turn + seed, length / 100) for turn, length in enumerate(lengths)]
        lines[code] = filled(ground(seed, loudness=loudness), gaps)[:8000]
    cut, plain = (
        run(by_time([one for code in "ZNE" for one in packets(code, lines[code], pieces, 0.0, rate_hz)]))
        for pieces in (sizes, [50])
    )
    assert same(cut[0], plain[0])
    assert cut[1].counts["zero_filled"] == plain[1].counts["zero_filled"]


def test_quiet_instruments_are_left_as_they_are() -> None:
    """Noise below one count: most samples are zero, some for seconds, and none of them is a gap."""
    random = np.random.default_rng(5)
    quiet = np.rint(random.normal(0, 0.4, 60_000)).astype(np.int32)
    assert 0.7 < (quiet == 0).mean() < 0.9
    quiet[30_000:30_500] = 0
    _, station = run(by_time([one for letter in "ZNE" for one in packets(letter, quiet, [100])]))
    assert station.counts["zero_filled"] == 0


def test_a_run_must_be_longer_where_zeros_are_common() -> None:
    """One sample in eight is zero: 8 in a row are chance, 20 are not."""
    follower = ZeroFill()
    before = np.where(np.arange(2 * LEARNT_SAMPLES) % 8 == 0, 0.0, 5.0)
    follower.follow(before)
    ones = np.ones(10)
    assert follower.follow(np.concatenate([ones, np.zeros(8), ones])).fill.sum() == 0
    assert follower.follow(np.concatenate([ones, np.zeros(20), ones])).fill.sum() == 20


def test_a_run_is_known_late_and_told_whole() -> None:
    """Zeros one by one: open until they are too many, then all of them are fill, and every further one at once."""
    follower = ZeroFill()
    follower.follow(np.ones(LEARNT_SAMPLES))
    told = [follower.follow(np.zeros(1)) for _ in range(10)]
    assert [one.open for one in told] == [1, 2, 3, 4, 5, 6, 7, 0, 0, 0]
    assert [one.before for one in told] == [0] * 7 + [7, 0, 0]
    assert [bool(one.fill[0]) for one in told] == [False] * 7 + [True] * 3
    assert follower.follow(np.ones(3)).open == 0


def test_a_dead_channel_is_no_gap() -> None:
    """Nothing but zeros from the start: no share can be learnt that tells a gap, so all stays data."""
    dead = [replace(one, samples=one.samples * 0) for one in packets("Z", ground(1), [100])]
    live = [one for letter in "NE" for one in packets(letter, ground(2), [100])]
    _, station = run(by_time(dead + live))
    assert station.counts["zero_filled"] == 0
