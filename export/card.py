"""The model card: what the bundle is, what it costs, where it came from, how well it was proved and measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picker.bundle import Bundle
from picker.errors import ConfigError

PHASES = ("P", "S")
NOT_GIVEN = "Not stated when this bundle was exported."


@dataclass(frozen=True, kw_only=True)
class CardSources:
    """Further files of the card, each optional.

    ``evaluation``: the JSON of ``pretrain evaluate --json``; ``data``: Markdown on data sources and licences;
    ``notes``: Markdown on known weaknesses.
    """

    evaluation: Path | None = None
    data: Path | None = None
    notes: Path | None = None

    def read(self) -> CardParts:
        """The text of the sections; raises ConfigError that names the file and what is wrong."""
        measured = NOT_GIVEN if self.evaluation is None else _evaluation(self.evaluation)
        return CardParts(measured, *(NOT_GIVEN if file is None else _text(file) for file in (self.data, self.notes)))


@dataclass(frozen=True)
class CardParts:
    """Markdown of the sections that come from files."""

    evaluation: str = NOT_GIVEN
    data: str = NOT_GIVEN
    notes: str = NOT_GIVEN


def write_card(path: Path, bundle: Bundle, proof: dict[str, Any], parts: CardParts) -> None:
    """Write ``card.md`` of a proved bundle."""
    sections = {
        "What it is": _identity(bundle),
        "Parity": _parity(proof),
        "Evaluation": parts.evaluation,
        "Known weaknesses": parts.notes,
        "Training": _training(bundle.spec.provenance),
        "Data sources and licences": parts.data,
    }
    text = "\n".join(f"## {title}\n\n{content.strip()}\n" for title, content in sections.items())
    path.write_text(f"# {bundle.spec.name}: a causal picker of P and S\n\n{text}", encoding="utf-8")


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _identity(bundle: Bundle) -> str:
    spec, provenance = bundle.spec, bundle.spec.provenance
    chunk_s = spec.chunk_samples / spec.sampling_rate_hz
    lookahead_s = {phase: spec.lookahead_of(phase) / spec.sampling_rate_hz for phase in spec.thresholds}
    rows = [
        ("digest (SHA-256 of graph and specification)", f"`{bundle.digest}`"),
        ("checkpoint (SHA-256)", f"`{provenance['checkpoint_sha256']}`"),
        ("input", f"components {', '.join(spec.components)} at {spec.sampling_rate_hz:g} Hz, any amplitude unit"),
        ("output", f"probabilities of {', '.join(spec.phases)} at {spec.sampling_rate_hz:g} Hz"),
        ("thresholds", ", ".join(f"{phase} {value:g}" for phase, value in spec.thresholds.items())),
        *((f"stated of {phase}", f"`{calibration}`") for phase, calibration in spec.calibration.items()),
        ("parameters", f"{provenance['parameters']:,}"),
        ("state", f"{spec.state_bytes:,} bytes a station"),
        ("multiply-adds", f"{provenance['multiply_adds_per_station_second'] / 1e6:.1f} million a station-second"),
        ("look-ahead", ", ".join(f"{phase} {value:g} s" for phase, value in lookahead_s.items())),
        (
            "latency by design",
            ", ".join(f"{phase} {value:g} to {value + chunk_s:g} s" for phase, value in lookahead_s.items())
            + ": the look-ahead, and up to one chunk",
        ),
        ("made with", ", ".join(f"{name} {provenance[name]}" for name in ("torch", "onnx", "onnxscript"))),
    ]
    return (
        "A recurrent network (xLSTM U-Net) that is fed chunk by chunk and keeps a small state for each station.\n\n"
        + table(("", ""), [*rows, ("operator set", provenance["opset"])])
    )


def _parity(proof: dict[str, Any]) -> str:
    rows = [
        (
            *(f"{case[key]:g}" for key in ("rows", "seconds")),
            *(f"{case[key]:.1e}" for key in ("largest_difference", "percentile_99_9")),
            *(str(case[key]) for key in ("picks", "picks_differing")),
        )
        for case in proof["comparisons"]
    ]
    heading = ("stations", "seconds", "largest difference of probability", "99.9 %", "picks", "picks that differ")
    return (
        f"{proof['engine']}, against {proof['reference']}, on synthetic quiet, events, saturation, gaps, dead "
        f"components, values that are not finite, and resets. Allowed: {proof['tolerance']:g}, and no other pick.\n\n"
        + table(heading, rows)
    )


def _training(provenance: Any) -> str:
    training = dict(provenance["training"])
    settings = training.pop("settings", {})
    if not settings and not training:
        return NOT_GIVEN
    rows = [*settings.items(), *((f"reached: {key}", value) for key, value in _flat(training))]
    return table(("setting", "value"), [(key, _short(value)) for key, value in rows])


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    return [
        pair
        for key, value in values.items()
        for pair in (_flat(value, f"{prefix}{key} ") if isinstance(value, dict) else [(f"{prefix}{key}", value)])
    ]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from error


def _evaluation(file: Path) -> str:
    """Tables of an evaluation."""
    try:
        figures = json.loads(_text(file))
        thresholds = ", ".join(f"{phase} {value:g}" for phase, value in figures["thresholds"].items())
        groups = {"all": figures["all"], **figures.get("by_source", {})}
        rows = [
            row
            for source, of_source in groups.items()
            for p in PHASES
            for row in _score_rows(source, p, of_source.get(p, {}))
        ]
        heading = ("data", "phase", "tolerance", "labels", "recall", "precision", "F1")
        return (
            f"Of `{figures['bundle']}` at thresholds {thresholds}, streamed through its graph chunk by chunk.\n\n"
            + table(heading, rows)
            + "\n\n"
            + table(("phase", "residual, mean ± standard deviation, s", "false picks an hour of noise"), _rest(figures))
            + _timing_and_trust(figures)
            + _peers(figures)
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{file}: not an evaluation ({error!r}); write one with `pretrain evaluate BUNDLE DATA --json FILE`"
        ) from error


def _score_rows(source: str, phase: str, scores: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a tolerance; none where there is no label."""
    return [
        (
            *(source, phase, tolerance.replace("s", " s"), str(tally["n"])),
            *(_figure(tally[what], 3) for what in ("recall", "precision", "f1")),
        )
        for tolerance, tally in scores.items()
        if isinstance(tally, dict) and tally.get("n")
    ]


