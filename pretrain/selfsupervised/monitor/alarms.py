"""Alarms for a collapsed codebook, which otherwise reads as success (its loss is exactly zero), and for instability.

An alarm is announced once, with its mend. It is announced again only after it has cleared, or after ``repeat_steps``.
What ends a run is told apart from what is announced: see ``reason_to_stop``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from pydantic import BaseModel, ConfigDict, Field

from pretrain.selfsupervised.monitor.journal import TRAIN, Entry

FULL_CODES, FULL_GROUPS = 640, 2
"""The codebook that the perplexities of the tuning guide speak of."""


class AlarmSettings(BaseModel):
    """From where on something is wrong. Perplexities are those of 640 codes, and are scaled to the codebook in use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    least_perplexity: float = Field(default=50.0, ge=0, description="hard, of all groups together; target 320 to 512")
    least_group_perplexity: float = Field(default=2.0, ge=1, description="hard, of each group: below it, it is dead")
    least_negatives: float = Field(default=10.0, ge=0, description="valid negatives a frame")
    least_loss: float = Field(default=1e-6, ge=0, description="contrastive loss that is taken for exactly zero")
    norm_factor: float = Field(default=10.0, gt=1, description="gradient norm against its running median")
    norm_window: int = Field(default=100, ge=2, description="entries of the log that the running median is of")
    norm_needs: int = Field(default=10, ge=2, description="entries before the gradient norm is judged")
    most_feature_scale: float = Field(default=10.0, gt=0, description="root mean square of the tokens")
    least_feature_scale: float = Field(default=0.003, ge=0, description="below it layer norms have nothing to scale")
    patience: int = Field(default=2, ge=1, description="entries in a row with a collapsed codebook or few negatives")
    repeat_steps: int = Field(default=5000, ge=1, description="steps after which a lasting alarm is repeated")
    stop_skipped_in_a_row: int = Field(default=100, ge=1, description="skipped steps in a row that end the run")
    stop_collapsed_entries: int = Field(default=0, ge=0, description="entries in a row that end the run; 0 is never")


@dataclass(frozen=True)
class Seen:
    """What a rule judges by: the figures of one entry of the log, and what came before it."""

    values: Mapping[str, float]
    settings: AlarmSettings
    groups: int
    codes: int
    norm: float | None
    skipped: float

    def value(self, name: str) -> float | None:
        """A figure, or None where this objective has it not."""
        return self.values.get(name)

    def scaled(self, perplexity: float) -> float:
        """A perplexity of 640 codes in 2 groups, in the codebook in use: one code a group stays one code a group."""
        share = max(0.0, perplexity - FULL_GROUPS) / (FULL_CODES - FULL_GROUPS)
        return self.groups + share * (self.codes - self.groups)


Judge = Callable[[Seen], str | None]


@dataclass(frozen=True)
class Rule:
    """An alarm by ``name``: what ``judge`` finds wrong (None if nothing is), and the ``mend``."""

    name: str
    judge: Judge
    mend: str
    patient: bool = False


def _collapse(seen: Seen) -> str | None:
    found, least = seen.value("hard_perplexity"), seen.scaled(seen.settings.least_perplexity)
    if found is None or not found < least:
        return None
    return f"hard perplexity is {found:.1f} of {seen.codes} (below {least:.0f}), the codebook has collapsed"


def _dead_group(seen: Seen) -> str | None:
    least = seen.settings.least_group_perplexity
    each = {group: seen.value(f"hard_perplexity_{group}") for group in range(seen.groups)}
    dead = [f"group {group} ({found:.2f})" for group, found in each.items() if found is not None and found < least]
    return f"hard perplexity below {least:g}: {', '.join(dead)} of the codebook says nothing" if dead else None


def _nothing_to_tell(seen: Seen) -> str | None:
    loss, negatives = seen.value("loss"), seen.value("valid_negatives")
    if loss is None or negatives is None or not abs(loss) <= seen.settings.least_loss:
        return None
    return f"the contrastive loss is {loss:.2g}: there is nothing to tell apart, and nothing is learnt"


def _few_negatives(seen: Seen) -> str | None:
    found, least = seen.value("valid_negatives"), seen.settings.least_negatives
    if found is None or not found < least:
        return None
    why = "the others have the code of the positive, or are not there"
    return f"{found:.2f} valid negatives a frame (below {least:g}): {why}"


def _not_finite(seen: Seen) -> str | None:
    wrong = [name for name in ("loss", "gradient_norm") if not math.isfinite(seen.values.get(name, 0.0))]
    return f"{' and '.join(wrong)} not finite" if wrong else None


def _norm_spike(seen: Seen) -> str | None:
    found, usual = seen.value("gradient_norm_most"), seen.norm
    found = seen.value("gradient_norm") if found is None else found
    if found is None or usual is None or not usual * seen.settings.norm_factor < found < math.inf:
        return None
    return f"the gradient norm is {found:.3g}, {found / max(usual, 1e-30):.0f} times its running median {usual:.3g}"


