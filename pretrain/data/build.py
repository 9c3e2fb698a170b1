"""What goes into a training pack: all labelled traces, then windows of continuous data until the budget is full."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from picker.errors import ConfigError
from pretrain.data.continuous import miniseed_files, read_miniseed, read_picks
from pretrain.data.folds import hold_out, order_key
from pretrain.data.pack import Packed, pack_trace, save_pack
from pretrain.data.seisbench import read_seisbench
from pretrain.data.trace import NOISE, PSEUDO, TRAIN, TUNE, Trace
from pretrain.data.windows import cut_windows

CONSENSUS, MACHINE = "picks_consensus.csv", "picks_machine.csv"
NOISE_EVERY = 4
"""Of the windows of continuous data, one in this many is noise, as long as there are both."""

Progress = Callable[[str, int, int], None]
"""Told what is done, how many parts of it are finished, and how many there are."""


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """What to pack from where; ``budget_bytes`` bounds the file."""

    labelled: Path | None
    continuous: Path | None
    budget_bytes: int
    window_s: float = 120.0
    split: str = TRAIN
    tune_share: float = 0.12


@dataclass(frozen=True, kw_only=True)
class PackReport:
    """What went in: traces by (kind, fold), seconds of data by kind, file size."""

    path: Path
    size_bytes: int
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    left_out: int = 0


def build_pack(plan: PackPlan, path: Path, progress: Progress = lambda what, done, total: None) -> PackReport:
    """Write the pack of ``plan``; raises ConfigError where the labelled traces alone exceed the budget."""
    chosen = list(_labelled(plan, progress)) if plan.labelled else []
    used = sum(item.size for item in chosen) + 1024
    if used > plan.budget_bytes:
        raise ConfigError(
            f"labelled traces alone take {used / 2**20:.1f} MiB of a budget of {plan.budget_bytes / 2**20:.1f} MiB; "
            "raise --budget"
        )
    left_out = 0
    for item in rotation(_windows(plan, progress)) if plan.continuous else ():
        if used + item.size <= plan.budget_bytes:
            chosen.append(item)
            used += item.size
        else:
            left_out += 1
    if not chosen:
        raise ConfigError(f"nothing to pack: no trace of split {plan.split!r} in the data that were named")
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for item in chosen:
        counts[item.entry["kind"], item.entry["fold"]] += 1
    return PackReport(path=path, size_bytes=save_pack(path, chosen), counts=dict(counts), left_out=left_out)


def _labelled(plan: PackPlan, progress: Progress) -> Iterator[Packed]:
    assert plan.labelled is not None
    traces = hold_out(read_seisbench(plan.labelled, plan.split), plan.tune_share, plan.split)
    for number, trace in enumerate(traces):
        progress("labelled traces", number, len(traces))
        yield pack_trace(trace)
    progress("labelled traces", len(traces), len(traces))


def _windows(plan: PackPlan, progress: Progress) -> Iterator[Packed]:
    """Windows of the training fold, except that ``tune_share`` of the noise is held out to count false picks on."""
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
            yield from cut_windows(record, *picks, plan.window_s, source="continuous", split=plan.split)
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
