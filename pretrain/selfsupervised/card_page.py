"""The card of pretrained backbones, as Markdown: its figures are those of the logs."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from picker.errors import ConfigError
from pretrain.data.trace import RATE_HZ, TRAIN, TUNE
from pretrain.selfsupervised.monitor.advice import figures
from pretrain.selfsupervised.monitor.evidence import Evidence
from pretrain.selfsupervised.monitor.journal import EVENT
from pretrain.selfsupervised.monitor.journal import TRAIN as TRAINING
from pretrain.selfsupervised.release import Released
from pretrain.selfsupervised.settings import RunSettings, flat, plain
from pretrain.selfsupervised.source import open_store

CARD = "card.md"
NOT_GIVEN = "Not stated when this card was written."
GOING_ON, NOTES = "going on from step", ("its weights", "it was written")
"""How the lines of a log begin that say that a run went on, and how; other events are alarms."""
SCORES = ("loss", "accuracy", "explained", "mutual_information", "hard_perplexity", "soft_perplexity", "dead_codes")


@dataclass(frozen=True)
class Told:
    """A run by its name: its released weights, and its log and settings."""

    run: str
    weights: Released
    evidence: Evidence

    @property
    def settings(self) -> RunSettings:
        """What was asked of the run."""
        return RunSettings.model_validate(self.evidence.asked)


def page(told: Sequence[Told], pack: Path | None = None, data: str | None = None, notes: str | None = None) -> str:
    """The whole card; ``pack`` is where the data of the runs lie now, ``data`` and ``notes`` are Markdown."""
    sections = {
        "Files": _files(told),
        "Use": _use(told),
        "Figures": "\n\n".join(_figures(each) for each in told),
        "Training": "\n\n".join(_training(each) for each in told),
        "Data and licences": "\n\n".join(filter(None, (_counted(told[0].settings, pack), data or NOT_GIVEN))),
        "Known weaknesses": notes or NOT_GIVEN,
    }
    intro = (
        "The network of the picker less its head, pretrained on waveforms without labels. They pick nothing by "
        "themselves: fine-tuning starts from them. The projections, mask embedding and codebook of the pretraining are "
        "not in the files."
    )
    text = "\n".join(f"## {title}\n\n{content.strip()}\n" for title, content in sections.items())
    return f"# Pretrained backbones: {', '.join(each.weights.name for each in told)}\n\n{intro}\n\n{text}"


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _files(told: Sequence[Told]) -> str:
    rows = [
        (
            f"`{each.weights.path.name}`",
            f"{each.weights.parameters:,}",
            f"{each.weights.size_bytes / 2**20:.2f} MiB",
            f"{each.weights.difference:.1g}",
            f"`{each.weights.digest}`",
        )
        for each in told
    ]
    words = "The difference is that of the contexts from those of the run's own weights, relative (root mean square)."
    return f"{table(('file', 'parameters', 'size', 'difference', 'SHA-256'), rows)}\n\n{words}"


def _use(told: Sequence[Told]) -> str:
    lines = []
    for each in told:
        path, model = each.weights.path, each.settings.model
        more = "" if model.gate == "sigmoid" else f" --gate {model.gate}"
        more += "" if model.pooling == 4 else f" --pooling {model.pooling}"
        where = path.name if path.is_absolute() else path.as_posix()
        lines.append(f"pretrain train train.npz runs/picker --preset {each.weights.name}{more} --initial {where}")
    name = told[0].weights.path.name
    python = (
        "from pretrain.objectives.backbone_file import load_backbone\n\n"
        f'backbone, provenance = load_backbone("{name}")  # float32, in evaluation mode\n'
        "context = backbone(waveform, valid)  # (B, 3, N) counts at 100 Hz, Z N E, and bool; to (B, N / 4, width)\n"
    )
    advice = (
        "N is a multiple of 64. Subtract the first sample before float32. Train the head alone "
        "first, then all at a low rate."
    )
    return f"```sh\n{chr(10).join(lines)}\n```\n\n```python\n{python}```\n\n{advice}"


def _figures(told: Told) -> str:
    evidence = told.evidence
    rows = [
        (line.name.replace("_", " "), _number(line.validation), _number(line.training), line.healthy)
        for line in figures(evidence)
    ]
    groups = [
        evidence.validation(f"{kind}_{group}")
        for kind in ("hard_perplexity", "dead_codes")
        for group in range(evidence.groups)
    ]
    if all(value is not None for value in groups):
        each = " and ".join(_number(value) for value in groups[: evidence.groups])
        dead = " and ".join(_number(value) for value in groups[evidence.groups :])
        rows.append(
            ("hard perplexity, and dead codes, of each group", f"{each}; {dead}", "–", "no group dead (below 2)")
        )
    parts = [
        f"### {told.weights.name}",
        f"On held-out recordings (fold tune: other events than those trained on), at step {evidence.steps:,}; training "
        "figures are of the last steps, under dropout and the quantizer's noise.",
        table(("figure", "held out", "training", "wanted"), rows),
    ]
    if evidence.data_sets:
        parts.append(_by_data_set(evidence))
    return "\n\n".join(parts)


def _by_data_set(evidence: Evidence) -> str:
    names = [name for name in ("frames", *SCORES) if evidence.validation(name) is not None]
    rows = [
        (data_set, *(_number(evidence.validation(name, data_set)) for name in names))
        for data_set in (*evidence.data_sets, "all")
    ]
    return table(("held out", *(name.replace("_", " ") for name in names)), rows)


def _training(told: Told) -> str:
    evidence, settings = told.evidence, told.settings
    events = [str(entry.get("text", "")) for entry in evidence.entries if entry.get("kind") == EVENT]
    alarms = [text for text in events if not text.startswith((GOING_ON, *NOTES))]
    resumed = [text.removeprefix(GOING_ON).strip() for text in events if text.startswith(GOING_ON)]
    seconds = [float(entry["seconds"]) for entry in evidence.entries if entry.get("kind") == TRAINING]
    speed = evidence.history(TRAINING, "windows_per_s")
    rows = [
        ("steps", f"{evidence.steps:,} of {settings.training.batch} windows"),
        ("time", f"{max(seconds, default=math.nan) / 60:.1f} min in all"),
        ("windows a second (median)", f"{median(speed):,.0f}" if speed else "–"),
        ("share of the time that waits for data", _number(evidence.training("data_wait_share"))),
        ("skipped steps", _number(evidence.training("skipped_steps"))),
        ("stopped and taken up again", f"at step {', '.join(resumed)}" if resumed else "never"),
        ("alarms", f"{len(alarms)}" if alarms else "none"),
        ("made with", ", ".join(f"{key} {value}" for key, value in _versions(told).items()) or "–"),
    ]
    asked = " \\\n  ".join(
        ["pretrain run configs/pretrain/base.toml " + shlex.quote(f"runs/{told.run}"), *_sets(settings)]
    )
    return f"### {told.weights.name}\n\n{table(('', ''), rows)}\n\nReproduce:\n\n```sh\n{asked}\n```"


def _versions(told: Told) -> dict[str, str]:
    found = told.weights.provenance.get("versions", {})
    return dict(found) if isinstance(found, dict) else {}


def _sets(settings: RunSettings) -> Iterator[str]:
    """What the run asked for beyond `configs/pretrain/base.toml`, whose values are the defaults."""
    usual = flat(plain(RunSettings.model_validate({"data": {"pack": ""}})))
    for key, value in flat(plain(settings)).items():
        if key == "data.pack":
            yield f"--set data.pack={shlex.quote(Path(str(value)).name)}"
        elif key not in usual or usual[key] != value:
            yield "--set " + shlex.quote(f"{key}={value if isinstance(value, str) else json.dumps(value)}")


def _counted(settings: RunSettings, pack: Path | None) -> str:
    """Traces and hours of each data set in both folds; empty where the pack is not at hand."""
    data = settings.data if pack is None else settings.data.model_copy(update={"pack": str(pack)})
    if pack is None and not Path(data.pack).exists():
        return ""
    counts: dict[str, dict[str, tuple[int, float]]] = {}
    for fold in (TRAIN, TUNE):
        try:
            known = open_store(data, fold).catalogue
        except ConfigError:
            if fold == TRAIN:
                raise
            continue
        sets = known.data_sets()
        for name in sorted({sets.texts[code] for code in sets.codes}):
            here = sets.among((name,))
            counts.setdefault(name, {})[fold] = int(here.sum()), float(known.samples[here].sum()) / RATE_HZ / 3600
    rows = [
        (name, *(f"{number:,} ({hours:.2f} h)" for number, hours in (of.get(fold, (0, 0.0)) for fold in (TRAIN, TUNE))))
        for name, of in sorted(counts.items())
    ]
    return table(("records", "trained on", "held out"), rows)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
