"""Every figure of an evaluation as plain values, for JSON, for the tables and for a bundle's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pretrain.bootstrap import Interval, poisson
from pretrain.evaluate import Evaluation
from pretrain.intervals import Difference, paired, residual_figures, score_intervals
from pretrain.latency import latencies
from pretrain.metric import PHASES, PhaseScore, Reference, TracePick, as_dict, score
from pretrain.reliability import JudgedPick, coverage, judged, reliability
from pretrain.strata import StratumOf, members, strata

PEER_THRESHOLD = 0.3


def summarize(
    evaluation: Evaluation,
    bundle: str,
    peers: Mapping[str, Sequence[TracePick]] | None = None,
    peer_scores: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All figures; ``peers`` are the picks of others by name, ``peer_scores`` the scores of those without picks."""
    known = judged(evaluation.references, evaluation.published)
    figures: dict[str, Any] = {"bundle": bundle, "thresholds": dict(evaluation.thresholds)}
    figures["all"] = _with_intervals(evaluation, known)
    for key, of in strata(evaluation.references, evaluation.snr_db).items():
        figures[key] = _by_stratum(evaluation, of)
    figures["latency_s"] = {phase: _latency(evaluation, phase) for phase in PHASES}
    figures["calibration"] = {
        name: _calibration([one for one in known if name in ("all", one.pick.phase)]) for name in ("all", *PHASES)
    }
    if peers or peer_scores:
        figures["peers"] = {
            **{name: _scores_only(evaluation, scores) for name, scores in (peer_scores or {}).items()},
            **{name: _differences(evaluation, picks) for name, picks in (peers or {}).items()},
        }
    figures["sweep"] = {f"{threshold:.2f}": as_dict(scores) for threshold, scores in sorted(evaluation.sweep.items())}
    return plain(figures)  # type: ignore[no-any-return]


def plain(value: Any) -> Any:
    """As JSON has it: a ratio of nothing is NaN in Python and null there."""
    if isinstance(value, Interval):
        return [plain(round(end, 4)) for end in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _with_intervals(evaluation: Evaluation, known: Sequence[JudgedPick]) -> dict[str, Any]:
    scores = evaluation.scores()
    figures, within = as_dict(scores), score_intervals(evaluation.references, evaluation.picks, evaluation.thresholds)
    for phase, of_phase in figures.items():
        for tolerance_s, intervals in within[phase].items():
            of_phase[f"{tolerance_s}s"]["within"] = intervals
        hits = [one for one in known if one.right and one.pick.phase == phase]
        residuals = np.array([one.residual_s for one in hits], dtype=np.float64)
        for name, (value, interval) in residual_figures(residuals, [one.group for one in hits]).items():
            of_phase["residual_s"][name] = round(value, 4)
            of_phase["residual_s"][f"{name}_within"] = interval
        if scores[phase].noise_hours > 0:
            of_phase |= {"noise_picks": scores[phase].noise_picks, "noise_hours": round(scores[phase].noise_hours, 4)}
            of_phase["false_per_noise_hour_within"] = poisson(scores[phase].noise_picks, scores[phase].noise_hours)
    return figures


def _by_stratum(evaluation: Evaluation, of: StratumOf) -> dict[str, dict[str, Any]]:
    """Figures by name of the stratum and phase; noise records belong to their source alone."""
    out: dict[str, dict[str, Any]] = {}
    for phase in PHASES:
        groups = members(evaluation.references, of, phase)
        for reference in evaluation.references:
            # Of a record without any arrival only the source is known.
            if reference.is_noise and of(reference, phase) == reference.source:
                groups.setdefault(reference.source, []).append(reference)
        for name, references in groups.items():
            out.setdefault(name, {})[phase] = as_dict({phase: _score(evaluation, references, phase)})[phase]
            within = score_intervals(references, evaluation.picks, evaluation.thresholds)[phase]
            for tolerance_s, intervals in within.items():
                out[name][phase][f"{tolerance_s}s"]["f1_within"] = intervals["f1"]
    return out


def _score(evaluation: Evaluation, references: Sequence[Reference], phase: str) -> PhaseScore:
    return score(references, evaluation.picks, evaluation.thresholds)[phase]


def _latency(evaluation: Evaluation, phase: str) -> dict[str, Any]:
    lookahead = evaluation.lookahead_samples.get(phase, 0)
    found = latencies(evaluation.references, evaluation.published, phase, lookahead, evaluation.chunk_samples)
    out: dict[str, Any] = {"picks": len(found.first_s)}
    for name, share in (("median", 0.5), ("p95", 0.95)):
        first, confirmed, between = (round(value, 3) for value in found.quantile(share))
        out[name] = {"first": first, "confirmed": confirmed, "between": between}
    if found.first_s.size:
        steps = [round(float(value), 3) for value in np.quantile(found.first_s, np.linspace(0, 1, 21))]
        out["first_quantiles"] = steps
        out["confirmed_quantiles"] = [
            round(float(value), 3) for value in np.quantile(found.confirmed_s, np.linspace(0, 1, 21))
        ]
    return out


def _calibration(known: Sequence[JudgedPick]) -> dict[str, Any]:
    """Expected calibration error and coverage; empty without picks."""
    found, covered = reliability(known), coverage(known)
    out: dict[str, Any] = {}
    if found is not None:
        out |= {
            "picks": len(known),
            "expected_calibration_error": round(found.error, 4),
            "within": found.within,
            "by_chance": round(found.by_chance, 4),
            "bins": [[round(mean, 4), round(share, 4), size] for mean, share, size in found.bins],
        }
    if covered is not None:
        share, within, count = covered
        out["coverage"] = {"share": round(share, 4), "within": within, "picks": count}
    return out


def _differences(evaluation: Evaluation, picks: Sequence[TracePick]) -> dict[str, Any]:
    differences = paired(
        evaluation.references,
        (evaluation.picks, evaluation.thresholds),
        (picks, dict.fromkeys(PHASES, PEER_THRESHOLD)),
    )
    return {"paired": True} | {
        phase: {f"{tolerance_s}s": _difference(one) for tolerance_s, one in by_tolerance.items()}
        for phase, by_tolerance in differences.items()
    }


def _difference(one: Difference) -> dict[str, Any]:
    return {"f1": round(one.theirs, 4), "ours_less_theirs": round(one.value, 4), "within": one.within}


def _scores_only(evaluation: Evaluation, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Differences to a peer of whom only scores are known: the interval is that of our own F1, not a paired one."""
    within = score_intervals(evaluation.references, evaluation.picks, evaluation.thresholds)
    mine = evaluation.scores()
    out: dict[str, Any] = {"paired": False}
    for phase in PHASES:
        out[phase] = {}
        for tolerance_s, intervals in within[phase].items():
            theirs = float(scores["all"][phase][f"{tolerance_s}s"]["f1"])
            ours, (low, high) = mine[phase].tallies[tolerance_s].f1, intervals["f1"]
            out[phase][f"{tolerance_s}s"] = {
                "f1": theirs,
                "ours_less_theirs": round(ours - theirs, 4),
                "within": Interval(low - theirs, high - theirs),
            }
    return out