def _rest(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for phase in PHASES:
        scores = figures["all"][phase]
        residual = scores.get("residual_s")
        spread = "–" if residual is None else f"{residual['mean']:+.3f} ± {residual['std']:.3f}"
        rows.append((phase, spread, _figure(scores.get("false_per_noise_hour"), 1)))
    return rows


def _timing_and_trust(figures: dict[str, Any]) -> str:
    """Latency, calibration and coverage by phase; nothing where an older evaluation has none."""
    if "latency_s" not in figures or "calibration" not in figures:
        return ""
    rows = []
    for phase in PHASES:
        latency, told = figures["latency_s"][phase], figures["calibration"][phase]
        covered = told.get("coverage", {})
        rows.append(
            (
                phase,
                *(
                    f"{_figure(latency['median'][message], 2)}, {_figure(latency['p95'][message], 2)}"
                    for message in ("first", "confirmed")
                ),
                _around(told.get("expected_calibration_error"), told.get("within")),
                _around(covered.get("share"), covered.get("within")),
            )
        )
    heading = (
        "phase",
        "onset to first message, median and 95 %, s of data",
        "to the confirmed one",
        "expected calibration error (95 %)",
        "residuals within the stated uncertainty (95 %)",
    )
    return "\n\n" + table(heading, rows)


def _peers(figures: dict[str, Any]) -> str:
    """F1 less that of other pickers on the same records, with intervals."""
    rows = []
    for name, peer in figures.get("peers", {}).items():
        for phase in PHASES:
            for tolerance, one in peer[phase].items():
                less = _around(one["ours_less_theirs"], one["within"])
                how = "paired" if peer["paired"] else "of ours alone"
                rows.append((name, phase, tolerance.replace("s", " s"), _figure(one["f1"], 3), less, how))
    heading = ("picker", "phase", "tolerance", "its F1", "ours less its (95 %)", "interval")
    return "\n\n" + table(heading, rows) if rows else ""


def _around(value: float | None, within: Any) -> str:
    """A figure with its interval."""
    if value is None or within is None or None in within:
        return _figure(value, 3)
    return f"{value:.3f} ({within[0]:.3f} to {within[1]:.3f})"


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
