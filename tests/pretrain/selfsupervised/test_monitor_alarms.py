"""Each alarm on a made case, once, again after it cleared, and after a long time; and what ends a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monitor_data import tiny_objective, two_sets, write_log

from pretrain.objectives.objective import Progress
from pretrain.selfsupervised.monitor.alarms import RULES, Alarms, AlarmSettings
from pretrain.selfsupervised.monitor.journal import read_journal
from pretrain.selfsupervised.monitor.validation import validate

HEALTHY = {
    "loss": 2.0,
    "valid_negatives": 99.0,
    "hard_perplexity": 400.0,
    "hard_perplexity_0": 200.0,
    "hard_perplexity_1": 200.0,
    "gradient_norm": 1.0,
    "feature_scale": 0.5,
    "skipped_steps": 0.0,
}
AT_ONCE = AlarmSettings(patience=1)
WRONG: dict[str, dict[str, float]] = {
    "collapse": {"hard_perplexity": 49.0},
    "dead_group": {"hard_perplexity_1": 1.0},
    "loss_zero": {"loss": 0.0},
    "few_negatives": {"valid_negatives": 9.0},
    "not_finite": {"loss": float("nan")},
    "gradient_spike": {"gradient_norm": 11.0},
    "skipped_steps": {"skipped_steps": 2.0},
    "feature_scale": {"feature_scale": 11.0},
    "feature_scale_small": {"feature_scale": 0.001},
}


def after_healthy(settings: AlarmSettings = AT_ONCE) -> Alarms:
    """Alarms that have seen twenty healthy entries, and said nothing."""
    alarms = Alarms(settings)
    assert [text for step in range(20) for text in alarms.check(step, HEALTHY)] == []
    return alarms


def test_every_rule_has_a_case() -> None:
    """None of them goes untested."""
    assert [rule.name for rule in RULES] == list(WRONG)


@pytest.mark.parametrize("name", WRONG)
def test_each_alarm_is_raised_once_with_its_mend(name: str) -> None:
    """By its own case alone; it is silent while it lasts, and speaks again after it cleared."""
    (mend,) = (rule.mend for rule in RULES if rule.name == name)
    alarms, wrong = after_healthy(), HEALTHY | WRONG[name]
    (text,) = alarms.check(20, wrong)
    assert text.endswith(mend[1:])
    lasting = wrong | {"skipped_steps": 2 * wrong["skipped_steps"]}
    assert alarms.check(21, lasting) == []
    assert alarms.check(22, HEALTHY | {"skipped_steps": lasting["skipped_steps"]}) == []
    again = wrong | {"skipped_steps": lasting["skipped_steps"] + wrong["skipped_steps"]}
    assert len(alarms.check(23, again)) == 1


@pytest.mark.parametrize(("name", "value"), [("hard_perplexity", 51.0), ("gradient_norm", 9.5), ("feature_scale", 9.0)])
def test_just_inside_is_healthy(name: str, value: float) -> None:
    """The bounds are where the settings say."""
    assert after_healthy().check(20, HEALTHY | {name: value}) == []


def test_a_lasting_alarm_is_repeated_after_a_while() -> None:
    """And no sooner."""
    alarms = Alarms(AlarmSettings(patience=1, repeat_steps=100))
    told = [step for step in range(0, 301, 10) if alarms.check(step, {"hard_perplexity": 2.0})]
    assert told == [0, 100, 200, 300]


def test_patience_passes_over_a_moment() -> None:
    """One entry with few codes is not a collapse; two in a row are."""
    alarms = after_healthy(AlarmSettings(patience=2))
    low = HEALTHY | WRONG["collapse"]
    assert [len(alarms.check(step, values)) for step, values in enumerate([low, HEALTHY, low, low])] == [0, 0, 0, 1]


def test_the_norm_is_judged_against_its_running_median() -> None:
    """Not before there is one; NaN does not enter it; a new level becomes the usual one."""
    settings = AlarmSettings(norm_window=10, norm_needs=5)
    alarms = Alarms(settings)
    assert [alarms.check(step, {"gradient_norm": 1.0 if step else 500.0}) for step in range(5)] == [[]] * 5
    assert "not finite" in alarms.check(5, {"gradient_norm": float("nan")})[0]
    (text,) = alarms.check(6, {"gradient_norm": 20.0})
    assert "20 times its running median 1" in text
    assert [len(alarms.check(7 + step, {"gradient_norm": 20.0})) for step in range(10)] == [0] * 10
    assert alarms.check(30, {"gradient_norm": 190.0}) == []


def test_norms_that_are_not_finite_do_not_hide_a_spike() -> None:
    """However many there are, the median is of the others."""
    alarms = after_healthy()
    for step in range(20, 60):
        alarms.check(step, HEALTHY | {"gradient_norm": float("inf")})
    (spike,) = alarms.check(60, HEALTHY | {"gradient_norm": 30.0})
    assert "30 times its running median 1" in spike


def test_one_spike_does_not_hide_in_the_mean_of_an_entry() -> None:
    """Where the largest norm since the last entry is logged, it is what is judged."""
    (text,) = after_healthy().check(20, HEALTHY | {"gradient_norm": 1.2, "gradient_norm_most": 30.0})
    assert "is 30, 30 times" in text


def test_objectives_without_a_codebook_raise_no_alarm_of_it() -> None:
    """A loss of zero without negatives is no contrastive loss."""
    assert Alarms(AT_ONCE).check(0, {"loss": 0.0, "explained": 0.9, "gradient_norm": 1.0}) == []


def test_the_perplexity_is_scaled_to_the_codebook() -> None:
    """The same share of a codebook of 64 codes in 4 groups: one code a group is collapse, all of them are not."""
    for found, raised in ((4.0, 1), (8.0, 1), (9.0, 0), (60.0, 0)):
        assert len(Alarms(AT_ONCE, groups=4, codes=64).check(0, {"hard_perplexity": found})) == raised, found


def test_a_one_code_quantizer_raises_collapse() -> None:
    """From the figures of a real validation: both groups dead, nothing to tell apart, no negatives."""
    objective = tiny_objective()
    healthy = {k.removeprefix("all/"): v for k, v in validate(objective, two_sets(), 0).items() if k.startswith("all/")}
    for group in range(2):
        objective.quantizer.logits.bias.data.view(2, 8)[group, 3] = 1e4
    sick = {k.removeprefix("all/"): v for k, v in validate(objective, two_sets(), 0).items() if k.startswith("all/")}
    codebook = dict.fromkeys(["collapsed", "group 0 (1.00), group 1 (1.00)", "nothing to tell apart", "0.00 valid"], 0)
    before, after = (Alarms(AlarmSettings(patience=1, least_negatives=1), 2, 16).check(0, v) for v in (healthy, sick))
    assert not any(word in text for text in before for word in codebook)
    assert all(any(word in text for text in after) for word in codebook)


def test_a_constant_input_raises_collapse() -> None:
    """Every frame the same: one code is used, however healthy the quantizer."""
    objective = tiny_objective().eval()
    batch = two_sets()[0].batch
    still = type(batch)(torch.zeros_like(batch.waveform), batch.valid)
    outcome = objective(still, Progress(), torch.Generator().manual_seed(0))
    found = {name: value.item() for name, value in objective.metrics(outcome.statistics).items()}
    assert any("collapsed" in text for text in Alarms(AT_ONCE, 2, 16).check(0, found))


def test_a_resumed_run_announces_nothing_twice(tmp_path: Path) -> None:
    """The log is enough to remember what was announced, skipped and usual."""
    entries = [{"step": n, "kind": "train", **HEALTHY, "skipped_steps": 3.0} for n in range(20)]
    entries += [{"step": 20, "kind": "train", **HEALTHY, **WRONG["collapse"], "skipped_steps": 3.0}] * 2
    alarms = Alarms()
    alarms.replay(read_journal(write_log(tmp_path, *entries, {"step": 20, "kind": "event", "text": "saved"})))
    wrong = HEALTHY | WRONG["collapse"] | {"skipped_steps": 3.0}
    assert alarms.check(21, wrong) == []
    (spike,) = alarms.check(22, wrong | {"gradient_norm": 50.0})
    assert "gradient norm" in spike


def test_what_ends_a_run() -> None:
    """Skipped steps in a row; a lasting collapse only where it is asked for."""
    alarms = Alarms(AlarmSettings(stop_skipped_in_a_row=5, stop_collapsed_entries=3))
    assert alarms.reason_to_stop(4) is None
    assert "5 steps in a row" in str(alarms.reason_to_stop(5))
    for step, reason in enumerate((None, None, "collapsed for 3 entries")):
        alarms.check(step, {"hard_perplexity": 2.0})
        assert (reason or "None") in str(alarms.reason_to_stop())
    patient = Alarms()
    for step in range(50):
        patient.check(step, {"hard_perplexity": 2.0})
    assert patient.reason_to_stop() is None
