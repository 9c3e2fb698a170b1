"""An observatory's own data: miniSEED, continuous or cut around events, and a file of picks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from picker.errors import ConfigError
from pretrain.data.continuous import MachinePick, StationRecord, read_miniseed
from pretrain.data.picks import MACHINE_PICK, MANUAL, Pick
from pretrain.data.reading import BadTrace, Reading
from pretrain.data.trace import LABELLED, NOISE, PSEUDO, RATE_HZ, Trace
from pretrain.data.windows import MIN_VALID, starts_around, starts_without, window

SHORTEST_S = 10.0
"""A shorter record says nothing of what was before an arrival."""
SAME_S = 0.05
"""Two picks of one phase this close are one."""


GROUP_NS = 600_000_000_000


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How windows are cut: ``begun_ns`` is the first pick of each event, ``complete`` that no arrival is unread."""

    name: str
    window_s: float
    complete: bool
    begun_ns: Mapping[str, int]
    reading: Reading

    def group(self, pick: Pick) -> str:
        """Ten minutes, of the first pick of the event: events of one window, and the windows of one event, together."""
        return f"{self.name}/{self.begun_ns.get(pick.event, pick.time_ns) // GROUP_NS}"


def read_records(
    files: Sequence[Path], picks: Sequence[Pick], name: str, window_s: float, reading: Reading
) -> Iterator[Trace]:
    """Windows of ``window_s``, or the whole of shorter records, around the picks of the data set ``name``.

    Where every pick is a machine's, what lies far from all of them is noise; of analysts that cannot be said. A group
    is ten minutes, in which an event falls as a whole where its picks name it. ``reading`` counts picks that lie in no
    data, files and records that cannot be used, and components that are missing.
    """
    by_station: dict[tuple[str, str], list[Pick]] = defaultdict(list)
    for pick in picks:
        by_station[pick.network, pick.station].append(pick)
    begun_ns = {pick.event: pick.time_ns for pick in sorted(picks, key=lambda pick: -pick.time_ns) if pick.event}
    complete = all(pick.status == MACHINE_PICK for pick in picks)
    plan = _Plan(name=name, window_s=window_s, complete=complete, begun_ns=begun_ns, reading=reading)
    used: set[int] = set()
    for file in files:
        try:
            for record in read_miniseed(file, reading.skip):
                own = [pick for pick in by_station[record.code[:2]] if _fits(pick, record)]
                used.update(id(pick) for pick in own if _has_data(pick, record))
                yield from _windows(record, own, plan)
        except ConfigError:
            reading.skip(BadTrace(f"{file}: not miniSEED", "a file that cannot be read as miniSEED"))
    for pick in picks:
        if id(pick) not in used:
            reading.skip(BadTrace(f"{pick}: no data", "picks at which there are no data of their station"))


def _fits(pick: Pick, record: StationRecord) -> bool:
    """Whether a pick of the record's station is of its location and instrument."""
    location = pick.location is None or pick.location == record.code.location
    return location and record.band_instrument.startswith(pick.channel[:2])


def _has_data(pick: Pick, record: StationRecord) -> bool:
    sample = round(record.sample_of(pick.time_ns))
    return 0 <= sample < record.valid.shape[1] and bool(record.valid[:, sample].any())


def _windows(record: StationRecord, picks: Sequence[Pick], plan: _Plan) -> Iterator[Trace]:
    length, reading = record.waveform.shape[1], plan.reading
    if length < SHORTEST_S * RATE_HZ:
        reading.skip(BadTrace(f"{record.name}: short", f"records shorter than {SHORTEST_S:g} s"))
        return
    samples = min(length, round(plan.window_s * RATE_HZ))
    here = [pick for pick in picks if _has_data(pick, record)]
    first, doubled = _firsts(here)
    times = [_timed(pick) for pick in first]
    for start in starts_around(record, times, samples):
        cut = window(record, start, samples, times, [*times, *map(_timed, doubled)], kind=LABELLED, source=plan.name)
        inside = [pick for pick in first if 0 <= record.sample_of(pick.time_ns) - start < samples]
        if len({pick.split for pick in inside}) > 1:
            reading.skip(BadTrace(f"{cut.name}: of two splits", "windows with picks of two splits"))
        elif inside and (trace := _usable(cut, reading)):
            yield _named(trace, inside, plan.group(inside[0]))
    if plan.complete:
        for start in starts_without(record, [_timed(pick) for pick in picks], samples):
            cut = window(record, start, samples, (), (), kind=NOISE, source=plan.name)
            if trace := _usable(cut, reading):
                yield trace


def _timed(pick: Pick) -> MachinePick:
    return MachinePick(phase=pick.phase, time_ns=pick.time_ns, probability=pick.weight)


def _firsts(picks: Sequence[Pick]) -> tuple[list[Pick], list[Pick]]:
    """The picks that are arrivals, and those that are second ones of their phase: Pg after Pn, or another analyst's.

    Of an event the first of a phase counts; of picks that name no event, the first of several at one time.
    """
    first: list[Pick] = []
    later: list[Pick] = []
    known: set[tuple[str, str]] = set()
    last_ns: dict[str, int] = {}
    for pick in sorted(picks, key=lambda pick: pick.time_ns):
        if pick.time_ns - last_ns.get(pick.phase, 0) <= SAME_S * 1e9:
            continue
        if pick.event and (pick.phase, pick.event) in known:
            later.append(pick)
            continue
        first.append(pick)
        known.add((pick.phase, pick.event))
        last_ns[pick.phase] = pick.time_ns
    return first, later


def _usable(trace: Trace, reading: Reading) -> Trace | None:
    """The trace, noted where components are missing; None, and counted, where it has too few data."""
    alive = trace.valid.any(axis=1)
    if trace.valid.mean(axis=1).max() < MIN_VALID:
        reading.skip(BadTrace(f"{trace.name}: no data", f"windows with data for less than {MIN_VALID:.0%} of them"))
        return None
    if not alive.all():
        reading.notes[f"{3 - int(alive.sum())} component(s) missing or constant"] += 1
    return trace


def _named(trace: Trace, picks: Sequence[Pick], group: str) -> Trace:
    """The trace with kind, status, split and group of the ``picks`` in it."""
    statuses = {pick.status for pick in picks}
    kind = PSEUDO if statuses == {MACHINE_PICK} else LABELLED
    status = MANUAL if MANUAL in statuses else min(statuses)
    keep = tuple(label for label in trace.labels if label.weight > 0)
    weak = tuple(label for label in trace.labels if label.weight <= 0)
    return replace(
        trace, kind=kind, status=status, split=picks[0].split, group=group, labels=keep,
        doubtful=tuple(sorted((*trace.doubtful, *weak), key=lambda label: label.sample)),
    )  # fmt: skip
