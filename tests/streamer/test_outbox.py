"""What every outbox promises, in memory or in a file: order, limits, and what it remembers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from outbox_kit import NOW_NS, SECOND_NS, TOPIC, fill, ids, kept, written
from structlog.testing import capture_logs

from streamer.memory_outbox import MemoryOutbox
from streamer.outbox import Limits
from streamer.sqlite_outbox import SqliteOutbox

Make = Callable[..., MemoryOutbox]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes an outbox with the limits given; closed after the test."""
    with contextlib.ExitStack() as stack:

        def an_outbox(**limits: float) -> MemoryOutbox:
            given = Limits(**limits)  # type: ignore[arg-type]
            clock = {"clock_ns": lambda: NOW_NS, "monotonic": lambda: 0.0}
            outbox = (
                MemoryOutbox(given, **clock)  # type: ignore[arg-type]
                if request.param == "memory"
                else SqliteOutbox(tmp_path / "outbox.sqlite", given, **clock)  # type: ignore[arg-type]
            )
            stack.callback(outbox.close)
            return outbox

        yield an_outbox


async def test_entries_leave_by_acknowledgement_alone(make: Make) -> None:
    """In the order put, each until it is acknowledged; an id held or acknowledged is not taken again."""
    outbox = make()
    async with kept(outbox):
        fill(outbox, "abc")
        await written(outbox)
        assert ids(outbox) == ["a", "b", "c"]
        outbox.acknowledge("b", NOW_NS)
        outbox.acknowledge("never put", NOW_NS)
        assert [outbox.put(id, TOPIC, b"other", NOW_NS) for id in "ab"] == [False, False]
        assert (ids(outbox), len(outbox), outbox.oldest_ns) == (["a", "c"], 2, NOW_NS)
        assert {entry.payload for entry in outbox.pending()} == {b"pick"}
    assert outbox.given_up == {}


@pytest.mark.parametrize(("limits", "reason"), [({"max_entries": 3}, "entries"), ({"max_bytes": 3 * 1026}, "bytes")])
async def test_limits_of_size_cost_the_oldest(make: Make, limits: dict[str, int], reason: str) -> None:
    """Beyond the limit the oldest are given up, counted by reason, said in one line, and room again in another."""
    outbox = make(**limits)
    with capture_logs() as logs:
        async with kept(outbox):
            fill(outbox, "abcdef", b"x" * 1000)
            await written(outbox)
            assert ids(outbox) == ["d", "e", "f"]
            outbox.acknowledge("d", NOW_NS)
    assert outbox.given_up == {reason: 3}
    told = [(line["log_level"], line.get("limit")) for line in logs]
    assert told == [("error", reason), ("info", None)]


def test_loss_is_told_again_with_its_number() -> None:
    """A flood of losses is one line a minute, and the next line says how many there were."""
    now_s = [0.0]
    outbox = MemoryOutbox(Limits(max_entries=1), monotonic=lambda: now_s[0])
    with capture_logs() as logs:
        for k in range(100):
            outbox.put(str(k), TOPIC, b"", NOW_NS)
            now_s[0] = 61.0 if k >= 90 else 0.0
    assert [line["lost_since_last_line"] for line in logs] == [1, 90]


async def test_what_has_waited_too_long_is_given_up_in_small_parts(make: Make) -> None:
    """Age is a limit too; a leap of the clock costs 500 entries in a go, not all of them."""
    outbox = make(max_age_s=60.0)
    for k in range(700):
        outbox.put(str(k), TOPIC, b"", NOW_NS - 61 * SECOND_NS)
    fill(outbox, "a")
    async with kept(outbox):
        await written(outbox)
        assert (len(outbox), outbox.given_up["age"]) == (201, 500)
        outbox.expire(NOW_NS)
        outbox.expire(NOW_NS)
        assert (ids(outbox), outbox.given_up["age"]) == (["a"], 700)


async def test_acknowledged_ids_are_known_for_a_time_and_a_number(make: Make) -> None:
    """An id is taken again only when it was acknowledged too long ago, or too many were after it."""
    outbox = make(keep_acknowledged_s=60.0, max_acknowledged=3)
    async with kept(outbox):
        for name, at_s in (("a", 0), ("b", 1), ("c", 30), ("d", 31)):
            fill(outbox, name)
            await written(outbox)
            outbox.acknowledge(name, NOW_NS + at_s * SECOND_NS)
        assert [outbox.put(id, TOPIC, b"", NOW_NS) for id in "bcd"] == [False] * 3
        fill(outbox, "a")
        outbox.expire(NOW_NS + 62 * SECOND_NS)
        fill(outbox, "b")
        assert [outbox.put(id, TOPIC, b"", NOW_NS) for id in "cd"] == [False] * 2


async def test_reopened_entries_come_first(make: Make) -> None:
    """What was acknowledged lately goes once more, whole, before the younger ones, as far as there is room."""
    outbox = make(max_entries=4, resend_s=10.0)
    async with kept(outbox):
        fill(outbox, "abcd")
        await written(outbox)
        for name, at_s in (("a", 0), ("b", 15), ("c", 20)):
            outbox.acknowledge(name, NOW_NS + at_s * SECOND_NS)
        assert outbox.reopen(0) == 2, "a is no longer kept whole"
        assert ids(outbox) == ["b", "c", "d"]
        assert outbox.reopen(0) == 0
        assert next(outbox.pending()).payload == b"pick"
        fill(outbox, "e")
        await written(outbox)
        outbox.acknowledge("b", NOW_NS + 21 * SECOND_NS)
        outbox.acknowledge("c", NOW_NS + 22 * SECOND_NS)
        fill(outbox, "f")
        await written(outbox)
        assert outbox.reopen(0) == 1, "room for one: the youngest"
        assert ids(outbox) == ["c", "d", "e", "f"]
    assert outbox.given_up == {}


def test_limits_that_make_no_sense_are_refused() -> None:
    """A limit of nothing is a mistake of the caller."""
    with pytest.raises(ValueError, match="max_entries must be above 0, not 0"):
        Limits(max_entries=0)
