"""``streamer compare``: how two sets of picks differ."""

from __future__ import annotations

import argparse
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from picker.errors import ConfigError
from streamer.compare_live import listen
from streamer.instant import utc_ns

DESCRIPTION = """\
Say how two sets of picks differ: of two runs, two models or two versions of Onset, for the same data.

A and B are JSON lines, of `streamer watch --json` or `streamer pick --format jsonl`. Of each id the last revision
counts, and what was provisional or retracted in the end is no pick. Picks of one network, station, location and phase
match within 0.5 s, the nearest first. "identical" are those whose messages are equal to the byte, apart from what tells
when data arrived (published_time, latency)."""

EXAMPLES = """\
examples:
  streamer compare live.jsonl replayed.jsonl               the same picks at the same times, or exit status 1
  streamer compare --tolerance-s 0.05 old.jsonl new.jsonl  times may differ by 0.05 s
  streamer compare --config onset.toml --for-s 3600        what the daemon and its shadow publish in this hour

exit status: 0 every pick has its partner within --tolerance-s; 1 not so; 2 something to mend, said in one line
"""

MATCH_S = 0.5
PERCENTILES = (5, 25, 50, 75, 95)
MOST_LISTED = 20
ARRIVAL = frozenset({"published_time", "latency"})

Key = tuple[str, str, str, str]
"""Network, station, location, phase."""


