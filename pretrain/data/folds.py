"""Held-out folds by event, the same on every machine and for every run."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from pretrain.data.trace import TRAIN, TUNE, Trace


def order_key(*words: object) -> str:
    """A hash to sort by: an order that is arbitrary but never changes."""
    return hashlib.sha256("/".join(map(str, words)).encode()).hexdigest()


def hold_out(traces: Iterable[Trace], share: float = 0.12, of_split: str = TRAIN) -> list[Trace]:
    """Mark ``share`` of the groups of split ``of_split`` as fold ``tune``, the rest keeps its fold.

    Groups are drawn within each pair of source and status, so that each contributes (at least one group where there
    are more than two); all traces of a group go together.
    """
    traces = list(traces)
    strata: dict[tuple[str, str], set[str]] = defaultdict(set)
    home: dict[str, tuple[str, str]] = {}
    for trace in traces:
        if trace.split == of_split:
            strata[home.setdefault(trace.group, (trace.source, trace.status))].add(trace.group)
    held: set[str] = set()
    for stratum, groups in strata.items():
        wanted = max(1, round(share * len(groups))) if len(groups) > 2 else 0
        held.update(sorted(groups, key=lambda group, s=stratum: order_key(*s, group))[:wanted])  # type: ignore[misc]
    return [replace(trace, fold=TUNE) if trace.split == of_split and trace.group in held else trace for trace in traces]