def _skipped(seen: Seen) -> str | None:
    found = seen.value("skipped_steps")
    if found is None or not found > seen.skipped:
        return None
    return f"{found - seen.skipped:.0f} steps skipped since the last entry ({found:.0f} in all): gradient not finite"


def _runaway(seen: Seen) -> str | None:
    found, most = seen.value("feature_scale"), seen.settings.most_feature_scale
    if found is None or not found > most:
        return None
    return f"the feature scale is {found:.3g} (above {most:g}): the tokens are running away"


def _vanishing(seen: Seen) -> str | None:
    found, least = seen.value("feature_scale"), seen.settings.least_feature_scale
    if found is None or not found < least:
        return None
    return f"the feature scale is {found:.2g} (below {least:g}): the tokens are vanishing"


RULES = (
    Rule(
        "collapse",
        _collapse,
        "raise diversity_weight (0.1 to 0.5), lower quantizer_rate, draw codes anew with revive_every, or start the "
        "Gumbel temperature higher (quantizer.warm)",
        patient=True,
    ),
    Rule("dead_group", _dead_group, "draw codes anew with revive_every, and raise diversity_weight", patient=True),
    Rule("loss_zero", _nothing_to_tell, "look at valid_negatives and perplexity; see the alarm of the codebook"),
    Rule(
        "few_negatives",
        _few_negatives,
        "use more of the codebook (diversity_weight), longer windows, more negatives.count, or across_recordings",
        patient=True,
    ),
    Rule("not_finite", _not_finite, "lower the rate, raise the contrastive temperature (0.1 to 0.2), clip at 1.0"),
    Rule(
        "gradient_spike",
        _norm_spike,
        "harmless alone, as it is clipped; if it comes often, lower the rate, lengthen the warm-up, or raise the "
        "contrastive temperature (0.1 to 0.2)",
    ),
    Rule("skipped_steps", _skipped, "lower the rate, or look for absurd data; a few in a run do no harm"),
    Rule("feature_scale", _runaway, "raise penalty_weight, lower the rate or encoder_gradient"),
    Rule("feature_scale_small", _vanishing, "lower penalty_weight, or raise encoder_gradient"),
)


@dataclass
class _State:
    """Of one rule: entries in a row that it held, and the step at which it was last announced."""

    held: int = 0
    announced: int | None = None


class Alarms:
    """All rules with what they remember. ``groups`` and ``codes`` (of all groups together) are the codebook's."""

    def __init__(
        self, settings: AlarmSettings | None = None, groups: int = FULL_GROUPS, codes: int = FULL_CODES
    ) -> None:
        self.settings, self.groups, self.codes = settings or AlarmSettings(), groups, codes
        self._states = {rule.name: _State() for rule in RULES}
        self._norms: deque[float] = deque(maxlen=self.settings.norm_window)
        self._skipped = 0.0

    def check(self, step: int, values: Mapping[str, float]) -> list[str]:
        """What to announce about the figures of a step; an alarm that has been announced and lasts is silent."""
        seen, found = self._seen(values), []
        for rule in RULES:
            state, wrong = self._states[rule.name], rule.judge(seen)
            if wrong is None:
                state.held, state.announced = 0, None
                continue
            state.held += 1
            if state.held < (self.settings.patience if rule.patient else 1):
                continue
            if state.announced is None or step - state.announced >= self.settings.repeat_steps:
                state.announced = step
                found.append(f"{wrong}. {rule.mend[0].upper()}{rule.mend[1:]}")
        self._remember(values)
        return found

    def replay(self, entries: Iterable[Entry]) -> None:
        """Come to remember what the log of a run says, so that a resumed run announces nothing twice."""
        for entry in entries:
            if entry.get("kind") == TRAIN:
                self.check(entry["step"], entry)

    def reason_to_stop(self, skipped_in_a_row: int = 0) -> str | None:
        """Why the run should end now, after ``check``; None if it should not."""
        if skipped_in_a_row >= self.settings.stop_skipped_in_a_row:
            why = f"the gradient was not finite for {skipped_in_a_row} steps in a row"
            return f"{why}; lower the rate, or look for absurd data"
        held, most = self._states["collapse"].held, self.settings.stop_collapsed_entries
        if most and held >= most:
            return f"the codebook has been collapsed for {held} entries of the log; {RULES[0].mend}"
        return None

    def _seen(self, values: Mapping[str, float]) -> Seen:
        usual = median(self._norms) if len(self._norms) >= self.settings.norm_needs else None
        return Seen(values, self.settings, self.groups, self.codes, usual, self._skipped)

    def _remember(self, values: Mapping[str, float]) -> None:
        norm = values.get("gradient_norm", math.nan)
        if math.isfinite(norm):
            self._norms.append(norm)
        self._skipped = values.get("skipped_steps", self._skipped)
