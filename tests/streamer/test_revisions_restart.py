"""Any packetisation and any restart: the same revisions under the same keys, measurements included."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from daemon_kit import pulses
from hypothesis import given, settings
from hypothesis import strategies as st
from station_data import by_time, packets
from tiny_bundle import write_tiny_bundle

from picker.bundle import Bundle, load_bundle
from picker.decision import PhaseRule
from picker.stepper import OnnxStepper
from streamer.engine import Engine
from streamer.metrics import Metrics
from streamer.payload import PickReport
from streamer.picking import Picking
from streamer.record import Record
from streamer.snapshot import capture, restore
from streamer.stations import Stations

P_AT_S, S_AT_S = (8.0, 12.03, 30.0), (14.0, 21.51, 32.33)
PLATEAU = slice(2135, 2159)
"""A P of 0.5 that begins just before a chunk's border; the S at 21.51 s is likelier."""
Fact = tuple[object, ...]


def records(sizes: Sequence[int]) -> list[Record]:
    """40 s of noise around zero with pulses and a plateau, cut into ``sizes``; those of E come later by a second."""
    out: list[Record] = []
    for seed, (letter, at_s) in enumerate((("Z", P_AT_S), ("N", S_AT_S), ("E", ()))):
        samples = pulses(at_s) + np.random.default_rng(seed).normal(0, 0.01, 4000).astype(np.float32)
        samples[PLATEAU] += 0.5 * (letter == "Z")
        out += packets(letter, samples.astype(np.float32), sizes)
    return by_time(out, {"E": 1.0})


def picking_of(bundle: Bundle, stepper: OnnxStepper, reports: list[PickReport], *, keep: bool = False) -> Picking:
    rules = {phase: PhaseRule(threshold=0.3) for phase in "PS"}
    made = Picking(
        bundle, rules, Stations(), Engine(stepper), reports.append, Metrics(),
        guard_s=3.0, provisional=True, clock_ns=lambda: 0,
    )  # fmt: skip
    if keep:
        made.between_rounds = lambda: None
    return made


def work(picking: Picking, given_records: Sequence[Record]) -> None:
    async def run() -> None:
        working = asyncio.create_task(picking.run())
        for one in given_records:
            await picking.deliver(one, one.end_ns)
        await picking.end()
        await working

    asyncio.run(run())


def facts(reports: Sequence[PickReport]) -> list[Fact]:
    """What the messages say, times of arrival apart."""
    return sorted(
        (one.key, one.id, one.time_ns, one.pick, one.channel, one.measures, one.reset_age_s, sorted(one.flags))
        for one in reports
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, OnnxStepper]:
    bundle = load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("revisions") / "bundle"))
    return bundle, OnnxStepper(bundle, 1)


@pytest.fixture(scope="module")
def whole(tiny: tuple[Bundle, OnnxStepper]) -> list[Fact]:
    reports: list[PickReport] = []
    work(picking_of(*tiny, reports), records([100]))
    assert {one.status for one in reports} == {"provisional", "confirmed", "retracted"}
    assert all(one.measures is not None and one.measures.snr is not None for one in reports)
    return facts(reports)


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=4))
def test_packets_do_not_matter(tiny: tuple[Bundle, OnnxStepper], whole: list[Fact], sizes: list[int]) -> None:
    """However the data are cut into records: the same revisions and the same measurements."""
    reports: list[PickReport] = []
    work(picking_of(*tiny, reports), records(sizes if max(sizes) > 20 else [21, *sizes]))
    assert facts(reports) == whole


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 119))
def test_a_restart_goes_on_with_the_revisions(tiny: tuple[Bundle, OnnxStepper], whole: list[Fact], cut: int) -> None:
    """A provisional pick before the snapshot is ended after it as revision 2, and no revision is told twice."""
    bundle, given_records = tiny[0], records([100])
    reports: list[PickReport] = []
    before = picking_of(*tiny, reports, keep=True)
    work(before, given_records[:cut])
    after = picking_of(*tiny, reports)
    restore(after, bundle, capture(before, 1))
    work(after, given_records[cut:])
    assert facts(reports) == whole


def test_a_restart_from_an_older_state_tells_the_same(tiny: tuple[Bundle, OnnxStepper], whole: list[Fact]) -> None:
    """What is worked off again after a kill is known by its keys: the outbox drops all of it."""
    bundle, given_records = tiny[0], records([100])
    reports: list[PickReport] = []
    first = picking_of(*tiny, reports, keep=True)
    work(first, given_records[:40])
    snapshot = capture(first, 1)
    second = picking_of(*tiny, reports, keep=True)
    restore(second, bundle, snapshot)
    work(second, given_records[40:80])
    third = picking_of(*tiny, reports)
    restore(third, bundle, snapshot)
    work(third, given_records[40:])
    again = facts(reports)
    assert len(again) > len(whole)
    assert sorted({str(fact[0]): fact for fact in again}.values()) == whole
    assert all(fact in whole for fact in again)
