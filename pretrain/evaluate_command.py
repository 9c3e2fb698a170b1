"""``pretrain evaluate``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from picker.errors import ConfigError
from pretrain import report
from pretrain.data.trace import RATE_HZ, TUNE
from pretrain.evaluate import best_thresholds, evaluate, read_traces
from pretrain.figure import plot
from pretrain.metric import PHASES
from pretrain.picks_file import read_trace_picks, write_picks
from pretrain.summary import PEER_THRESHOLD, summarize
from pretrain.terminal import add_bundle_argument, add_threshold_arguments, new_console, opened, streaming, write_json

DESCRIPTION = """\
Stream every record through the exported graph, chunk by chunk, and decide picks as the daemon does.
The CSV of --picks, cut at the thresholds in use, holds exactly what the daemon would publish; it reaches down to a
probability of 0.1, so that other thresholds can be tried on it. Latency is counted in the time of the data, from the
label to the end of the chunk of the first message (`provisional` in the daemon, where its setting allows) and of the
confirmed one, the onset at any place of its chunk. A pick is right if it serves a label at 0.5 s."""
EXAMPLES = """\
examples:
  pretrain evaluate models/small data/labelled --split dev --status manual --plot dev.png --picks dev.csv
  pretrain evaluate models/small data/labelled --split dev --status manual --peers phasenet.csv eqtransformer.csv
  pretrain evaluate models/small train.npz --tune"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add_bundle_argument(parser)
    add("data", type=Path, metavar="DATA", help="SeisBench folder, or a pack (.npz)")
    add("--split", help="only this split, for example dev")
    add("--status", help="only labels of this trace_p_status, for example manual; noise records stay")
    add("--picks", type=Path, metavar="OUT.csv", help="write picks: trace_name,phase,sample,probability and more")
    add("--json", type=Path, metavar="OUT.json", help="write every figure")
    add("--plot", type=Path, metavar="OUT.png", help="write residuals, reliability, latency and more as a page")
    add(
        "--tune",
        nargs="?",
        const=TUNE,
        metavar="FOLD",
        help="use only this held-out fold (default: tune) and print the thresholds that are best on it",
    )
    add(
        "--peers",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="picks of other pickers on the same records (trace_name,phase,sample,probability), cut at "
        f"{PEER_THRESHOLD:g}: differences of F1 with paired intervals; the name of the file is that of the picker",
    )
    add(
        "--peer-scores",
        type=Path,
        metavar="FILE",
        help="scores of other pickers on the same records (JSON by name), for those without picks",
    )
    add_threshold_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluate, print and write; returns the exit status."""
    bundle, stepper, thresholds = opened(options)
    peers = {path.stem: read_trace_picks(path) for path in options.peers}
    scores = {name: one for name, one in _scores(options.peer_scores).items() if name not in peers}
    traces = read_traces(options.data, split=options.split, status=options.status, fold=options.tune)
    console, samples = new_console(), sum(trace.samples for trace in traces)
    with streaming(console, samples) as tick:
        evaluation = evaluate(stepper, traces, thresholds, tick)
    figures = summarize(evaluation, bundle.label, peers, scores)
    console.print(f"{bundle.label}: {len(traces)} records, {samples / RATE_HZ / 3600:.2f} h", highlight=False)
    console.print(report.score_table(evaluation))
    console.print(report.detail_table(figures))
    console.print(report.strata_table(figures))
    if "peers" in figures:
        console.print(report.peers_table(figures))
    if options.tune is not None:
        console.print(report.sweep_table(evaluation))
        best = best_thresholds(evaluation)
        words = " ".join(f"--threshold-{phase.lower()} {threshold:g}" for phase, threshold in best.items())
        console.print(f"best on fold {options.tune}: {words}", highlight=False)
    if options.picks is not None:
        write_picks(options.picks, evaluation.picks)
    write_json(options.json, figures)
    if options.plot is not None:
        plot(evaluation, figures, f"{bundle.label} on {options.data.name} ({len(traces)} records)", options.plot)
    return 0


def _scores(path: Path | None) -> dict[str, Any]:
    """Scores by picker, each as ``pretrain evaluate --json`` has them under "all"; ConfigError names the file."""
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        chosen = {name: one for name, one in found.items() if isinstance(one, dict)}
        for one in chosen.values():
            for phase in PHASES:
                float(one["all"][phase]["0.5s"]["f1"]), float(one["all"][phase]["0.1s"]["f1"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: no scores of pickers ({error!r}); wanted: name, all, P and S, 0.1s and 0.5s, f1"
        ) from error
    return chosen