@dataclass(frozen=True, kw_only=True)
class ComparedPick:
    """A pick as far as it is compared; ``text`` is its message without what tells when data arrived."""

    key: Key
    channel: str
    time_ns: int
    probability: float
    time: str
    text: str

    def __str__(self) -> str:
        network, station, location, phase = self.key
        return f"{self.time}  {network}.{station}.{location}.{self.channel}  {phase}  {self.probability:.3f}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Picks of A and B: ``matched`` pairs in order of time, and those without a partner."""

    matched: list[tuple[ComparedPick, ComparedPick]]
    only_a: list[ComparedPick]
    only_b: list[ComparedPick]

    @property
    def times_s(self) -> list[float]:
        """B minus A of each pair (s)."""
        return [(b.time_ns - a.time_ns) / 1e9 for a, b in self.matched]

    @property
    def identical(self) -> int:
        """Pairs whose messages are equal."""
        return sum(a.text == b.text for a, b in self.matched)

    def within(self, tolerance_s: float) -> bool:
        """Whether every pick has its partner at most so far away."""
        return not self.only_a and not self.only_b and all(abs(one) <= tolerance_s for one in self.times_s)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer compare``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("a", type=Path, nargs="?", metavar="A", help="picks as JSON lines")
    add("b", type=Path, nargs="?", metavar="B", help="the other picks")
    add("--config", type=Path, metavar="FILE",
        help="instead of A and B: settings of a daemon; A are its picks and B those of its shadow, live")  # fmt: skip
    add("--for-s", type=float, metavar="T", help="with --config: compare after T seconds (default: at Ctrl-C)")
    add("--tolerance-s", type=float, default=0.0, metavar="S",
        help="most that the times of a pair may differ for exit status 0 (default %(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run ``streamer compare``; returns the exit status. Raises ConfigError for files that are no picks."""
    if not 0 <= args.tolerance_s <= MATCH_S:
        raise ConfigError(f"--tolerance-s {args.tolerance_s:g}: give seconds from 0 to {MATCH_S:g}")
    if args.config is not None and args.a is None:
        first, second = listen(args.config, args.for_s)
        comparison = compare(picks_of(first, "picks"), picks_of(second, "picks of the shadow"))
    elif args.config is None and args.b is not None and args.for_s is None:
        comparison = compare(read_picks(args.a), read_picks(args.b))
    else:
        raise ConfigError("give two files of picks, or --config (and --for-s) alone")
    print("\n".join(report(comparison)))
    return 0 if comparison.within(args.tolerance_s) else 1


def without_arrival(message: dict[str, Any]) -> str:
    """A pick message as text, without what tells when data arrived and how long the work took."""
    analytics = message["analyticsInfo"]
    onset = {name: value for name, value in analytics["extensions"]["onset"].items() if name not in ARRIVAL}
    rest = {**message, "analyticsInfo": {**analytics, "extensions": {**analytics["extensions"], "onset": onset}}}
    return json.dumps(rest, sort_keys=True)


def read_picks(path: Path) -> list[ComparedPick]:
    """The picks of a file of JSON lines, by time. Raises ConfigError that names the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    return picks_of(lines, str(path))


def picks_of(lines: Iterable[str], source: str) -> list[ComparedPick]:
    """The picks of JSON lines that come from ``source``, by time. Raises ConfigError that names the line."""
    last: dict[str, tuple[tuple[int, bool], dict[str, Any]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            message = json.loads(line)
            onset = message["analyticsInfo"]["extensions"]["onset"]
            rank = int(onset["revision"]), onset["status"] != "provisional"
            if message["id"] not in last or rank >= last[message["id"]][0]:
                last[message["id"]] = rank, message
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{source}: line {number} is no pick of Onset; give JSON lines, not CSV") from None
    confirmed = (message for _, message in last.values() if _status(message) == "confirmed")
    try:
        return sorted(map(_compared, confirmed), key=lambda pick: (pick.time_ns, pick.key))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(f"{source}: a pick lacks what is compared ({error!r})") from None


def _status(message: dict[str, Any]) -> str:
    return str(message["analyticsInfo"]["extensions"]["onset"]["status"])


def _compared(message: dict[str, Any]) -> ComparedPick:
    codes = message["channel"]["properties"]
    return ComparedPick(
        key=(codes["network"], codes["station"], codes["location"], message["phase"]),
        channel=codes["channel"],
        time_ns=utc_ns(message["time"]),
        probability=float(message["analyticsInfo"]["predictions"][0]["probability"]),
        time=message["time"],
        text=without_arrival(message),
    )


def compare(a: Sequence[ComparedPick], b: Sequence[ComparedPick]) -> Comparison:
    """Match the picks of each station and phase, the nearest first; both are sorted by time."""
    taken_a: set[int] = set()
    taken_b: set[int] = set()
    matched = []
    for _, first, second in sorted(_near(a, b)):
        if first not in taken_a and second not in taken_b:
            taken_a.add(first)
            taken_b.add(second)
            matched.append((a[first], b[second]))
    return Comparison(
        matched=sorted(matched, key=lambda pair: (pair[0].time_ns, pair[0].key)),
        only_a=[pick for index, pick in enumerate(a) if index not in taken_a],
        only_b=[pick for index, pick in enumerate(b) if index not in taken_b],
    )


def _near(a: Sequence[ComparedPick], b: Sequence[ComparedPick]) -> Iterable[tuple[int, int, int]]:
    """Distance (ns) and places of each pair that may match."""
    places: dict[Key, list[int]] = {}
    for index, pick in enumerate(b):
        places.setdefault(pick.key, []).append(index)
    most_ns = round(MATCH_S * 1e9)

    def time_ns(index: int) -> int:
        return b[index].time_ns

    for first, pick in enumerate(a):
        candidates = places.get(pick.key, [])
        begin = bisect_left(candidates, pick.time_ns - most_ns, key=time_ns)
        end = bisect_right(candidates, pick.time_ns + most_ns, key=time_ns)
        for second in candidates[begin:end]:
            yield abs(b[second].time_ns - pick.time_ns), first, second


def report(comparison: Comparison) -> list[str]:
    """The lines that are printed."""
    pairs = comparison.matched
    count_a, count_b = len(pairs) + len(comparison.only_a), len(pairs) + len(comparison.only_b)
    lines = [
        f"A {count_a} picks, B {count_b}; matched {len(pairs)}, identical {comparison.identical}, "
        f"only in A {len(comparison.only_a)}, only in B {len(comparison.only_b)}"
    ]
    if pairs:
        lines += [
            f"{'B - A':<22}{'least':>10}" + "".join(f"{f'{p} %':>10}" for p in PERCENTILES) + f"{'most':>10}",
            _row("time (s)", comparison.times_s),
            _row("probability", [b.probability - a.probability for a, b in pairs]),
        ]
    for name, picks in (("A", comparison.only_a), ("B", comparison.only_b)):
        lines += [f"only in {name}  {pick}" for pick in picks[:MOST_LISTED]]
        if len(picks) > MOST_LISTED:
            lines.append(f"only in {name}  ... and {len(picks) - MOST_LISTED} more")
    return lines


def _row(name: str, values: Sequence[float]) -> str:
    figures = np.percentile(values, (0, *PERCENTILES, 100))
    return f"{name:<22}" + "".join(f"{figure:>10.4f}" for figure in figures + 0.0)
