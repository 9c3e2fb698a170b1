"""A snapshot at any record, and what comes later: the same picks with the same ids as without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from daemon_kit import DURATION_S, P_AT_S, S_AT_S, pulses
from hypothesis import given, settings
from hypothesis import strategies as st
from station_data import by_time, packets
from tiny_bundle import write_tiny_bundle

from picker.bundle import Bundle, load_bundle
from picker.decision import PhaseRule
from picker.stepper import OnnxStepper
from streamer.engine import Engine
from streamer.metrics import Metrics
from streamer.origin import Origin
from streamer.payload import PickReport
from streamer.picking import Picking
from streamer.record import Nslc, Record
from streamer.snapshot import capture, restore, resumed
from streamer.snapshot_file import SnapshotFile, SnapshotRefused, previous, read, write
from streamer.stations import Stations

SERVER = "replay:18000"
SHIPPED = Path(__file__).parents[2] / "models" / "small"


class Run:
    """Records through a Picking of its own; ``state`` is what a snapshot after the last of them holds."""

    def __init__(self, bundle: Bundle, stepper: OnnxStepper, threshold: float = 0.3) -> None:
        self.reports: list[PickReport] = []
        self.bundle = bundle
        rules = {phase: PhaseRule(threshold=threshold) for phase in "PS"}
        self.picking = Picking(
            bundle, rules, Stations(), Engine(stepper), self.reports.append, Metrics(), guard_s=3.0,
            clock_ns=lambda: 0,
        )  # fmt: skip

    def take(self, records: Sequence[Record], *, last: bool) -> Run:
        """Work ``records`` off; the end of the data is worked off too where they are the ``last``."""
        self.picking.between_rounds = None if last else lambda: None

        async def work() -> None:
            working = asyncio.create_task(self.picking.run())
            for number, one in enumerate(records):
                await self.picking.deliver(one, one.end_ns, Origin(SERVER, f"XX_{one.nslc.station}", number))
            await self.picking.end()
            await working

        asyncio.run(work())
        return self

    def state(self) -> SnapshotFile:
        """What a snapshot taken now holds."""
        return capture(self.picking, 1)


def facts(*runs: Run) -> list[tuple[object, ...]]:
    """What the picks say, times of arrival apart."""
    reports = [report for run in runs for report in run.reports]
    return sorted((one.id, one.time_ns, one.pick, one.channel, sorted(one.flags)) for one in reports)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, OnnxStepper]:
    bundle = load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("snapshot") / "bundle"))
    return bundle, OnnxStepper(bundle, 1)


def station_records(code: str, sizes: Sequence[int], rate_hz: float = 100.0, late_s: float = 0.0) -> list[Record]:
    """Three components of one station, E later by ``late_s``."""
    data = {"Z": pulses(P_AT_S, rate_hz), "N": pulses(S_AT_S, rate_hz), "E": pulses((), rate_hz)}
    found = [one for letter, samples in data.items() for one in packets(letter, samples, sizes, 0.0, rate_hz)]
    renamed = [Record(**{**vars(one), "nslc": Nslc("XX", code, "", one.nslc.channel)}) for one in found]
    return by_time(renamed, {"E": late_s})


RECORDS = by_time(
    station_records("ONE", [100])
    + station_records("TWO", [37, 200, 64], late_s=2.0)
    + [one for one in station_records("GAP", [50]) if not 20.0 < (one.start_ns / 1e9 - 1_700_000_000) < 23.5]
    + station_records("FAST", [125], rate_hz=125.0)
)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, len(RECORDS) - 1), again=st.integers(0, 60))
def test_restart_at_any_record_gives_the_same_picks(
    tiny: tuple[Bundle, OnnxStepper], cut: int, again: int, uninterrupted: list[tuple[object, ...]]
) -> None:
    """Wherever it is cut, and however much of what was worked off comes again: the same ids, times and flags."""
    before = Run(*tiny).take(RECORDS[:cut], last=False)
    after = Run(*tiny)
    restore(after.picking, before.bundle, before.state())
    after.take(RECORDS[max(0, cut - again) :], last=True)
    assert facts(before, after) == uninterrupted


@pytest.fixture(scope="module")
def uninterrupted(tiny: tuple[Bundle, OnnxStepper]) -> list[tuple[object, ...]]:
    found = facts(Run(*tiny).take(RECORDS, last=True))
    assert len(found) >= 3 * (len(P_AT_S) + len(S_AT_S))
    return found


def test_state_of_the_shipped_model_survives_the_file(tmp_path: Path) -> None:
    """Through the disk, with the model that ships: probabilities go on to the last bit."""
    bundle = load_bundle(SHIPPED)
    stepper = OnnxStepper(bundle, 1)
    random = np.random.default_rng(3)
    noise = [
        one
        for letter in "ZNE"
        for one in packets(letter, random.normal(0, 50, DURATION_S * 100).astype(np.int32), [100])
    ]
    records = by_time(noise)
    whole = Run(bundle, stepper).take(records, last=False)
    before = Run(bundle, stepper).take(records[:61], last=False)
    write(tmp_path / "snapshot", before.state())
    after = Run(bundle, stepper)
    restore(after.picking, bundle, read(tmp_path / "snapshot"))
    after.take(records[61:], last=False)
    (_, expected), (_, found) = whole.picking.engine.saved(), after.picking.engine.saved()
    assert all(one.tobytes() == other.tobytes() for one, other in zip(expected, found, strict=True))


def test_positions_are_those_of_what_was_worked_off(tiny: tuple[Bundle, OnnxStepper]) -> None:
    """The snapshot asks each server for what comes after the records that are in it."""
    before = Run(*tiny).take(RECORDS[:200], last=False)
    after = Run(*tiny)
    restore(after.picking, before.bundle, before.state())
    assert after.picking.worked.keys() == {SERVER}
    assert after.picking.worked[SERVER].saved() == before.picking.worked[SERVER].saved()


def test_new_thresholds_hold_for_old_stations(tiny: tuple[Bundle, OnnxStepper]) -> None:
    """What comes from the settings is not kept: a threshold above every peak picks nothing after the restart."""
    bundle, stepper = tiny
    before = Run(bundle, stepper).take(RECORDS[:40], last=False)
    after = Run(bundle, stepper, threshold=0.95)
    restore(after.picking, before.bundle, before.state())
    after.take(RECORDS[40:], last=True)
    assert not after.reports


def test_other_bundle_goes_on_with_all_data_and_fresh_states(
    tiny: tuple[Bundle, OnnxStepper], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """States of one model mean nothing to another; positions, and samples that wait, are nobody's."""
    before = Run(*tiny).take(RECORDS[:200], last=False)
    write(tmp_path / "snapshot", before.state())
    other = load_bundle(write_tiny_bundle(tmp_path / "other", {"P": 0.5, "S": 0.5}))
    after = Run(other, OnnxStepper(other, 1))
    after.picking = resumed(tmp_path / "snapshot", other, lambda: after.picking)
    assert "snapshot is of another bundle" in "".join(capsys.readouterr())
    assert after.picking.worked[SERVER].saved() == before.picking.worked[SERVER].saved()
    assert (after.picking.engine.stations, after.picking.trackers) == (0, {})
    after.take(RECORDS[200:], last=True)
    whole = Run(*tiny).take(RECORDS, last=True)
    assert after.picking.stations.counts["reset"] == whole.picking.stations.counts["reset"], "no station began anew"
    guard_ns = max(one.end_ns for one in RECORDS[:200]) + 3_000_000_000
    found, wanted = (
        sorted((one.station, one.pick.phase, one.time_ns) for one in reports if one.time_ns > guard_ns)
        for reports in (after.reports, whole.reports)
    )
    assert found == wanted != []


