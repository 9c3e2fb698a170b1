"""The shadow: it makes its picks beside the first model's, which never notices."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs
from swap_kit import facts, make_picking, model, records, two_bundles, work
from test_swap import Failing

from picker.bundle import Bundle
from streamer.engine import Engine
from streamer.payload import PickReport
from streamer.picking import Picking
from streamer.shadow import Shadow

RECORDS = records()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    return two_bundles(tmp_path_factory.mktemp("shadow"))


def shadowed(bundles: tuple[Bundle, Bundle]) -> tuple[Picking, list[PickReport], list[PickReport]]:
    """A picking with a shadow, and the picks of both."""
    reports: list[PickReport] = []
    shadows: list[PickReport] = []
    picking = make_picking(bundles[0], reports)
    picking.shadow = Shadow(model(bundles[1]), shadows.append)
    return picking, reports, shadows


def test_shadow_makes_what_it_makes_alone(bundles: tuple[Bundle, Bundle]) -> None:
    """Both make the picks that each makes by itself, and the first model's counts are its own."""
    alone: list[list[PickReport]] = [[], []]
    for bundle, made in zip(bundles, alone, strict=True):
        work(make_picking(bundle, made), RECORDS)
    picking, reports, shadows = shadowed(bundles)
    work(picking, RECORDS)
    assert [one.id for one in reports] == [one.id for one in alone[0]]
    assert {one.id for one in shadows} == {one.id for one in alone[1]}
    assert facts(shadows) == facts(alone[1])
    assert picking.counts["P"] == 6
    assert picking.shadow is not None
    assert picking.shadow.counts["P"] == 6
    assert picking.shadow.counts["steps"] == picking.engine.counts["steps"]


def test_shadow_that_fails_is_off_and_the_first_goes_on(bundles: tuple[Bundle, Bundle]) -> None:
    """One error line in all, and no pick of the first model is missing."""
    picking, reports, shadows = shadowed(bundles)
    assert picking.shadow is not None
    stepper = Failing(bundles[1], 1)
    stepper.at = 30
    picking.shadow.model.engine = Engine(stepper)
    with capture_logs() as logs:
        work(picking, RECORDS)
    (line,) = [one for one in logs if one["log_level"] == "error"]
    assert line["event"] == "shadow model has failed and is off until a restart: picks of the first model go on"
    assert line["reason"] == "RuntimeError: the graph fails"
    assert (picking.shadow.running, stepper.calls) == (False, 30)
    assert len(reports) == 12
    assert len(shadows) < 12


def test_shadow_gives_way_and_starts_afresh(bundles: tuple[Bundle, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    """While the queue is long it steps nothing, said once; after it its stations begin anew, and pick."""
    picking, reports, shadows = shadowed(bundles)
    assert picking.shadow is not None

    def before(number: int) -> None:
        behind = 20e9 < RECORDS[number].start_ns - RECORDS[0].start_ns < 24e9
        monkeypatch.setattr("streamer.picking.QUEUE_RECORDS", -2 if behind else 4096)

    with capture_logs() as logs:
        work(picking, RECORDS, before)
    told = [one["event"] for one in logs if "shadow" in one["event"]]
    assert told == [
        "shadow model gives way: records wait, its stations start afresh after it",
        "shadow model goes on",
    ]
    counts = picking.shadow.counts
    assert counts["skipped"] > 0
    assert counts["steps"] == picking.engine.counts["steps"] - counts["skipped"]
    assert counts["discontinuity"] == 0, "the graph starts afresh where the tracker does"
    assert len(reports) == 12
    assert 6 <= len(shadows) < 12
