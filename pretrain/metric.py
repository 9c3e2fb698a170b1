"""The metric of every picker: hits, false picks and residuals against labels, at two tolerances.

For each labelled phase, a hit at tolerance d is a pick of that phase within d of the label (the nearest one; one pick
serves one label). A false pick is an unmatched pick of that phase between 5 s before P and 5 s after S (10 s after P
where S is unlabelled); outside that window a record may hold unlabelled earthquakes, and picks there do not count.
Records without any label are noise: every pick on them is false. Residual = pick - label, of hits at the last
tolerance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain.data.trace import RATE_HZ, Trace

PHASES = ("P", "S")
TOLERANCES_S = (0.1, 0.5)
_MARGIN_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What is known of one record; a record with neither P nor S is noise."""

    name: str
    samples: int
    p_sample: float | None = None
    s_sample: float | None = None
    source: str = ""
    group: str = ""
    channel: str = ""

    @classmethod
    def of(cls, trace: Trace) -> Reference:
        """The reference that a trace carries."""
        return cls(
            name=trace.name,
            samples=trace.samples,
            p_sample=trace.p_sample,
            s_sample=trace.s_sample,
            source=trace.source,
            group=trace.group,
            channel=trace.channel,
        )

    @property
    def is_noise(self) -> bool:
        """Whether nothing arrives in it."""
        return self.p_sample is None and self.s_sample is None

    @property
    def hours(self) -> float:
        """Length."""
        return self.samples / RATE_HZ / 3600

    def arrival(self, phase: str) -> float | None:
        """The labelled sample of ``phase``."""
        return self.p_sample if phase == "P" else self.s_sample

    def window(self) -> tuple[float, float]:
        """First and last sample between which an unmatched pick is false; noise records have none (ValueError)."""
        first = self.p_sample if self.p_sample is not None else self.s_sample
        if first is None:
            raise ValueError(f"{self.name} is noise: it has no window")
        last = self.s_sample if self.s_sample is not None else first + _MARGIN_S * RATE_HZ
        return first - _MARGIN_S * RATE_HZ, last + _MARGIN_S * RATE_HZ


@dataclass(frozen=True, kw_only=True)
class TracePick:
    """A pick of a record: ``sample`` counts from its first sample, ``probability`` is the one that thresholds cut.

    The rest is what only a pick of ours knows: the calibrated probability and uncertainty, and the samples (of the
    record) at which the probability crossed its threshold, and whose arrival decided the pick.
    """

    trace_name: str
    phase: str
    sample: float
    probability: float
    stated_probability: float | None = None
    uncertainty_samples: float | None = None
    crossed_sample: int | None = None
    decided_sample: int | None = None


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts at one tolerance and the ratios of them; a ratio of nothing is NaN, and F1 is then 0."""

    labels: int
    hits: int
    false_picks: int

    @property
    def recall(self) -> float:
        """Share of labels that were hit."""
        return self.hits / self.labels if self.labels else float("nan")

    @property
    def precision(self) -> float:
        """Share of counted picks that hit."""
        return self.hits / (self.hits + self.false_picks) if self.hits + self.false_picks else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision."""
        recall, precision = self.recall, self.precision
        return 2 * recall * precision / (recall + precision) if recall + precision > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class PhaseScore:
    """One phase: a tally by tolerance in seconds, residuals in seconds, picks and hours of noise records."""

    tallies: Mapping[float, Tally]
    residuals_s: NDArray[np.float64]
    noise_picks: int
    noise_hours: float

    @property
    def false_per_noise_hour(self) -> float:
        """Picks on noise records an hour; NaN without noise records."""
        return self.noise_picks / self.noise_hours if self.noise_hours else float("nan")


