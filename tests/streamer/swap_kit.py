"""What tests of shadows and swaps share: models over known data, record by record, with something done in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from daemon_kit import P_AT_S, S_AT_S, pulses
from station_data import by_time, packets
from tiny_bundle import write_tiny_bundle

from picker.bundle import Bundle, load_bundle
from picker.stepper import OnnxStepper
from streamer.engine import Engine
from streamer.metrics import Metrics
from streamer.model_run import ModelRun
from streamer.payload import PickReport
from streamer.pick_settings import PickSettings
from streamer.picking import Picking
from streamer.record import Nslc, Record
from streamer.stations import Stations

PICKS = PickSettings()
GUARD_S = 1.0


def two_bundles(folder: Path) -> tuple[Bundle, Bundle]:
    """The same graph with other thresholds: other digests, other crossings, the same times of picks."""
    return (
        load_bundle(write_tiny_bundle(folder / "old", {"P": 0.3, "S": 0.3})),
        load_bundle(write_tiny_bundle(folder / "new", {"P": 0.6, "S": 0.6})),
    )


def model(bundle: Bundle) -> ModelRun:
    """It at work, fresh."""
    return ModelRun(
        bundle, PICKS.rules(bundle.spec), Engine(OnnxStepper(bundle, 1)), guard_s=GUARD_S, clock_ns=lambda: 0
    )


def make_picking(bundle: Bundle, reports: list[PickReport]) -> Picking:
    """A picking with ``bundle`` that has done nothing yet; its picks are added to ``reports``."""
    rules = PICKS.rules(bundle.spec)
    return Picking(
        bundle, rules, Stations(), Engine(OnnxStepper(bundle, 1)), reports.append, Metrics(),
        guard_s=GUARD_S, clock_ns=lambda: 0,
    )  # fmt: skip


def records(
    p_at_s: Sequence[float] = P_AT_S, s_at_s: Sequence[float] = S_AT_S, stations: Sequence[str] = ("ONE", "TWO")
) -> list[Record]:
    """Three components of each station, as they would come."""
    data = {"Z": pulses(p_at_s), "N": pulses(s_at_s), "E": pulses(())}
    found = [one for letter, samples in data.items() for one in packets(letter, samples, [110], 0.0)]
    return by_time([one for code in stations for one in renamed(found, code)])


def renamed(found: Sequence[Record], code: str) -> list[Record]:
    """The same of another station."""
    return [replace(one, nslc=Nslc("XX", code, "", one.nslc.channel)) for one in found]


def work(picking: Picking, given: Sequence[Record], before: Callable[[int], object] = lambda number: None) -> None:
    """Work ``given`` off, each in a round of its own; ``before`` is called with the number of each."""

    async def run() -> None:
        working = asyncio.create_task(picking.run())
        for number, one in enumerate(given):
            before(number)
            await picking.deliver(one, one.end_ns)
            while picking.worked_off <= number:
                assert not working.done(), working
                await asyncio.sleep(0)
        await picking.end()
        await working

    asyncio.run(run())


def facts(reports: Sequence[PickReport]) -> list[tuple[str, str, int]]:
    """Station, phase and time (ms) of each pick, sorted."""
    return sorted((one.station.station, one.pick.phase, round(one.time_ns / 1e6)) for one in reports)
