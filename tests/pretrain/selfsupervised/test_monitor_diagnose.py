"""Advice on made logs: each row of the table by its own case, and none on a healthy run."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from monitor_data import write_log

from picker.errors import ConfigError
from pretrain.selfsupervised.monitor.advice import RULES, findings
from pretrain.selfsupervised.monitor.diagnose import add_arguments, run
from pretrain.selfsupervised.monitor.evidence import DEFAULTS, Evidence, read_evidence

STEPS = 100
Entry = dict[str, Any]


def falling(at: int, start: float = 4.6, end: float = 2.0) -> float:
    """A loss that falls to the last step."""
    return start + (end - start) * at / STEPS


def train_entry(at: int) -> Entry:
    """Training going well."""
    return {
        "step": 50 * at,
        "seconds": 10.0 * at,
        "kind": "train",
        "loss": falling(at),
        "accuracy": 0.01 + 0.5 * at / STEPS,
        "mutual_information": 4.6 - falling(at),
        "valid_negatives": 97.0,
        "hard_perplexity": 380.0,
        "hard_perplexity_0": 190.0,
        "hard_perplexity_1": 190.0,
        "soft_perplexity": 450.0,
        "dead_codes": 60.0,
        "feature_scale": 0.4,
        "gradient_norm": 1.0 + 0.1 * math.sin(at),
        "gradient_norm_most": 2.0,
        "skipped_steps": 0.0,
        "rate/backbone": 1e-3,
        "windows_per_s": 1000.0,
        "data_wait_share": 0.01,
    }


def validation_entry(at: int) -> Entry:
    """Validation of two data sets going well."""
    values = {
        name: value
        for name, value in train_entry(at).items()
        if name not in ("step", "seconds", "kind", "rate/backbone")
    }
    found = {"step": 50 * at, "seconds": 10.0 * at, "kind": "validation"}
    return found | {f"{name}/{key}": value for name in ("all", "north", "south") for key, value in values.items()}


def made_log(every: int = 10, last: int = STEPS, **changes: Any) -> list[Entry]:
    """A healthy log, but for ``changes``: numbers, or functions of the entry's number (0 to 100)."""
    entries = []
    for at in range(last + 1):
        changed = {key: value(at) if callable(value) else value for key, value in changes.items()}
        entries.append(train_entry(at) | {k: v for k, v in changed.items() if "/" not in k})
        if at and at % every == 0:
            everywhere = {
                f"{name}/{k}": v for k, v in changed.items() if "/" not in k for name in ("all", "north", "south")
            }
            entries.append(validation_entry(at) | everywhere | {k: v for k, v in changed.items() if "/" in k})
    return entries


def chance(at: int) -> float:
    """A loss that stays where it began, with a little noise."""
    return 4.55 + 0.005 * math.sin(3 * at)


