"""What goes into a training pack: all labelled traces, then windows of continuous data until the budget is full."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from picker.errors import ConfigError
from pretrain.data.blocks import HELD_SHARE
from pretrain.data.continuous import miniseed_files, read_miniseed, read_picks
from pretrain.data.folds import hold_out, order_key
from pretrain.data.pack import Packed, pack_trace, save_pack
from pretrain.data.parts import CONSENSUS, MACHINE, Input, Rules, parts_of, traces_of
from pretrain.data.reading import Reading
from pretrain.data.seisbench import read_seisbench
from pretrain.data.trace import NOISE, PSEUDO, TRAIN, TUNE, Trace
from pretrain.data.windows import cut_windows

__all__ = ["CONSENSUS", "MACHINE", "PackPlan", "PackReport", "build_pack", "continuous_windows", "rotation"]

NOISE_EVERY = 4
"""Of the windows of continuous data, one in this many is noise, as long as there are both."""

Progress = Callable[[str, int, int], None]
"""Told what is done, how many parts of it are finished, and how many there are."""


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """What to pack from where; ``budget_bytes`` bounds the file.

    All of ``labelled`` goes in; ``others`` and ``continuous`` share what is left of the budget.
    """

    labelled: Path | None
    continuous: Path | None
    budget_bytes: int
    window_s: float = 120.0
    split: str = TRAIN
    tune_share: float = 0.12
    held_share: float = HELD_SHARE
    others: tuple[Input, ...] = ()
    as_noise: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PackReport:
    """What went in: traces by (kind, fold), file size, and what became of the traces of ``others``, by their names."""

    path: Path
    size_bytes: int
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    left_out: int = 0
    readings: dict[str, Reading] = field(default_factory=dict)


def build_pack(plan: PackPlan, path: Path, progress: Progress = lambda what, done, total: None) -> PackReport:
    """Write the pack of ``plan``; raises ConfigError where the labelled traces alone exceed the budget."""
    chosen = list(_labelled(plan, progress)) if plan.labelled else []
    used = sum(item.size for item in chosen) + 1024
    if used > plan.budget_bytes:
        raise ConfigError(
            f"labelled traces alone take {used / 2**20:.1f} MiB of a budget of {plan.budget_bytes / 2**20:.1f} MiB; "
            "raise --budget"
        )
    readings = {source.name: Reading() for source in plan.others}
    # The continuous data count as one more input, and have what the others leave.
    theirs = (plan.budget_bytes - used) * len(plan.others) // (len(plan.others) + bool(plan.continuous) or 1)
    begun = used
    for item in _in_turns(plan, readings, theirs):
        chosen.append(item)
        used += item.size
        progress("other inputs, KiB", (used - begun) // 1024, theirs // 1024)
    left_out = 0
    for item in rotation(_windows(plan, progress)) if plan.continuous else ():
        if used + item.size <= plan.budget_bytes:
            chosen.append(item)
            used += item.size
        else:
            left_out += 1
    if not chosen:
        skipped = "".join(f"; {name}: {reading.reasons()}" for name, reading in readings.items() if reading.skipped)
        raise ConfigError(f"nothing to pack: no trace of split {plan.split!r} in the data that were named{skipped}")
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for item in chosen:
        counts[item.entry["kind"], item.entry["fold"]] += 1
    size = save_pack(path, chosen)
    return PackReport(path=path, size_bytes=size, counts=dict(counts), left_out=left_out, readings=readings)


def _in_turns(plan: PackPlan, readings: dict[str, Reading], left_bytes: int) -> Iterator[Packed]:
    """A trace of each of the other inputs in turn, and of each part of an input in turn, as long as they fit."""
    rules = Rules(
        split=plan.split,
        tune_share=plan.tune_share,
        held_share=plan.held_share,
        window_s=plan.window_s,
        as_noise=plan.as_noise,
    )
    turns = [
        [traces_of(part, rules, readings[source.name], shuffled=True) for part in parts_of(source, rules, 2**30)]
        for source in plan.others
    ]
    while any(turns):
        for source, parts in zip(plan.others, turns, strict=True):
            if not parts:
                continue
            parts.append(traces := parts.pop(0))
            trace = next(traces, None)
            if trace is None:
                parts.pop()
                continue
            item = pack_trace(trace)
            if item.size > left_bytes:
                readings[source.name].left_out += 1
                for rest in parts:
                    rest.close()
                parts.clear()
                continue
            left_bytes -= item.size
            readings[source.name].read += 1
            yield item


def _labelled(plan: PackPlan, progress: Progress) -> Iterator[Packed]:
    assert plan.labelled is not None
    traces = hold_out(read_seisbench(plan.labelled, plan.split, as_noise=plan.as_noise), plan.tune_share, plan.split)
    for number, trace in enumerate(traces):
        progress("labelled traces", number, len(traces))
        yield pack_trace(trace)
    progress("labelled traces", len(traces), len(traces))


def _windows(plan: PackPlan, progress: Progress) -> Iterator[Packed]:
    """Windows of the training fold, except that ``tune_share`` of the noise is held out to count false picks on.

    Windows that touch a held-out block of time are left out: `pretrain calibrate` streams those from the files.
    """
    for trace in continuous_windows(plan, progress):
        held = trace.kind == NOISE and int(order_key("tune", trace.name)[:8], 16) < plan.tune_share * 16**8
        yield pack_trace(replace(trace, fold=TUNE) if held else trace)


def continuous_windows(plan: PackPlan, progress: Progress = lambda what, done, total: None) -> Iterator[Trace]:
    """Every window that the continuous data of ``plan`` offer, file by file."""
    assert plan.continuous is not None
    folder = plan.continuous
    files = miniseed_files(folder, plan.split if (folder / plan.split).is_dir() else None)
    consensus = read_picks(folder / CONSENSUS)
    machine = read_picks(folder / MACHINE) if (folder / MACHINE).is_file() else consensus
    for number, file in enumerate(files):
        progress("continuous files", number, len(files))
        for record in read_miniseed(file):
            picks = consensus.get(record.code, []), machine.get(record.code, [])
            yield from cut_windows(
                record, *picks, plan.window_s, source="continuous", split=plan.split, held_share=plan.held_share
            )
    progress("continuous files", len(files), len(files))


def rotation(windows: Iterable[Packed]) -> Iterator[Packed]:
    """``windows`` in an order that serves every station in turn and mixes in noise, whatever budget cuts it short.

    Each station gives its windows in a fixed arbitrary order, one a round; a station that is used up drops out.
    """
    queues: dict[str, dict[str, list[Packed]]] = {PSEUDO: defaultdict(list), NOISE: defaultdict(list)}
    for item in windows:
        queues[item.entry["kind"]][item.entry["source"]].append(item)
    pseudo, noise = (_in_turn(queues[kind]) for kind in (PSEUDO, NOISE))
    while pseudo or noise:
        take, pseudo = pseudo[: NOISE_EVERY - 1], pseudo[NOISE_EVERY - 1 :]
        take, noise = [*take, *noise[:1]], noise[1:]
        yield from take


def _in_turn(stations: dict[str, list[Packed]]) -> list[Packed]:
    ordered = [sorted(items, key=lambda item: order_key(item.entry["name"])) for _, items in sorted(stations.items())]
    longest = max((len(items) for items in ordered), default=0)
    return [items[turn] for turn in range(longest) for items in ordered if turn < len(items)]
