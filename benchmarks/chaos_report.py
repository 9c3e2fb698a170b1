"""What ``chaos.py`` found: the runs held against the undisturbed one, as Markdown and as ``key: value`` lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos_data import GRACE_S, LEAVES_HOLE, Fault
from chaos_stage import Outcome, Scene
from machine import Machine
from rig import facts, total
from rig_subscriber import Heard, confirmed

from streamer.instant import utc_ns

NEAR_S = 5.0
"""So long after a hole a pick must say that it was there."""
MERGE_S = 0.5
"""Two picks of a station and phase closer than this are one (docs/mqtt.md)."""
FORGOTTEN_S, FORGOTTEN = 0.001, 0.01
"""A model with memory: how far time (s) and probability of the same pick may still be apart after ``GRACE_S``."""
COUNTED = {
    "corrupt": ("onset_bad_records_total", 'reason="corrupt"'),
    "lost_component": ("onset_station_decisions_total", 'reason="gap"'),
    "lost_record": ("onset_station_decisions_total", 'reason="gap"'),
    "gap": ("onset_station_decisions_total", 'reason="reset"'),
    "clock_future": ("onset_station_decisions_total", 'reason="future"'),
    "clock_past": ("onset_station_decisions_total", 'reason="backward_clock"'),
    "clock_shift": ("onset_station_decisions_total", 'reason="overlap"'),
    "nan": ("onset_station_decisions_total", 'reason="not_finite"'),
}
"""Where each kind of fault must show."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that the report says."""

    machine: Machine
    scene: Scene
    faults: Sequence[Fault]
    reference: Outcome
    a: Outcome
    b: Outcome
    seed: int
    loads: tuple[float | None, float | None]


def seconds(one: Heard, start_ns: int) -> float:
    """Arrival time of the pick in seconds of data."""
    return (utc_ns(one.pick["time"]) - start_ns) / 1e9


def near(one: Heard, other: Heard, time_s: float = 0.0, probability: float = 0.0) -> bool:
    """Whether both are of one station and phase, and time and probability no further apart than given."""
    apart_s = abs(utc_ns(one.pick["time"]) - utc_ns(other.pick["time"])) / 1e9
    same = (one.station, one.pick["phase"]) == (other.station, other.pick["phase"])
    return same and apart_s <= time_s and abs(one.probability - other.probability) <= probability


def differences(left: Mapping[str, Heard], right: Mapping[str, Heard]) -> tuple[list[Heard], list[Heard]]:
    """Picks that only one of the two has, by id; the same id with any other content counts on both sides."""
    same = {id for id in left.keys() & right.keys() if near(left[id], right[id])}
    return [one for id, one in left.items() if id not in same], [one for id, one in right.items() if id not in same]


def unmatched(ours: Mapping[str, Heard], theirs: Mapping[str, Heard]) -> list[Heard]:
    """Those of ``ours`` that none of ``theirs`` equals as far as a model with memory can tell, whatever their ids."""
    lines: dict[tuple[str, str], list[Heard]] = {}
    for other in theirs.values():
        lines.setdefault((other.station, other.pick["phase"]), []).append(other)
    return [
        one
        for one in ours.values()
        if not any(
            near(one, other, FORGOTTEN_S, FORGOTTEN) for other in lines.get((one.station, one.pick["phase"]), ())
        )
    ]


def doubled(picks: Mapping[str, Heard], start_ns: int) -> int:
    """Pairs of different ids of one station and phase within ``MERGE_S``."""
    lines: dict[tuple[str, str], list[float]] = {}
    for one in picks.values():
        lines.setdefault((one.station, one.pick["phase"]), []).append(seconds(one, start_ns))
    pairs = 0
    for times in lines.values():
        times.sort()
        pairs += sum(later - sooner < MERGE_S for sooner, later in pairwise(times))
    return pairs


def repetitions(heard: Sequence[Heard]) -> int:
    """Messages that came more than once: same id, revision and status."""
    return len(heard) - len({(one.id, one.onset["revision"], one.onset["status"]) for one in heard})


def outside(
    picks: Mapping[str, Heard], faults: Sequence[Fault], start_ns: int, grace_s: float = GRACE_S
) -> dict[str, Heard]:
    """Those that no fault of their station excuses: before it, or later than ``grace_s`` after it."""
    spans = {fault.station: (fault.begin_s - NEAR_S, fault.end_s + grace_s) for fault in faults}

    def excused(one: Heard) -> bool:
        begin_s, end_s = spans.get(one.station, (0.0, 0.0))
        return begin_s <= seconds(one, start_ns) <= end_s

    return {id: one for id, one in picks.items() if not excused(one)}


def _outside_faults(findings: Findings) -> tuple[dict[str, Heard], dict[str, Heard]]:
    """The picks of the undisturbed run and of run B that no fault excuses."""
    before, after = (
        outside(confirmed(run.heard), findings.faults, findings.scene.start_ns)
        for run in (findings.reference, findings.b)
    )
    return before, after


def unflagged(picks: Mapping[str, Heard], faults: Sequence[Fault], start_ns: int) -> tuple[int, int]:
    """Of the picks up to ``NEAR_S`` after a hole: how many there are, and how many of them say nothing of it."""
    spans = {fault.station: (fault.end_s, fault.end_s + NEAR_S) for fault in faults if fault.kind in LEAVES_HOLE}
    close = []
    for one in picks.values():
        begin_s, end_s = spans.get(one.station, (1.0, 0.0))
        if begin_s <= seconds(one, start_ns) <= end_s:
            close.append(one)
    return len(close), sum(not one.onset["quality"] for one in close)


