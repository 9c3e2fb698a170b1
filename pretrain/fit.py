"""Fitting what a bundle states of its picks: temperature and bias of the probability, factor and floor of the width.

All fits are searches over grids: there are some sixty picks a phase, and a search neither diverges where all of them
are right nor hangs on where it began. N picks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from picker.calibration import PhaseCalibration
from picker.decision import LEAST_UNCERTAINTY
from pretrain.data.trace import RATE_HZ
from pretrain.reliability import COVERAGE_AIM, JudgedPick

LEAST_PICKS = 10
"""With fewer picks to go by, nothing is fitted."""
PARTS = 5
FORMS = ("as it is", "temperature", "temperature and bias")
_SLOPES = np.geomspace(0.1, 5.0, 80)
_BIASES = np.linspace(-4.0, 4.0, 81)
_ANGLES = np.linspace(0.0, np.pi / 2, 31)


@dataclass(frozen=True, kw_only=True)
class ProbabilityFit:
    """The chosen form, and the mean log-likelihood a held-out pick of each form (by name)."""

    temperature: float
    bias: float
    held_out: dict[str, float]


def logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """As in ``picker.calibration``."""
    inside = np.clip(probability, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(inside / (1 - inside)))


def fit_probability(raw: NDArray[np.float64], right: NDArray[np.bool_], groups: Sequence[str]) -> ProbabilityFit:
    """A temperature, with a bias where picks of held-out events are likelier with it than without.

    A fifth of the events is held out at a time. How likely they are as they are is told beside.
    """
    part_of = {name: number % PARTS for number, name in enumerate(sorted(set(groups)))}
    part = np.array([part_of[group] for group in groups])
    held_out: dict[str, float] = {}
    for form in FORMS:
        likelihoods = np.full(len(raw), np.nan)
        for number in range(PARTS):
            out = part == number
            if out.any() and not out.all():
                slope, bias = _searched(raw[~out], right[~out], form)
                likelihoods[out] = _log_likelihood(slope * logit(raw[out]) + bias, right[out].astype(np.float64))
        held_out[form] = float(np.nanmean(likelihoods))
    slope, bias = _searched(raw, right, max(FORMS[1:], key=lambda form: held_out[form]))
    return ProbabilityFit(temperature=1 / slope, bias=bias, held_out=held_out)


def _log_likelihood(odds: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-(target * np.logaddexp(0, -odds) + (1 - target) * np.logaddexp(0, odds)))


def _searched(raw: NDArray[np.float64], right: NDArray[np.bool_], form: str) -> tuple[float, float]:
    """Slope and bias of the logit of highest likelihood, with Platt's targets: one pick more on either side."""
    if form == FORMS[0]:
        return 1.0, 0.0
    good = int(right.sum())
    target = np.where(right, (good + 1) / (good + 2), 1 / (len(right) - good + 2))
    x, best, found = logit(raw), -np.inf, (1.0, 0.0)
    for bias in (0.0,) if form == FORMS[1] else _BIASES:
        values = _log_likelihood(_SLOPES[:, None] * x + bias, target).sum(axis=1)
        if values.max() > best:
            best, found = float(values.max()), (float(_SLOPES[values.argmax()]), float(bias))
    return found


def fit_width(
    widths: NDArray[np.float64], residuals: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Factor and floor (samples) so that 68 % of ``residuals`` (samples) lie within sqrt((factor w)^2 + floor^2).

    How much the width says beside the floor is chosen by likelihood under Laplace's law, whose tails a few wild
    residuals do not stretch; the scale is then the quantile itself. Both count each pick by its weight.
    """
    typical, distances, share = max(float(np.median(widths)), 1e-6), np.abs(residuals), weights / weights.sum()
    best, found = -np.inf, (1.0, 0.0)
    for angle in _ANGLES:
        shape = np.hypot(np.cos(angle) * widths, np.sin(angle) * typical)
        if shape.min() <= 0:
            continue
        ratio = distances / shape
        scale = float((share * ratio).sum()) or 1e-9
        likelihood = float(-(share * (np.log(scale * shape) + ratio / scale)).sum())
        if likelihood > best:
            wide = weighted_quantile(ratio, share, COVERAGE_AIM)
            best, found = likelihood, (wide * float(np.cos(angle)), wide * float(np.sin(angle)) * typical)
    return found


def weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """The value below which ``share`` of the weight lies, each value standing in the middle of its own."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp(share * weights.sum(), reached, values[order]))


def by_source(sources: Sequence[str]) -> NDArray[np.float64]:
    """Weights that let each source count alike, however many picks it has."""
    _, index, counts = np.unique(np.asarray(sources), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[index], dtype=np.float64)


def fit_phase(known: Sequence[JudgedPick], timed: Sequence[JudgedPick]) -> tuple[PhaseCalibration, dict[str, object]]:
    """The calibration of one phase, and what it rests on.

    ``known`` are the picks, right and false, of records whose labels can be trusted. ``timed`` may have more: residuals
    of labels of any quality, since readings of other networks differ too. Each source counts alike among them: what is
    stated is to hold at a network that is none of these.
    """
    right = [one for one in timed if one.residual_s is not None and one.pick.uncertainty_samples is not None]
    good = sum(one.right for one in known)
    said: dict[str, object] = {"picks": len(known), "right": good, "timed": len(right)}
    if min(len(known), len(right)) < LEAST_PICKS:
        return PhaseCalibration(), {**said, "fitted": False}
    raw = np.array([one.pick.probability for one in known])
    fit = fit_probability(raw, np.array([one.right for one in known]), [one.group for one in known])
    factor, floor = fit_width(
        np.array([one.pick.uncertainty_samples for one in right], dtype=np.float64),
        np.array([(one.residual_s or 0.0) * RATE_HZ for one in right]),
        by_source([one.source for one in right]),
    )
    calibration = PhaseCalibration(
        temperature=round(fit.temperature, 4),
        bias=round(fit.bias, 4),
        width_factor=round(factor, 4),
        floor_samples=round(max(floor, LEAST_UNCERTAINTY), 4),
    )
    likelihoods = {form: round(value, 4) for form, value in fit.held_out.items()}
    return calibration, {**said, "fitted": True, "held_out_log_likelihood": likelihoods}