def nearest(picks: NDArray[np.float64], sample: float, tolerance: float) -> int | None:
    """Index of the pick nearest to ``sample`` if it lies within ``tolerance`` samples."""
    if not len(picks):
        return None
    index = int(np.argmin(np.abs(picks - sample)))
    return index if abs(picks[index] - sample) <= tolerance else None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the picks of one phase in one record at one tolerance.

    ``hit`` is the index of the pick that serves the label, ``false`` (picks,) marks the false ones; what is neither is
    not counted.
    """

    hit: int | None
    false: NDArray[np.bool_]


def outcome(reference: Reference, phase: str, found: NDArray[np.float64], tolerance_s: float) -> Outcome:
    """Judge the picks at the samples ``found`` (ascending); in an event without a label of the phase none counts."""
    if reference.is_noise:
        return Outcome(hit=None, false=np.ones(len(found), dtype=np.bool_))
    arrival = reference.arrival(phase)
    if arrival is None:
        return Outcome(hit=None, false=np.zeros(len(found), dtype=np.bool_))
    first, last = reference.window()
    false = (found >= first) & (found <= last)
    hit = nearest(found, arrival, tolerance_s * RATE_HZ)
    if hit is not None:
        false[hit] = False
    return Outcome(hit=hit, false=false)


def score(
    references: Sequence[Reference], picks: Iterable[TracePick], thresholds: Mapping[str, float] | None = None
) -> dict[str, PhaseScore]:
    """Score by phase of the picks at or above ``thresholds`` (by phase; none by default)."""
    by_record: dict[tuple[str, str], list[float]] = defaultdict(list)
    for pick in picks:
        if pick.probability >= (thresholds or {}).get(pick.phase, 0.0):
            by_record[pick.trace_name, pick.phase].append(pick.sample)
    samples = {key: np.sort(np.array(found, dtype=np.float64)) for key, found in by_record.items()}
    return {phase: _phase_score(references, phase, samples) for phase in PHASES}


def _phase_score(
    references: Sequence[Reference], phase: str, samples: Mapping[tuple[str, str], NDArray[np.float64]]
) -> PhaseScore:
    nothing = np.zeros(0)
    labelled = [(reference, arrival) for reference in references if (arrival := reference.arrival(phase)) is not None]
    tallies: dict[float, Tally] = {}
    residuals: list[float] = []
    for tolerance_s in TOLERANCES_S:
        residuals, false_picks = [], 0
        for reference, arrival in labelled:
            found = samples.get((reference.name, phase), nothing)
            judged = outcome(reference, phase, found, tolerance_s)
            if judged.hit is not None:
                residuals.append((found[judged.hit] - arrival) / RATE_HZ)
            false_picks += int(judged.false.sum())
        tallies[tolerance_s] = Tally(labels=len(labelled), hits=len(residuals), false_picks=false_picks)
    noise = [reference for reference in references if reference.is_noise]
    return PhaseScore(
        tallies=tallies,
        residuals_s=np.array(residuals, dtype=np.float64),
        noise_picks=sum(len(samples.get((reference.name, phase), nothing)) for reference in noise),
        noise_hours=sum(reference.hours for reference in noise),
    )


def as_dict(scores: Mapping[str, PhaseScore]) -> dict[str, Any]:
    """Rounded figures by phase, for JSON."""
    out: dict[str, Any] = {}
    for phase, of_phase in scores.items():
        figures: dict[str, Any] = {
            f"{tolerance_s}s": {
                "n": tally.labels,
                "recall": round(tally.recall, 4),
                "precision": round(tally.precision, 4),
                "f1": round(tally.f1, 4),
            }
            for tolerance_s, tally in of_phase.tallies.items()
        }
        if len(residuals := of_phase.residuals_s):
            figures["residual_s"] = {
                "mean": round(float(residuals.mean()), 4),
                "mae": round(float(np.abs(residuals).mean()), 4),
                "std": round(float(residuals.std()), 4),
            }
        if of_phase.noise_hours > 0:
            figures["false_per_noise_hour"] = round(of_phase.false_per_noise_hour, 2)
        out[phase] = figures
    return out


def by_source(references: Sequence[Reference]) -> dict[str, list[Reference]]:
    """References by their source, sources in alphabetical order."""
    groups: dict[str, list[Reference]] = defaultdict(list)
    for reference in references:
        groups[reference.source].append(reference)
    return dict(sorted(groups.items()))
