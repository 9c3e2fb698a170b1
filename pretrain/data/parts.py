"""What is packed, in parts that a process each can make: some rows of a SeisBench set, or some miniSEED files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from picker.errors import ConfigError
from pretrain.data.blocks import HELD_SHARE
from pretrain.data.continuous import MachinePick, StationCode, miniseed_files, read_miniseed, read_picks
from pretrain.data.folds import order_key
from pretrain.data.observed import read_records
from pretrain.data.picks import read_observed
from pretrain.data.reading import BadTrace, Reading
from pretrain.data.seisbench import chunks_of, count_rows, open_chunk
from pretrain.data.stretches import cut_stretches, is_held
from pretrain.data.trace import NOISE, TRAIN, TUNE, Trace
from pretrain.data.windows import cut_windows

SEISBENCH, MINISEED, PICKED, OBSERVED = "seisbench", "miniseed", "picked", "observed"
"""Kinds of input: a SeisBench set; miniSEED of which nothing is known; miniSEED with the consensus of machines;
miniSEED with a file of picks."""
CONSENSUS, MACHINE = "picks_consensus.csv", "picks_machine.csv"
_STEIM_GROWTH = 2.0
"""Bytes of 16-bit codes for a byte of compressed miniSEED, about."""
_CODE_BYTES = 2
Picks = dict[StationCode, list[MachinePick]]


@dataclass(frozen=True, kw_only=True)
class Input:
    """A data set to pack: a folder and what kind it is of; ``name`` is unique, an observed one has ``picks``."""

    kind: str
    name: str
    folder: Path
    picks: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is taken of every input; ``split`` "all" takes every split.

    Rows of SeisBench's sets whose ``trace_category`` is in ``as_noise`` are noise, whatever was picked in them.
    """

    split: str = TRAIN
    tune_share: float = 0.12
    held_share: float = HELD_SHARE
    window_s: float = 120.0
    as_noise: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of an input: ``count`` rows of a chunk from ``first``, or ``files``.

    ``name`` is that of its files in a folder of shards, and changes with what is in the part. ``size_bytes`` is about
    what it takes there, ``budget_bytes`` the most it may take.
    """

    name: str
    input: Input
    size_bytes: int
    chunk: str = ""
    first: int = 0
    count: int = 0
    files: tuple[Path, ...] = ()
    budget_bytes: int | None = None

    def within(self, budget_bytes: int) -> Part:
        """The part with a bound on its size, and a name of its own."""
        return replace(self, budget_bytes=budget_bytes, name=f"{self.name}-{budget_bytes}")


def parts_of(source: Input, rules: Rules, part_bytes: int) -> list[Part]:
    """The parts of an input, of about ``part_bytes`` each; raises ConfigError where there is nothing to read."""
    if source.kind == SEISBENCH:
        return [part for chunk in chunks_of(source.folder) for part in _rows(source, chunk, part_bytes)]
    if source.kind == OBSERVED:
        return [_observed(source)]
    below = source.folder / rules.split
    files = miniseed_files(source.folder, rules.split if below.is_dir() else None)
    groups: list[list[Path]] = [[]]
    for file in files:
        if groups[-1] and _size([*groups[-1], file]) * _STEIM_GROWTH > part_bytes:
            groups.append([])
        groups[-1].append(file)
    parts = []
    for number, group in enumerate(groups):
        facts = [(file.name, file.stat().st_size) for file in group]
        name = _name(source, f"{number:05d}", facts)
        size = round(_size(group) * _STEIM_GROWTH)
        parts.append(Part(name=name, input=source, size_bytes=size, count=len(group), files=tuple(group)))
    return parts


def _observed(source: Input) -> Part:
    """All of an observed input as one part: a pick may lie in any file, and is missed only where it lies in none."""
    assert source.picks is not None
    files = tuple(miniseed_files(source.folder))
    known = [source.picks, *files] if source.picks.is_file() else files
    name = _name(source, "00000", [(file.name, file.stat().st_size) for file in known])
    size = round(_size(files) * _STEIM_GROWTH)
    return Part(name=name, input=source, size_bytes=size, count=len(files), files=files)


def _size(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _rows(source: Input, chunk: str, part_bytes: int) -> Iterator[Part]:
    rows = count_rows(source.folder, chunk)
    with open_chunk(source.folder, chunk) as opened:
        stored = opened.path.stat().st_size
        each = max(1, _CODE_BYTES * opened.about_samples() // max(1, rows))
    together = max(1, part_bytes // each)
    for first in range(0, rows, together):
        count = min(together, rows - first)
        label = f"{chunk}-{first:08d}" if chunk else f"{first:08d}"
        name = _name(source, label, [chunk, first, count, stored])
        yield Part(name=name, input=source, size_bytes=each * count, chunk=chunk, first=first, count=count)


def _name(source: Input, label: str, facts: object) -> str:
    digest = hashlib.sha256(repr((source.kind, facts)).encode()).hexdigest()[:8]
    return re.sub(r"[^\w.-]+", "_", f"{source.name}-{label}-{digest}").lower()


def traces_of(part: Part, rules: Rules, reading: Reading, shuffled: bool = False) -> Generator[Trace, None, None]:
    """The usable traces of a part; ``reading`` counts those that are not.

    ``shuffled``: in a fixed arbitrary order, so that a budget may end it anywhere.
    """
    if part.input.kind == SEISBENCH:
        yield from _of_rows(part, rules, reading, shuffled)
        return
    files = sorted(part.files, key=lambda file: order_key(file.name)) if shuffled else part.files
    if part.input.kind == OBSERVED:
        yield from _of_picks(part, files, rules, reading)
        return
    picks = _picks(part.input.folder) if part.input.kind == PICKED else None
    for file in files:
        try:
            for record in read_miniseed(file, reading.skip):
                if picks is None:
                    yield from cut_stretches(record, part.input.name, rules.tune_share)
                    continue
                consensus, machine = (found.get(record.code, []) for found in picks)
                for trace in cut_windows(
                    record, consensus, machine, rules.window_s, source=part.input.name, held_share=rules.held_share
                ):
                    held = trace.kind == NOISE and is_held(part.input.name, trace.name, rules.tune_share)
                    yield replace(trace, fold=TUNE) if held else trace
        except ConfigError:
            reading.skip(BadTrace(f"{file}: not miniSEED", "a file that cannot be read as miniSEED"))


def _of_picks(part: Part, files: Sequence[Path], rules: Rules, reading: Reading) -> Iterator[Trace]:
    assert part.input.picks is not None
    picks = read_observed(part.input.picks, reading)
    for trace in read_records(files, picks, part.input.name, rules.window_s, reading):
        if rules.split in ("all", trace.split):
            held = is_held(part.input.name, trace.group, rules.tune_share)
            yield replace(trace, fold=TUNE if held else TRAIN)


def _picks(folder: Path) -> tuple[Picks, Picks]:
    consensus = read_picks(folder / CONSENSUS)
    return consensus, read_picks(folder / MACHINE) if (folder / MACHINE).is_file() else consensus


def _of_rows(part: Part, rules: Rules, reading: Reading, shuffled: bool) -> Iterator[Trace]:
    with open_chunk(part.input.folder, part.chunk, part.input.name) as chunk:
        rows = [
            row
            for row in chunk.rows(part.first, part.count)
            if rules.split == "all" or (row.get("split") or TRAIN) == rules.split
        ]
        if shuffled:
            rows.sort(key=lambda row: order_key(row["trace_name"]))
        for row in rows:
            try:
                trace, notes = chunk.trace(row, rules.as_noise)
                if not trace.valid.any():
                    raise BadTrace(f"{trace.name}: no data", "no data: every component is missing, constant or NaN")
            except (KeyError, ValueError, IndexError, OSError, ConfigError) as error:
                reading.skip(error)
                continue
            reading.notes.update(notes)
            held = is_held(part.input.name, trace.group, rules.tune_share)
            yield replace(trace, fold=TUNE if held else TRAIN)