def test_truncated_snapshot_gives_way_to_the_previous_one(tiny: tuple[Bundle, OnnxStepper], tmp_path: Path) -> None:
    """A power cut in a file system that reorders: the file before is taken, and is not pushed out by the broken one."""
    path = tmp_path / "snapshot"
    for cut in (40, 80):
        write(path, Run(*tiny).take(RECORDS[:cut], last=False).state())
    path.write_bytes(path.read_bytes()[:-100])
    kept = read(previous(path))
    restored = Run(*tiny)
    restored.picking = resumed(path, tiny[0], lambda: Run(*tiny).picking)
    assert (
        restored.picking.worked[SERVER].saved()
        == Run(*tiny).take(RECORDS[:40], last=False).state().header["resume"][SERVER]
    )
    write(path, restored.state())
    assert read(path).tree == restored.state().tree
    assert read(previous(path)).tree == kept.tree


def test_tree_that_names_anything_else_is_refused(tiny: tuple[Bundle, OnnxStepper]) -> None:
    """A file made to run code makes none run."""
    hostile = b"cos\nsystem\n(S'exit 3'\ntR."
    snapshot = Run(*tiny).take(RECORDS[:40], last=False).state()
    with pytest.raises(SnapshotRefused, match=r"os\.system"):
        restore(Run(*tiny).picking, tiny[0], SnapshotFile(header=snapshot.header, tree=hostile, arrays=snapshot.arrays))
