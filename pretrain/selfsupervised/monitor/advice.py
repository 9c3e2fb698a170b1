"""What the tuning guide advises, as a table: what is judged by which numbers, how grave it is, and what to do.

A judge gives the numbers it judged by, or None where there is nothing to say. ``what`` and ``advice`` are templates of
these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pretrain.selfsupervised.monitor import judges
from pretrain.selfsupervised.monitor.curves import TARGET
from pretrain.selfsupervised.monitor.evidence import Evidence

Severity = Literal["problem", "warning", "hint"]
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

    name: str
    severity: Severity
    judge: Callable[[Evidence], Numbers | None]
    what: str
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """What a rule found in a run."""

    name: str
    severity: Severity
    what: str
    numbers: Numbers
    advice: tuple[str, ...]


CALMER = (
    "lower training.rate from {rate:g} to {lower_rate:g}, or raise training.warmup ({warmup:g}; the guide: 0.1 to 0.2)",
    "keep training.clip at 1.0 (is {clip:g})",
    "raise objective.temperature.start from {temperature:g} to {higher_temperature:g}: a low temperature sharpens",
    "use a larger training.batch (is {batch})",
)
MORE_CODES = (
    "raise objective.diversity_weight from {diversity_weight:g} to {more_diversity:g}",
    "lower objective.quantizer_rate from {quantizer_rate:g} to {lower_quantizer_rate:g}",
    "draw unused codes anew: objective.revive_every = 500 (is {revive_every}; 0 is never)",
    "start the Gumbel temperature higher or let it fall later (objective.quantizer.warm, until)",
)

RULES = (
    Rule(
        "collapse",
        "problem",
        judges.collapse,
        "The codebook has collapsed: hard perplexity {hard_perplexity:.0f} of {codes} (below {bound:.0f}), "
        "{dead_codes:.0f} dead codes.",
        MORE_CODES,
    ),
    Rule(
        "few_codes",
        "problem",
        judges.few_codes,
        "Few codes are used after {validations} validations: hard perplexity {hard_perplexity:.0f} of {codes} "
        "(below {bound:.0f}).",
        MORE_CODES,
    ),
    Rule(
        "dead_group",
        "problem",
        judges.dead_group,
        "Group {group} of the codebook is dead: hard perplexity {hard_perplexity:.2f}.",
        MORE_CODES[:3],
    ),
    Rule(
        "below_target",
        "warning",
        judges.below_target,
        "Hard perplexity {hard_perplexity:.0f} is below its target of {low:.0f} to {high:.0f}, and no longer rises "
        "({before:.0f} {ago} validations ago).",
        (
            "raise objective.diversity_weight from {diversity_weight:g} to {some_diversity:g}",
            "draw unused codes anew: objective.revive_every = 500 (is {revive_every})",
        ),
    ),
    Rule(
        "above_target",
        "hint",
        judges.above_target,
        "Hard perplexity {hard_perplexity:.0f} is above its target of {low:.0f} to {high:.0f}: codes are used almost "
        "alike, and may say little.",
        (
            "lower objective.diversity_weight from {diversity_weight:g} to {less_diversity:g}",
            "or ask for no more codes than wanted: objective.diversity_until = 0.65",
        ),
    ),
    Rule(
        "few_negatives",
        "problem",
        judges.few_negatives,
        "Of {asked} negatives a frame only {valid_negatives:.1f} are valid: the others have the code of the positive, "
        "or there is nothing to draw from.",
        (
            "use more of the codebook: objective.diversity_weight ({diversity_weight:g})",
            "draw from more frames: objective.negatives.kind = 'across_recordings', or longer data.window_samples",
        ),
    ),
    Rule(
        "not_learning",
        "problem",
        judges.not_learning,
        "The loss does not fall: {loss_before:.3f} half-way, {loss_now:.3f} now; {learnt:.0%} of what can be learnt.",
        (
            "raise objective.temperature.start from {temperature:g} to {higher_temperature:g}",
            "use fewer objective.negatives.count (is {negatives}; the guide: 50 to 1000, and 10 to 20 % of batch x "
            "frames): {batch_share:.2%} of batch x frames, {pool_share:.0%} of the frames that they are drawn from",
            "check objective.mask.share ({masked_share:.2f} of the frames are masked; the guide: 0.6 to 0.8) and "
            "objective.mask.length ({span}; the guide: 5 to 20)",
            "check the data: `pretrain codebook RUN` shows what the codes stand for",
        ),
    ),
    Rule(
        "plateau",
        "hint",
        judges.plateau,
        "The loss is at rest: {loss_before:.3f} half-way, {loss_now:.3f} now, at {learnt:.0%} of what can be learnt.",
        (
            "if the run is not at its end, lower objective.temperature.start from {temperature:g} to "
            "{lower_temperature:g}, or make the task harder: more negatives ({negatives}; up to 1000), or hard ones",
            "if it is, it is done: fine-tune",
        ),
    ),
    Rule(
        "diverging",
        "problem",
        judges.diverging,
        "The loss explodes: {loss_now:.3g} now, {loss_best:.3g} at best; {not_finite} entries are not finite.",
        CALMER,
    ),
    Rule(
        "spikes",
        "warning",
        judges.spikes,
        "The gradient norm spikes: in {spikes} of {entries} entries of the log it is {factor:.0f} times its running "
        "median or more (median {norm:.3g}, largest {largest:.3g}).",
        CALMER,
    ),
    Rule(
        "skipped",
        "warning",
        judges.skipped,
        "{skipped:.0f} of {steps} steps were skipped ({share:.2%}): their gradient was not finite.",
        (*CALMER, "look for absurd data: samples of 1e20, constant or broken records"),
    ),
    Rule(
        "feature_scale",
        "warning",
        judges.feature_scale,
        "The feature scale is {feature_scale:.3g}; between {least:g} and {most:g} is healthy.",
        (
            "too large: raise objective.penalty_weight ({penalty_weight:g}), lower training.rate ({rate:g})",
            "too small: lower objective.penalty_weight, raise objective.encoder_gradient ({encoder_gradient:g})",
        ),
    ),
    Rule(
        "overfitting",
        "warning",
        judges.overfitting,
        "Training goes on without validation: validation loss {held_out:.3f} (best {best:.3f}), training loss "
        "{training:.3f}.",
        (
            "mask more: objective.mask.share from {masked_share:.2f} towards 0.8",
            "raise model.dropout ({model_dropout:g}) and objective.dropout ({dropout:g}) to 0.2",
            "raise training.weight_decay from {weight_decay:g} to {more_decay:g}",
            "or train on more data, and shorter",
        ),
    ),
    Rule(
        "uneven_data",
        "hint",
        judges.uneven_data,
        "Data set {data_set} is not learnt like the others: {score} {value:.3f}, over all {overall:.3f}.",
        ("look at its records with `pretrain codebook`; give it a larger share in [data], or leave it out",),
    ),
    Rule(
        "poor_transfer",
        "problem",
        judges.poor_transfer,
        "Fine-tuning gains little: F1 {tune_f1:.3f} from these weights, {scratch} without them.",
        (
            "use fewer objective.negatives.count: {negatives} to {fewer_negatives}",
            "pretrain longer (training.steps is {steps_asked})",
            "fine-tune with a lower rate (a tenth), and with the backbone frozen for the first epochs",
            "try another objective.projection ({projection}): 128 or 512",
        ),
    ),
    Rule(
        "waiting",
        "warning",
        judges.waiting,
        "{data_wait_share:.0%} of the time goes by waiting for data (it should be under 5 %).",
        ("keep the data on the device (data.on_device), raise data.workers, or pack it with `pretrain pack`",),
    ),
    Rule(
        "out_of_range",
        "hint",
        judges.out_of_range,
        "Outside the ranges of the guide: {listed}.",
        ("keep it if it was meant so",),
    ),
    Rule(
        "early",
        "hint",
        judges.early,
        "Only {validations} validations so far; the guide judges a run after five.",
        ("run on, and ask again",),
    ),
)
_ORDER = ("problem", "warning", "hint")


def findings(evidence: Evidence) -> list[Finding]:
    """Every rule that holds, the gravest first."""
    found = []
    for rule in RULES:
        numbers = rule.judge(evidence)
        if numbers is not None:
            filled = tuple(line.format(**numbers) for line in rule.advice)
            found.append(Finding(rule.name, rule.severity, rule.what.format(**numbers), numbers, filled))
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


@dataclass(frozen=True)
class Figure:
    """One line of the summary: a figure now, in training and validation, and what is healthy (None where unjudged)."""

    name: str
    training: float | None
    validation: float | None
    healthy: str
    good: bool | None


def figures(evidence: Evidence) -> list[Figure]:
    """The figures that a run is judged by, those it has."""
    low, high = (TARGET[end] * evidence.codes for end in (0, 1))
    negatives = evidence.now("valid_negatives")
    chance = 1 / (1 + negatives) if negatives is not None else math.nan
    asked = float(evidence.setting("objective.negatives.count"))
    least_scale, most_scale = judges.BOUNDS.least_feature_scale, judges.BOUNDS.most_feature_scale
    table: tuple[tuple[str, str, float, float], ...] = (
        ("loss", "falls", -math.inf, math.inf),
        ("accuracy", f"above 10 x chance ({10 * chance:.3f})", 10 * chance, math.inf),
        ("explained", "above 0.1", 0.1, math.inf),
        ("mutual_information", "above 0.1 log(K + 1)", 0.1 * math.log1p(negatives or 0.0), math.inf),
        ("hard_perplexity", f"{low:.0f} to {high:.0f} of {evidence.codes}", low, high),
        ("soft_perplexity", "not comparable with hard", -math.inf, math.inf),
        ("dead_codes", f"below half of {evidence.codes}", -math.inf, evidence.codes / 2),
        ("valid_negatives", f"above {asked / 2:.0f} of {asked:.0f}", asked / 2, math.inf),
        ("feature_scale", f"{least_scale:g} to {most_scale:g}", least_scale, most_scale),
        ("gradient_norm", "steady", -math.inf, math.inf),
        ("data_wait_share", "below 0.05", -math.inf, 0.05),
    )
    found = []
    for name, healthy, least, most in table:
        value = evidence.now(name)
        if value is not None:
            judged = math.isfinite(least) or math.isfinite(most)
            good = least <= value <= most if judged else None
            found.append(Figure(name, evidence.training(name), evidence.validation(name), healthy, good))
    return found
