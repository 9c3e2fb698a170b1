"""Held-out folds by event, the same on every machine and for every run."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from pretrain.data.trace import LABELLED, SIMULATED, TRAIN, TUNE, Trace


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


def label_fraction(traces: Iterable[Trace], fraction: float, seed: int = 0) -> list[Trace]:
    """``traces`` with the labels of only ``fraction`` of the analysts' groups; the other labelled traces are left out.

    Groups are drawn within each pair of source and status, at least one from each, and a smaller fraction is a part of
    a larger one with the same ``seed``. Simulated records, pseudo-labels and noise all stay.
    """
    traces = list(traces)
    strata: dict[tuple[str, str], set[str]] = defaultdict(set)
    for trace in traces:
        if _is_catalogue(trace):
            strata[trace.source, trace.status].add(trace.group)
    kept: set[tuple[str, str, str]] = set()
    for (source, status), groups in strata.items():
        wanted = max(1, round(fraction * len(groups)))
        ordered = sorted(groups, key=lambda group: order_key("labels", seed, group))
        kept.update((source, status, group) for group in ordered[:wanted])
    return [t for t in traces if not _is_catalogue(t) or (t.source, t.status, t.group) in kept]


def _is_catalogue(trace: Trace) -> bool:
    return trace.kind == LABELLED and trace.status != SIMULATED
