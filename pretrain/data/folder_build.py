"""Building a folder of shards: part by part, by several processes, going on where an earlier build was ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np

from picker.errors import ConfigError
from pretrain.data import shards
from pretrain.data.parts import SEISBENCH, Input, Part, Rules, parts_of, traces_of
from pretrain.data.reading import Reading

GIB = 2**30
_TRACE_BYTES, _PART_BYTES = 160, 4096
"""At most what a trace takes in a catalogue beside its words, and a part's own files."""
_STOP = -(2**62)
_TRIES = 32
"""A shorter trace may fit still where one did not; but reading on for the last few is not worth a whole set."""

Progress = Callable[[int, int], None]
"""Told how many rows and files are done, and how many there are."""


@dataclass(frozen=True, kw_only=True)
class FolderPlan:
    """What to pack and how; ``budget_bytes`` bounds the whole folder, ``shard_bytes`` about a shard."""

    inputs: tuple[Input, ...]
    rules: Rules = field(default_factory=Rules)
    dtype: str = "int16"
    shard_bytes: int = GIB
    budget_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class FolderReport:
    """What became of every input, how many parts were there before, and the size of the folder."""

    path: Path
    readings: dict[str, Reading]
    parts: int
    found_done: int
    size_bytes: int


def build_folder(
    plan: FolderPlan, out: Path, workers: int = 1, progress: Progress = lambda done, total: None
) -> FolderReport:
    """Pack ``plan`` into the folder ``out``; parts that it holds already are left alone.

    Raises ConfigError where an input cannot be read or has no usable trace, and where ``out`` was packed by other
    rules or from other data.
    """
    _check_names(plan.inputs)
    parts = share_budget([parts_of(source, plan.rules, plan.shard_bytes) for source in plan.inputs], plan.budget_bytes)
    _prepare(plan, parts, out)
    for leftover in (out / shards.SHARDS).glob("*.part"):
        leftover.unlink()
    todo = [part for part in parts if shards.reading_of(out, part.name) is None]
    before = sum(part.count for part in parts) - sum(part.count for part in todo)
    total = sum(part.count for part in parts)
    progress(before, total)
    for done in _work(todo, plan, out, workers):
        progress(before + done, total)
    progress(total, total)
    readings = {source.name: Reading() for source in plan.inputs}
    for part in parts:
        readings[part.input.name].add(shards.reading_of(out, part.name) or Reading())
    for name, reading in readings.items():
        if not reading.read:
            reasons = reading.reasons() or f"no trace of split {plan.rules.split!r}"
            raise ConfigError(f"{name}: nothing to pack in it: {reasons}")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return FolderReport(
        path=out, readings=readings, parts=len(parts), found_done=len(parts) - len(todo), size_bytes=size
    )


def _check_names(inputs: Sequence[Input]) -> None:
    if not inputs:
        raise ConfigError("nothing to pack: name a set, a folder in SeisBench format or a folder of miniSEED")
    for name, count in Counter(source.name.lower() for source in inputs).items():
        if count > 1:
            raise ConfigError(
                f"{count} inputs are called {name!r}; a folder's name is that of its data set: rename one"
            )


def _prepare(plan: FolderPlan, parts: Sequence[Part], out: Path) -> None:
    """Write the plan of ``out``, or add to the one that is there; raises ConfigError where the two do not agree."""
    rules = {
        "dtype": plan.dtype,
        "split": plan.rules.split,
        "tune_share": plan.rules.tune_share,
        "held_share": plan.rules.held_share,
        "window_s": plan.rules.window_s,
        "as_noise": list(plan.rules.as_noise),
    }
    known: dict[str, str] = {}
    if (out / shards.PLAN).is_file():
        there = shards.read_plan(out)
        for key, value in rules.items():
            # Folders packed before there was such a rule follow none.
            if (was := there.get(key, [])) != value:
                raise ConfigError(f"{out}: packed with {key} {was}, not {value}; pack into another folder")
        known = there["parts"]
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: is there already and is no folder of shards; choose another name")
    new = {part.name: part.input.name for part in parts}
    stale = [part for part, name in known.items() if name in set(new.values()) and part not in new]
    if stale:
        raise ConfigError(
            f"{out}: holds {known[stale[0]]} packed otherwise (other data, --budget or --shard-size); "
            "pack into another folder"
        )
    shards.write_plan(out, {**rules, "parts": known | new})


