"""The judges of ``advice.py``: from the evidence of a run, the numbers of a finding, or None where it does not hold.

Perplexities are those of the tuning guide, of 640 codes, and are scaled to the codebook of the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from pretrain.selfsupervised.monitor.alarms import AlarmSettings
from pretrain.selfsupervised.monitor.curves import TARGET
from pretrain.selfsupervised.monitor.evidence import Evidence
from pretrain.selfsupervised.monitor.journal import TRAIN, VALIDATION

Numbers = dict[str, Any]
BOUNDS = AlarmSettings()
FEW_CODES = 100.0
EPOCHS = 5
"""Validations after which the guide judges."""
FLAT = 0.01
"""Relative fall of the loss over the second half of a run, below which it is at rest."""
LEARNT = 0.1
RISE = 1.05
EXPLODED = 1.5
UNEVEN = 0.5
"""A data set whose score is below this share of that over all stands out."""
GAIN = 0.005
"""F1 that fine-tuning must gain over training from scratch."""
POOR_F1 = 0.5
"""F1 that is poor, where none from scratch is known."""


def _codebook(run: Evidence) -> Numbers:
    """Settings of the codebook and what to change them to."""
    weight, rate = float(run.setting("objective.diversity_weight")), float(run.setting("objective.quantizer_rate"))
    return {
        "codes": run.codes,
        "diversity_weight": weight,
        "some_diversity": min(1.0, 2 * weight) if weight > 0 else 0.1,
        "more_diversity": min(1.0, 5 * weight) if weight > 0 else 0.1,
        "less_diversity": max(0.01, weight / 2),
        "quantizer_rate": rate,
        "lower_quantizer_rate": rate / 2,
        "revive_every": run.setting("objective.revive_every"),
        "low": TARGET[0] * run.codes,
        "high": TARGET[1] * run.codes,
        "validations": run.validations,
    }


def _calming(run: Evidence) -> Numbers:
    """Settings that make training calmer and what to change them to."""
    rate, temperature = float(run.setting("training.rate")), float(run.setting("objective.temperature.start"))
    return {
        "rate": rate,
        "lower_rate": rate / 2,
        "warmup": run.setting("training.warmup"),
        "clip": run.setting("training.clip"),
        "batch": run.setting("training.batch"),
        "temperature": temperature,
        "higher_temperature": 2 * temperature,
        "lower_temperature": temperature / 2,
    }


def _task(run: Evidence) -> Numbers:
    """How hard the task is: negatives, where they come from, and what is masked."""
    count, kind = int(run.setting("objective.negatives.count")), run.setting("objective.negatives.kind")
    batch = int(run.setting("training.batch")) // int(run.setting("training.accumulate"))
    own = run.masked_share * run.frames
    pool = own if kind in ("same_recording", "hard") else min(own * batch, int(run.setting("objective.negatives.pool")))
    return {
        "negatives": count,
        "fewer_negatives": max(10, count // 2),
        "pool_share": count / max(pool, 1.0),
        "batch_share": count / max(batch * run.frames, 1),
        "masked_share": run.masked_share,
        "span": run.setting("objective.mask.length"),
    }


def collapse(run: Evidence) -> Numbers | None:
    """Perplexity below 50, however early."""
    found, bound = run.now("hard_perplexity"), run.scaled(BOUNDS.least_perplexity)
    if found is None or found >= bound:
        return None
    return {"hard_perplexity": found, "dead_codes": run.now("dead_codes") or 0.0, "bound": bound} | _codebook(run)


def few_codes(run: Evidence) -> Numbers | None:
    """Perplexity from 50 to 100 after five validations."""
    found, bound = run.now("hard_perplexity"), run.scaled(FEW_CODES)
    if found is None or run.validations < EPOCHS or not run.scaled(BOUNDS.least_perplexity) <= found < bound:
        return None
    return {"hard_perplexity": found, "bound": bound} | _codebook(run)


def dead_group(run: Evidence) -> Numbers | None:
    """A group of which one code is used."""
    for group in range(run.groups):
        found = run.now(f"hard_perplexity_{group}")
        if found is not None and found < BOUNDS.least_group_perplexity:
            return {"group": group, "hard_perplexity": found} | _codebook(run)
    return None


def below_target(run: Evidence) -> Numbers | None:
    """Perplexity of 100 to 320 that has stopped rising."""
    found = run.history(VALIDATION, "all/hard_perplexity")
    if len(found) < EPOCHS or not run.scaled(FEW_CODES) <= found[-1] < TARGET[0] * run.codes:
        return None
    before = found[-EPOCHS]
    if found[-1] > RISE * before:
        return None
    return {"hard_perplexity": found[-1], "before": before, "ago": EPOCHS - 1} | _codebook(run)


def above_target(run: Evidence) -> Numbers | None:
    """Perplexity above 512 after five validations."""
    found = run.now("hard_perplexity")
    if found is None or run.validations < EPOCHS or found <= TARGET[1] * run.codes:
        return None
    return {"hard_perplexity": found} | _codebook(run)


def few_negatives(run: Evidence) -> Numbers | None:
    """Fewer than half of the negatives asked for are valid."""
    found, asked = run.now("valid_negatives"), int(run.setting("objective.negatives.count"))
    if found is None or run.setting("objective.name") != "contrastive" or found >= asked / 2:
        return None
    return {"valid_negatives": found, "asked": asked} | _codebook(run)


def _at_rest(run: Evidence) -> Numbers | None:
    """The loss half-way and now, where it has not fallen in between."""
    curve = [value for value in run.loss_curve() if math.isfinite(value)]
    width = max(1, len(curve) // 10)
    if len(curve) < 6 or run.learnt is None:
        return None
    middle = len(curve) // 2
    before, now = median(curve[middle - width : middle + width]), median(curve[-2 * width :])
    if before - now > FLAT * abs(before):
        return None
    return {"loss_before": before, "loss_now": now, "learnt": run.learnt} | _calming(run) | _task(run)


def not_learning(run: Evidence) -> Numbers | None:
    """At rest near chance."""
    found = _at_rest(run)
    if found is None or found["learnt"] >= LEARNT or found["loss_now"] > EXPLODED * found["loss_before"]:
        return None
    return found


def plateau(run: Evidence) -> Numbers | None:
    """At rest, with something learnt, and not risen."""
    found = _at_rest(run)
    if found is None or found["learnt"] < LEARNT or found["loss_now"] > RISE * found["loss_before"]:
        return None
    return found


def diverging(run: Evidence) -> Numbers | None:
    """The training loss is half as large again as it has been and less is learnt, or it is not finite."""
    losses = [float(entry["loss"]) for entry in run.entries if entry.get("kind") == TRAIN and "loss" in entry]
    bad, curve = sum(not math.isfinite(loss) for loss in losses), run.history(TRAIN, "loss")
    now = run.training("loss")
    if now is None:
        return {"loss_now": math.nan, "loss_best": math.nan, "not_finite": bad} | _calming(run) if bad else None
    best = min(_medians(curve))
    # The loss of a codebook that comes into use rises too: there is more to tell apart, and more is told.
    information = _medians(run.history(TRAIN, "mutual_information"))
    told = bool(information) and information[-1] >= 0.8 * max(information)
    if not bad and (told or now <= EXPLODED * best + 1e-9):
        return None
    return {"loss_now": now, "loss_best": best, "not_finite": bad} | _calming(run)


def _medians(values: Sequence[float], width: int = 5) -> list[float]:
    return [median(values[max(0, end - width) : end]) for end in range(1, len(values) + 1)]


def spikes(run: Evidence) -> Numbers | None:
    """More than one in a hundred gradient norms, and two of them, far above the running median."""
    norms, most = run.history(TRAIN, "gradient_norm"), run.history(TRAIN, "gradient_norm_most")
    needs = BOUNDS.norm_needs
    if len(most) != len(norms):
        most = norms
    count = sum(
        most[at] > BOUNDS.norm_factor * median(norms[max(0, at - BOUNDS.norm_window) : at])
        for at in range(needs, len(norms))
    )
    if count < max(2, len(norms) / 100):
        return None
    numbers = {"spikes": count, "entries": len(norms), "factor": BOUNDS.norm_factor, "largest": max(most)}
    return numbers | {"norm": median(norms)} | _calming(run)


def skipped(run: Evidence) -> Numbers | None:
    """Any step that was skipped."""
    found = max(run.history(TRAIN, "skipped_steps"), default=0.0)
    if not found:
        return None
    return {"skipped": found, "steps": run.steps, "share": found / max(run.steps, 1)} | _calming(run)


def feature_scale(run: Evidence) -> Numbers | None:
    """Tokens that run away or vanish."""
    found, least, most = run.now("feature_scale"), BOUNDS.least_feature_scale, BOUNDS.most_feature_scale
    if found is None or least <= found <= most:
        return None
    settings = {name: run.setting(f"objective.{name}") for name in ("penalty_weight", "encoder_gradient")}
    return {"feature_scale": found, "least": least, "most": most, "rate": run.setting("training.rate"), **settings}


def overfitting(run: Evidence) -> Numbers | None:
    """The validation loss has risen from its best and its accuracy fallen, while the training loss has fallen since."""
    validations = [entry for entry in run.entries if math.isfinite(entry.get("all/loss", math.nan))]
    if len(validations) < 3:
        return None
    least, last = min(validations, key=lambda entry: float(entry["all/loss"])), validations[-1]
    best_step, best, held_out = least["step"], float(least["all/loss"]), float(last["all/loss"])
    if last.get("all/accuracy", -1.0) > least.get("all/accuracy", -1.0):
        return None
    around = [
        float(entry["loss"])
        for entry in run.entries
        if entry.get("kind") == TRAIN and entry["step"] <= best_step and math.isfinite(entry.get("loss", math.nan))
    ]
    now = run.training("loss")
    if held_out <= RISE * best or now is None or not around or now >= median(around[-15:]):
        return None
    decay = float(run.setting("training.weight_decay"))
    return {
        "held_out": held_out,
        "best": best,
        "training": now,
        "masked_share": run.masked_share,
        "model_dropout": run.setting("model.dropout"),
        "dropout": run.setting("objective.dropout"),
        "weight_decay": decay,
        "more_decay": 5 * decay if decay > 0 else 0.01,
    }


def uneven_data(run: Evidence) -> Numbers | None:
    """The data set of the lowest score, where it is less than half of that over all."""
    score = "accuracy" if run.validation("accuracy") is not None else "explained"
    overall = run.validation(score)
    scores = {name: value for name in run.data_sets if (value := run.validation(score, name)) is not None}
    if not scores or overall is None:
        return None
    worst = min(scores, key=lambda name: scores[name])
    if scores[worst] >= UNEVEN * overall:
        return None
    return {"data_set": worst, "score": score, "value": scores[worst], "overall": overall}


def poor_transfer(run: Evidence) -> Numbers | None:
    """F1 after fine-tuning is hardly better than from scratch, or poor."""
    if run.tune_f1 is None:
        return None
    bound = POOR_F1 if run.scratch_f1 is None else run.scratch_f1 + GAIN
    if run.tune_f1 >= bound:
        return None
    scratch = "unknown" if run.scratch_f1 is None else f"{run.scratch_f1:.3f}"
    settings = {"steps_asked": run.setting("training.steps"), "projection": run.setting("objective.projection")}
    return {"tune_f1": run.tune_f1, "scratch": scratch} | settings | _task(run)


def waiting(run: Evidence) -> Numbers | None:
    """More than 5 % of the time is spent waiting for data."""
    found = run.training("data_wait_share")
    return None if found is None or found <= 0.05 else {"data_wait_share": found}


def out_of_range(run: Evidence) -> Numbers | None:
    """Settings outside the ranges of the guide."""
    if run.setting("objective.name") != "contrastive":
        return None
    ranges = (
        ("objective.temperature.start", float(run.setting("objective.temperature.start")), 0.05, 0.5),
        ("objective.negatives.count", float(run.setting("objective.negatives.count")), 50, 1000),
        ("share of frames masked", run.masked_share, 0.6, 0.8),
        ("objective.mask.length", float(run.setting("objective.mask.length")), 5, 20),
        ("objective.diversity_weight", float(run.setting("objective.diversity_weight")), 0.01, 1.0),
        ("training.warmup", float(run.setting("training.warmup")), 0.1, 0.2),
        ("training.clip", float(run.setting("training.clip")), 0.0, 1.0),
    )
    outside = [
        f"{name} {value:g} ({least:g} to {most:g})" for name, value, least, most in ranges if not least <= value <= most
    ]
    return {"listed": ", ".join(outside)} if outside else None


def early(run: Evidence) -> Numbers | None:
    """Fewer than five validations."""
    return {"validations": run.validations} if run.validations < EPOCHS else None