def uncounted(findings: Findings) -> list[str]:
    """Kinds of fault that do not show in the daemon's counters beyond what the undisturbed run counts."""
    out = []
    for kind, (name, label) in COUNTED.items():
        injected = sum(fault.kind == kind for fault in findings.faults)
        more = total(findings.b.counts, name, label) - total(findings.reference.counts, name, label)
        if more < injected:
            out.append(f"{kind} ({more:g} of {injected})")
    return out


def bars(findings: Findings) -> dict[str, str]:
    """The figures that are quoted, each under its key."""
    start_ns = findings.scene.start_ns
    reference, a, b = (confirmed(run.heard) for run in (findings.reference, findings.a, findings.b))
    lost, invented = differences(reference, a)
    untouched = [outside(picks, findings.faults, start_ns, float("inf")) for picks in (reference, b)]
    before, after = _outside_faults(findings)
    close, silent = unflagged(b, findings.faults, start_ns)
    return {
        "picks_reference": str(len(reference)),
        "reference_snapshots_failed": f"{total(findings.reference.counts, 'onset_snapshot_failures_total'):g}",
        "a_picks": str(len(a)),
        "a_picks_lost": str(len(lost)),
        "a_picks_invented": str(len(invented)),
        "a_picks_under_two_ids": str(max(0, doubled(a, start_ns) - doubled(reference, start_ns))),
        "a_messages_repeated": str(repetitions(findings.a.heard)),
        "a_crashes": str(findings.a.crashes),
        "b_picks_outside_faults": str(len(after)),
        "b_picks_lost": str(len(unmatched(before, after))),
        "b_picks_invented": str(len(unmatched(after, before))),
        "b_picks_under_another_id": str(len(after.keys() - before.keys())),
        "b_picks_untouched": str(len(untouched[0])),
        "b_picks_untouched_changed": str(max(map(len, differences(untouched[0], untouched[1])))),
        "b_crashes": str(findings.b.crashes),
        "b_faults_not_counted": ", ".join(uncounted(findings)) or "0",
        "b_picks_near_holes": str(close),
        "b_picks_near_holes_unflagged": str(silent),
    }


def missed(findings: Findings) -> list[str]:
    """Bars that do not hold."""
    figures = bars(findings)
    none = (
        "reference_snapshots_failed", "a_picks_lost", "a_picks_invented", "a_picks_under_two_ids", "a_crashes",
        "b_picks_lost", "b_picks_invented", "b_picks_untouched_changed", "b_crashes", "b_faults_not_counted",
        "b_picks_near_holes_unflagged",
    )  # fmt: skip
    return [key for key in none if figures[key] != "0"] + ["picks_reference"] * (figures["picks_reference"] == "0")


def markdown(findings: Findings) -> str:
    """The report."""
    scene, failed = findings.scene, missed(findings)
    lines = [
        "# Chaos",
        "",
        *facts(findings.machine, findings.loads),
        f"- {len(scene.stations)} stations, {scene.seconds:g} s of data at {scene.speed:g} times real time, "
        f"seed {findings.seed}",
        "",
        f"**{'Bars missed: ' + ', '.join(failed) if failed else 'All bars hold.'}**",
        "",
        "## Run A: faults that destroy no data",
        "",
        "All along: a tenth of the records twice, east components up to 2 s late, every record up to 2 s more and out",
        "of order.",
        "",
        "| s | what was done |",
        "|---|---|",
        *(f"| {at_s:.1f} | {text} |" for at_s, text in findings.a.log),
        "",
        "## Run B: faults that destroy data",
        "",
        "| station | fault | component | from (s of data) | to |",
        "|---|---|---|---|---|",
        *(f"| {one.station} | {one.kind} | {one.component} | {one.begin_s} | {one.end_s} |" for one in findings.faults),
        "",
        "| fault | counted as | undisturbed | run B |",
        "|---|---|---|---|",
        *(
            f"| {kind} | `{name}{{{label}}}` | {total(findings.reference.counts, name, label):g} | "
            f"{total(findings.b.counts, name, label):g} |"
            for kind, (name, label) in COUNTED.items()
        ),
        "",
        *_told_apart(findings),
        "## Figures",
        "",
        "```",
        *(f"{key}: {value}" for key, value in bars(findings).items()),
        "```",
        "",
    ]
    return "\n".join(lines)


def _told_apart(findings: Findings) -> list[str]:
    """The picks of run B outside all faults that the undisturbed run has not, or the other way round."""
    start_ns = findings.scene.start_ns
    before, after = _outside_faults(findings)
    ends = {fault.station: fault.end_s for fault in findings.faults}
    rows = [
        f"| {side} | {one.station} {one.pick['phase']} | {seconds(one, start_ns):.3f} | {one.probability:.4f} "
        f"| {seconds(one, start_ns) - ends[one.station]:.0f} |"
        for side, ours, theirs in (("undisturbed", before, after), ("run B", after, before))
        for one in unmatched(ours, theirs)
    ]
    if not rows:
        return []
    heading = ["| only in | pick | s of data | probability | s after the fault |", "|---|---|---|---|---|"]
    return ["Picks outside the faults that one of the two alone has:", "", *heading, *rows, ""]