def share_budget(inputs: Sequence[Sequence[Part]], budget_bytes: int | None) -> list[Part]:
    """All parts, each with its share of the budget.

    Inputs share it alike: one that needs less than its part leaves the rest to the others. Within an input, parts share
    by their size.
    """
    if budget_bytes is None:
        return [part for parts in inputs for part in parts]
    left = budget_bytes - _PART_BYTES * (1 + sum(len(parts) for parts in inputs))
    shared: dict[int, list[Part]] = {}
    order = sorted(range(len(inputs)), key=lambda number: sum(part.size_bytes for part in inputs[number]))
    for turn, number in enumerate(order):
        parts = inputs[number]
        size = sum(part.size_bytes for part in parts)
        mine = left // (len(order) - turn)
        # The size is an estimate: an input gets more than it seems to need while that is anybody's.
        mine = min(mine, size + size // 8 + _PART_BYTES) if turn < len(order) - 1 else mine
        if mine <= 0:
            raise ConfigError("--budget: too small for so many inputs; raise it")
        shared[number] = [part.within(int(mine * part.size_bytes / max(1, size))) for part in parts]
        left -= mine
    return [part for number in range(len(inputs)) for part in shared[number]]


def _work(todo: Sequence[Part], plan: FolderPlan, out: Path, workers: int) -> Iterator[int]:
    """Make the parts; yields again and again how many rows and files are done."""
    if workers <= 1:
        done = 0
        for part in todo:
            build_part(part, plan, out)
            yield (done := done + part.count)
        return
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_enlist, initargs=(counter,))
    try:
        with _born_deaf():
            pending: set[Future[None]] = {pool.submit(build_part, part, plan, out) for part in todo}
        while pending:
            with _late_interrupt():
                finished, pending = wait(pending, timeout=0.25, return_when=FIRST_COMPLETED)
                done = counter.value
            for future in finished:
                future.result()
            yield done
    except BrokenProcessPool as error:
        raise ConfigError(
            "a worker was ended, perhaps for want of memory; fewer --workers, and the same command goes on from here"
        ) from error
    finally:
        # Where all is done nobody looks at it any more; else the workers leave what they are at.
        with counter.get_lock():
            counter.value = _STOP
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _born_deaf() -> Iterator[None]:
    """Processes started meanwhile never hear Ctrl-C, which reaches all of a terminal: it is for the first to answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _late_interrupt() -> Iterator[None]:
    """Ctrl-C is raised at the end: in the midst of ``wait`` it would leave locks that the workers then wait for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


class _Stopped(Exception):
    """The build is being ended."""


_counter: Any = None


def _enlist(counter: Any) -> None:
    """Make this process a worker that counts on ``counter``, and ends with the one that started it."""
    global _counter
    _counter = counter
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _count(done: int) -> None:
    """Say that more rows or files are done; raises _Stopped where the build is being ended."""
    if _counter is None:
        return
    with _counter.get_lock():
        if _counter.value < 0:
            raise _Stopped
        _counter.value += done


def build_part(part: Part, plan: FolderPlan, out: Path) -> None:
    """Write one part of ``plan``; nothing of it is left where it fails."""
    reading = Reading()
    writer = shards.ShardWriter(out, part.name, plan.dtype)
    itemsize, used, seen = np.dtype(plan.dtype).itemsize, 0, 0
    try:
        for trace in traces_of(part, plan.rules, reading, shuffled=part.budget_bytes is not None):
            size = 3 * trace.samples * itemsize + _TRACE_BYTES + 2 * len(trace.name + trace.group)
            if part.budget_bytes is not None and used + size > part.budget_bytes:
                reading.left_out += 1
                if reading.left_out >= _TRIES:
                    break
                continue
            writer.add(trace)
            reading.read, used = reading.read + 1, used + size
            # Rows are counted one by one, files at the end of their part.
            counted = part.input.kind == SEISBENCH
            _count(counted)
            seen += counted
    except BaseException:
        writer.abandon()
        raise
    writer.close(reading)
    _count(part.count - seen)
