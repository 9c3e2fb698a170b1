"""The hand-over to another model: each onset is made by one of the two, the old one before and the new one after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from structlog.testing import capture_logs
from swap_kit import facts, make_picking, model, records, two_bundles, work

from picker.bundle import Bundle
from picker.stepper import OnnxStepper, State
from streamer.engine import Engine
from streamer.payload import PickReport
from streamer.picking import Picking
from streamer.record import Record
from streamer.snapshot import capture, restore
from streamer.snapshot_file import SnapshotFile
from streamer.swap import Swap

WARM_UP_S = 3.0
RECORDS = records()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    return two_bundles(tmp_path_factory.mktemp("swap"))


@pytest.fixture(scope="module")
def alone(bundles: tuple[Bundle, Bundle]) -> list[list[PickReport]]:
    """What each of the two makes of the data by itself."""
    made: list[list[PickReport]] = [[], []]
    for bundle, reports in zip(bundles, made, strict=True):
        work(make_picking(bundle, reports), RECORDS)
    return made


class Swapped:
    """Records worked off, with a swap that begins before record ``at``."""

    def __init__(self, bundles: tuple[Bundle, Bundle], given: Sequence[Record], at: int, *, keep: bool = False) -> None:
        self.reports: list[PickReport] = []
        self.done: list[int] = []
        self.picking = make_picking(bundles[0], self.reports)
        self.snapshots: list[SnapshotFile] = []
        """One after each record, where they are kept."""
        if keep:
            self.picking.between_rounds = lambda: self.snapshots.append(capture(self.picking, 1))
        self.old, self.new = self.picking.model, model(bundles[1])
        self._at, self._number = at, 0
        work(self.picking, given, self._before)

    def _before(self, number: int) -> None:
        self._number = number
        if number == self._at:
            self.picking.swap = Swap(self.old, self.new, WARM_UP_S, lambda model: self.done.append(self._number))

    @property
    def by(self) -> Counter[str]:
        """Picks by the bundle that made them."""
        return Counter(one.bundle_digest for one in self.reports)


@pytest.mark.parametrize("at", range(0, len(RECORDS), 9))
def test_swap_at_any_chunk_makes_each_pick_once(
    bundles: tuple[Bundle, Bundle], alone: list[list[PickReport]], at: int
) -> None:
    """Old picks, then new ones, each as its model makes it alone: none lost, none twice, no chunk left out."""
    run = Swapped(bundles, RECORDS, at)
    assert facts(run.reports) == facts(alone[0]) == facts(alone[1])
    assert {one.id for one in run.reports} <= {one.id for reports in alone for one in reports}
    for code in ("ONE", "TWO"):
        mine = sorted((one.crossed_ns, one.bundle_digest) for one in run.reports if one.station.station == code)
        digests = [digest for _, digest in mine]
        assert digests == sorted(digests, key=[one.digest for one in bundles].index)
    assert len(run.done) == 1
    assert run.picking.model is run.new
    assert run.picking.swap is None


def test_stations_change_over_and_metrics_go_on(bundles: tuple[Bundle, Bundle]) -> None:
    """Begun early, most picks are the successor's; what is counted as picked counts each of them once."""
    run = Swapped(bundles, RECORDS, 5)
    assert run.by[bundles[1].digest] > 6
    assert run.picking.counts["P"] == run.picking.counts["S"] == 6
    assert run.done[0] < len(RECORDS) - 20, "it is over long before the end of the data"


def test_killed_while_both_run_loses_no_pick(bundles: tuple[Bundle, Bundle], alone: list[list[PickReport]]) -> None:
    """Snapshots of then are the new model's. A restart makes every pick that was not made yet; one of the last moment
    may be made by both, at the same time, as the guide's merge rule has it."""
    run = Swapped(bundles, RECORDS, 60, keep=True)
    assert run.done[0] > 66
    for number in range(60, run.done[0] + 1):
        snapshot = run.snapshots[number]
        assert snapshot.header["bundle_digest"] == bundles[1].digest
        killed = Swapped(bundles, RECORDS[: number + 1], 60, keep=True)
        made = [one for one in killed.reports if one.bundle_digest == bundles[0].digest]
        after: list[PickReport] = []
        resumed = make_picking(bundles[1], after)
        assert restore(resumed, bundles[1], snapshot)
        work(resumed, RECORDS[number + 1 :])
        assert set(facts(made + after)) == set(facts(alone[0]))
        assert len(made + after) <= len(alone[0]) + 1