def overfit(at: int) -> float:
    """A validation loss that rises again."""
    return 3.0 + abs(at - 50) / 50


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "collapse": ({"hard_perplexity": 12.0, "dead_codes": 600.0}, {}, ["12 of 640", "600 dead", "from 0.1 to 0.5"]),
    "few_codes": ({"hard_perplexity": 90.0}, {}, ["90 of 640", "below 100", "from 0.1 to 0.5", "from 0.5 to 0.25"]),
    "dead_group": ({"hard_perplexity_1": 1.0}, {}, ["Group 1", "revive_every"]),
    "below_target": ({"hard_perplexity": 200.0}, {}, ["200", "320 to 512", "from 0.1 to 0.2"]),
    "above_target": ({"hard_perplexity": 600.0}, {}, ["600", "from 0.1 to 0.05"]),
    "few_negatives": ({"valid_negatives": 20.0}, {}, ["100 negatives", "20.0"]),
    "not_learning": (
        {"loss": chance, "mutual_information": 0.05},
        {},
        ["4.5", "from 0.1 to 0.2", "is 100", "15%", "0.15%", "0.65", "0.6 to 0.8", "10; the guide: 5 to 20"],
    ),
    "plateau": ({"loss": 2.0, "mutual_information": 2.6}, {}, ["at rest", "57%", "from 0.1 to 0.05"]),
    "diverging": (
        {"loss": lambda at: falling(min(at, 60)) + max(0, at - 60), "mutual_information": lambda at: 2 - 0.1 * at},
        {},
        ["explodes", "from 0.001 to 0.0005", "from 0.1 to 0.2", "clip at 1.0"],
    ),
    "spikes": ({"gradient_norm_most": lambda at: 50.0 if at % 20 == 19 else 2.0}, {}, ["5 of 101", "largest 50"]),
    "skipped": ({"skipped_steps": lambda at: at // 10}, {}, ["10 of 5000 steps", "0.20%", "absurd data"]),
    "feature_scale": ({"feature_scale": 40.0}, {}, ["is 40", "penalty_weight (1)"]),
    "overfitting": (
        {"all/loss": overfit, "all/accuracy": lambda at: 0.5 - abs(at - 50) / 200},
        {},
        ["4.000 (best 3.000)", "to 0.2", "from 0.01 to 0.05"],
    ),
    "uneven_data": ({"south/accuracy": 0.1}, {}, ["south", "0.100"]),
    "poor_transfer": ({}, {"tune_f1": 0.7, "scratch_f1": 0.71}, ["0.700", "0.710", "100 to 50", "frozen", "(256)"]),
    "waiting": ({"data_wait_share": 0.3}, {}, ["30%", "data.workers"]),
    "out_of_range": (
        {},
        {"asked": {"objective": {"temperature": {"start": 0.9}, "mask": {"kind": "fairseq"}}}},
        ["objective.temperature.start 0.9 (0.05 to 0.5)", "masked 0.477954 (0.6 to 0.8)"],
    ),
    "early": ({"last": 40}, {}, ["4 validations"]),
}


def test_every_rule_has_a_made_log() -> None:
    """None of the table goes untested."""
    assert sorted(CASES) == sorted(rule.name for rule in RULES)


@pytest.mark.parametrize("name", CASES)
def test_each_rule_holds_on_its_log_alone(name: str) -> None:
    """It gives the numbers it judged by and what to do; no other rule speaks."""
    changes, more, words = CASES[name]
    found = findings(Evidence(made_log(**changes), **more))
    assert [finding.name for finding in found] == [name]
    text = found[0].what + " ".join(found[0].advice)
    assert [word for word in words if word not in text] == []
    assert found[0].numbers
    assert found[0].advice


def test_a_healthy_run_needs_no_advice() -> None:
    """Nor does one whose loss rises because more codes come into use and more is told."""
    assert findings(Evidence(made_log())) == []
    awake = made_log(loss=lambda at: 1 + at / STEPS, mutual_information=lambda at: 0.5 + at / 50)
    assert {finding.name for finding in findings(Evidence(awake))} <= {"plateau"}


def test_the_gravest_comes_first() -> None:
    """Problems, warnings, hints."""
    found = findings(Evidence(made_log(hard_perplexity=2.0, skipped_steps=5.0, last=40)))
    assert [finding.severity for finding in found] == ["problem", "warning", "hint"]


def test_perplexity_may_still_rise() -> None:
    """Below its target it is let be while it grows, and before five validations it is not judged unless collapsed."""
    growing = made_log(hard_perplexity=lambda at: 110 + 2 * at)
    assert findings(Evidence(growing)) == []
    soon = findings(Evidence(made_log(hard_perplexity=90.0, last=40)))
    assert [finding.name for finding in soon] == ["early"]


def test_numbers_follow_the_settings() -> None:
    """A smaller codebook has smaller bounds; advice starts from what was set; fewer negatives from their own pool."""
    asked = {
        "objective": {
            "quantizer": {"codes": 8},
            "diversity_weight": 0.3,
            "negatives": {"count": 60, "kind": "across_recordings"},
        },
        "training": {"batch": 8},
    }
    healthy = findings(Evidence(made_log(hard_perplexity=10.0, valid_negatives=57.0), asked))
    assert healthy == []
    (found,) = findings(Evidence(made_log(hard_perplexity=2.5, valid_negatives=57.0), asked))
    assert found.name == "collapse"
    assert "2 of 16" in found.what
    assert "from 0.3 to 1" in found.advice[0]
    (flat,) = findings(
        Evidence(made_log(hard_perplexity=10.0, valid_negatives=57.0, loss=4.0, mutual_information=0.1), asked)
    )
    assert flat.numbers["pool_share"] == pytest.approx(60 / 1024)
    assert flat.numbers["batch_share"] == pytest.approx(60 / (8 * 1024))


def test_other_objectives_are_judged_by_what_they_have() -> None:
    """Without a codebook or negatives there is nothing to say about them."""
    keep = ("step", "seconds", "kind", "loss", "gradient_norm")
    entries = [
        {k: v for k, v in entry.items() if k.rpartition("/")[2] in keep} | {"explained": 0.5, "all/explained": 0.5}
        for entry in made_log()
    ]
    assert findings(Evidence(entries, {"objective": {"name": "autoregressive"}})) == []


def test_losses_that_are_not_finite_are_found() -> None:
    """Whether some are or all."""
    for bad in (lambda at: math.nan if at > 98 else falling(at), math.nan):
        found = [finding.name for finding in findings(Evidence(made_log(loss=bad)))]
        assert "diverging" in found


def options(folder: Path, *words: str) -> argparse.Namespace:
    """As the command line gives them."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(folder), *words])


def test_the_command_prints_a_healthy_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so, with the numbers; exit status 0."""
    folder = write_log(tmp_path / "run", *made_log())
    assert run(options(folder)) == 0
    text = capsys.readouterr().out
    assert "healthy: accuracy 0.51" in text
    assert "hard perplexity 380 (320 to 512 of 640)" in text
    assert "problem" not in text


def test_the_command_prints_problems_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as JSON, with settings of the run; exit status 1."""
    folder = write_log(tmp_path / "run", *made_log(hard_perplexity=2.0, loss=math.nan))
    (folder / "settings.json").write_text(json.dumps({"objective": {"diversity_weight": 0.05}}))
    assert run(options(folder)) == 1
    text = capsys.readouterr().out
    assert "problem The codebook has collapsed" in text
    assert "from 0.05 to 0.25" in text
    assert "healthy:" not in text
    assert run(options(folder, "--json", "--plot", str(tmp_path / "curves.png"), "--tune-f1", "0.2")) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["healthy"]
    assert {"collapse", "diverging", "poor_transfer"} <= {finding["name"] for finding in found["findings"]}
    assert {figure["name"]: figure["good"] for figure in found["figures"]}["hard_perplexity"] is False
    assert (imread(tmp_path / "curves.png")[..., :3] < 0.9).any(-1).mean() > 0.01


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """In one line: no log, the log of `pretrain train`, damaged settings."""
    with pytest.raises(ConfigError, match=r"no log\.jsonl"):
        run(options(tmp_path))
    supervised = write_log(tmp_path / "a", {"step": 50, "seconds": 1.0, "loss": 0.1})
    with pytest.raises(ConfigError, match="pretrain run"):
        run(options(supervised))
    folder = write_log(tmp_path / "b", *made_log(last=3))
    (folder / "settings.json").write_text("{")
    with pytest.raises(ConfigError, match=r"settings\.json"):
        run(options(folder))


def test_a_data_set_may_have_a_stroke_in_its_name() -> None:
    """It is judged like the others."""
    (found,) = findings(Evidence(made_log(**{"EQ/SAMBA/accuracy": 0.01})))
    assert (found.name, found.numbers["data_set"]) == ("uneven_data", "EQ/SAMBA")


def test_defaults_are_those_of_the_settings() -> None:
    """Where a run folder has no settings, what is assumed is what the program would have done."""
    from pretrain.selfsupervised.settings import RunSettings, flat, plain

    known = flat(plain(RunSettings.model_validate({"data": {"pack": "a.npz"}})))
    assert {key: known[key] for key in DEFAULTS} == dict(DEFAULTS)


def test_evidence_of_a_real_folder(tmp_path: Path) -> None:
    """Nulls are gaps, and the latest validation counts."""
    evidence = read_evidence(write_log(tmp_path, *made_log(), {"step": 5001, "kind": "train", "loss": None}))
    assert evidence.steps == 5001
    assert evidence.now("loss") == pytest.approx(2.0)
    assert evidence.data_sets == ["north", "south"]
    assert evidence.learnt == pytest.approx(2.6 / math.log(98), rel=1e-3)