def test_end_amid_the_warm_up_keeps_the_new_model(
    bundles: tuple[Bundle, Bundle], alone: list[list[PickReport]]
) -> None:
    """The settings name the new one, so the last snapshot has to be its; what the old one has open is decided."""
    cut = next(number for number, one in enumerate(RECORDS) if one.end_ns - RECORDS[0].start_ns > 13.4e9)
    run = Swapped(bundles, RECORDS[:cut], cut - 4, keep=True)
    assert run.picking.model is run.new
    assert run.by == {bundles[0].digest: 2}, "the P at 12 s of two stations"
    after: list[PickReport] = []
    resumed = make_picking(bundles[1], after)
    restore(resumed, bundles[1], capture(run.picking, 1))
    work(resumed, RECORDS[cut:])
    assert facts(run.reports + after) == facts(alone[0])


def test_station_without_data_is_not_waited_for(bundles: tuple[Bundle, Bundle]) -> None:
    """One has gone silent: the swap is over when the others have delivered for a warm-up."""
    half = [one for one in RECORDS if one.nslc.station == "ONE" or one.start_ns - RECORDS[0].start_ns < 10e9]
    at = next(number for number, one in enumerate(half) if one.start_ns - RECORDS[0].start_ns > 14e9)
    run = Swapped(bundles, half, at)
    passed_s = (half[run.done[0]].start_ns - half[at].start_ns) / 1e9
    assert WARM_UP_S - 1.5 < passed_s < WARM_UP_S + 4, "records are 1.1 s long"


def test_station_that_returns_after_the_swap_is_picked(bundles: tuple[Bundle, Bundle]) -> None:
    """Silent through the swap, it begins afresh with the new model."""
    gap = [one for one in RECORDS if one.nslc.station == "ONE" or not 10e9 < one.start_ns - RECORDS[0].start_ns < 26e9]
    at = next(number for number, one in enumerate(gap) if one.start_ns - RECORDS[0].start_ns > 12.5e9)
    run = Swapped(bundles, gap, at)
    assert {one.bundle_digest for one in run.reports if one.station.station == "TWO"} == {bundles[1].digest}


def test_station_that_is_never_quiet_is_handed_over(
    bundles: tuple[Bundle, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pulse every 0.9 s leaves no second of quiet: after the limit it is handed over, with no pulse made twice."""
    monkeypatch.setattr("streamer.swap.LONGEST_S", 6.0)
    moments = [round(2.0 + 0.9 * number, 2) for number in range(38)]
    busy = records(moments, (), ("ONE",))
    whole: list[PickReport] = []
    work(make_picking(bundles[0], whole), busy)
    for at in range(30, 36):
        run = Swapped(bundles, busy, at)
        assert len(run.by) == 2
        assert run.done[0] < len(busy) - 10
        times = [moment for _, _, moment in facts(run.reports)]
        assert len(times) == len(set(times))
        assert set(times) <= {moment for _, _, moment in facts(whole)}
        assert len(times) >= len(whole) - 1, "at most the one that was in the making, where its models disagree"


class Failing(OnnxStepper):
    """The real graph, which fails from the call ``at`` on."""

    at = 0
    calls = 0

    def step(self, chunk: np.ndarray, valid: np.ndarray, reset: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """See Stepper."""
        self.calls += 1
        if self.calls >= self.at:
            raise RuntimeError("the graph fails")
        return super().step(chunk, valid, reset, state)


@pytest.mark.parametrize("at", [1, 8])
def test_successor_that_fails_leaves_the_old_model(
    bundles: tuple[Bundle, Bundle], alone: list[list[PickReport]], at: int
) -> None:
    """One error line; the stations stay with the old model, and no pick is lost."""
    reports: list[PickReport] = []
    picking = make_picking(bundles[0], reports)
    successor = model(bundles[1])
    stepper = Failing(bundles[1], 1)
    stepper.at = at
    successor.engine = Engine(stepper)

    def before(number: int) -> None:
        if number == 60:
            picking.swap = Swap(picking.model, successor, WARM_UP_S, lambda model: pytest.fail("it was swapped"))

    with capture_logs() as logs:
        work(picking, RECORDS, before)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "bundle not swapped: the new model has failed, the old one goes on"
    ]
    assert facts(reports) == facts(alone[0])
    assert {one.bundle_digest for one in reports} == {bundles[0].digest}


def test_swap_of_an_idle_daemon_is_over_at_once(bundles: tuple[Bundle, Bundle]) -> None:
    """No station is known yet: the first one is the new model's."""
    picking: Picking = make_picking(bundles[0], [])
    assert Swap(picking.model, model(bundles[1]), WARM_UP_S, lambda model: None).done
