"""The sub-commands of ``python -m export``, once what they need is installed: each takes options, prints, returns."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from export import parity
from export.build import build, read_checkpoint, write_proof
from export.card import CardSources
from export.graph import check_operators
from export.parity import Progress
from export.records import recorded_stream
from export.storage import round_checkpoint
from picker.bundle import Bundle, load_bundle
from picker.errors import BundleError
from picker.plan_stepper import TensorRtStepper, open_session
from picker.stepper import OnnxStepper, Stepper


def run_build(options: argparse.Namespace) -> None:
    """Checkpoint to bundle."""
    given = {"P": options.threshold_p, "S": options.threshold_s}
    chosen = {phase: value for phase, value in given.items() if value is not None}
    console = _console()
    with _progress(console) as progress:
        bundle = build(
            options.checkpoint,
            options.out,
            thresholds=chosen,
            calibration=options.calibration,
            name=options.name,
            sources=CardSources(evaluation=options.evaluation, data=options.data_sources, notes=options.notes),
            precision=options.precision,
            progress=progress,
        )
    console.print(_facts(bundle, sum(check_operators(bundle.model_path).values())))
    size = sum(file.stat().st_size for file in bundle.folder.iterdir())
    console.print(f"{bundle.folder}: {bundle.label}, {size / 2**20:.1f} MiB", highlight=False)


def run_round(options: argparse.Namespace) -> None:
    """Checkpoint to a smaller checkpoint."""
    change = round_checkpoint(read_checkpoint(options.checkpoint).path, options.out)
    size = options.out.stat().st_size / 2**20
    print(f"{options.out}: {size:.1f} MiB; no matrix changed by more than {change:.1e} of its norm")


def run_verify(options: argparse.Namespace) -> None:
    """Prove a bundle's parity again."""
    bundle, source = load_bundle(options.bundle), read_checkpoint(options.checkpoint)
    console = _console()
    operators = check_operators(bundle.model_path)
    recorded = bundle.spec.provenance.get("checkpoint_sha256")
    if recorded != source.sha256:
        raise BundleError(
            f"{bundle.folder}: was exported from another checkpoint ({str(recorded)[:8]}...) than {source.path} "
            f"({source.sha256[:8]}...); name that one, or export the bundle again"
        )
    engine, stepper = _engine(bundle, options)
    chunk = bundle.spec.chunk_samples
    recorded = [(file.name, recorded_stream([file], options.seconds, chunk)) for file in options.records]
    with _progress(console) as progress:
        proof = parity.prove(source.model, stepper, progress, digest=bundle.digest, engine=engine, recorded=recorded)
    console.print(_parity_table(bundle, proof))
    parity.require(proof, str(bundle.folder))
    if options.write:
        write_proof(bundle.folder, proof)
    console.print(f"{sum(operators.values())} operators, none forbidden; parity holds", highlight=False)


def _engine(bundle: Bundle, options: argparse.Namespace) -> tuple[str, Stepper]:
    """Name and stepper of the engine that is proved."""
    if options.engine == "tensorrt":
        session = open_session(bundle, cache=options.cache, name=options.library)
        return f"{options.library or 'TensorRT'}", TensorRtStepper(session)
    return "ONNX Runtime CPU", OnnxStepper(bundle)


def run_describe(options: argparse.Namespace) -> None:
    """Print what is in a bundle."""
    bundle = load_bundle(options.bundle)
    operators = check_operators(bundle.model_path)
    OnnxStepper(bundle)  # raises where specification and graph disagree
    console = _console()
    console.print(_facts(bundle, sum(operators.values())))
    tensors = _table("Inputs and outputs (B rows)", "tensor", "shape", "type", "bytes a station")
    components, samples = len(bundle.spec.components), bundle.spec.chunk_samples
    tensors.add_row("chunk", f"B x {components} x {samples}", "float32", "")
    tensors.add_row("valid", f"B x {components} x {samples}", "bool", "")
    tensors.add_row("reset", "B", "bool", "")
    tensors.add_row("probabilities (out)", f"B x {len(bundle.spec.phases)} x {samples}", "float32", "")
    for tensor in bundle.spec.state:
        shape = " x ".join(map(str, tensor.shape))
        tensors.add_row(
            f"state.{tensor.name}, next.{tensor.name}", f"B x {shape}", tensor.dtype, f"{tensor.size_bytes:,}"
        )
    console.print(tensors)
    counts = _table("Operators", "operator", "count")
    for operator, count in operators.most_common():
        counts.add_row(operator, str(count))
    console.print(counts)


def _facts(bundle: Bundle, operators: int) -> Table:
    spec, provenance = bundle.spec, bundle.spec.provenance
    facts = _table(bundle.label, "", "")
    facts.show_header = False
    facts.add_row("digest", bundle.digest)
    facts.add_row("thresholds", ", ".join(f"{phase} {value:g}" for phase, value in spec.thresholds.items()))
    for phase, calibration in spec.calibration.items():
        facts.add_row(f"calibration of {phase}", str(calibration))
    facts.add_row("precision", parity.precision_of(spec))
    facts.add_row("sampling rate", f"{spec.sampling_rate_hz:g} Hz")
    lookahead = ", ".join(f"{spec.lookahead_of(phase)} for {phase}" for phase in spec.thresholds)
    facts.add_row("chunk, look-ahead", f"{spec.chunk_samples} samples; {lookahead}")
    facts.add_row("parameters", _count(provenance.get("parameters")))
    facts.add_row("multiply-adds", f"{_count(provenance.get('multiply_adds_per_station_second'))} a station-second")
    facts.add_row("state", f"{spec.state_bytes:,} bytes a station")
    facts.add_row("operators", str(operators))
    facts.add_row("checkpoint", str(provenance.get("checkpoint_sha256", "unknown")))
    return facts


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"


def _parity_table(bundle: Bundle, proof: dict[str, Any]) -> Table:
    columns = ("stream", "stations", "seconds", "largest difference", "99.9 %", "picks", "picks that differ")
    table = _table(f"Parity of {bundle.label}", *columns)
    for case in proof["comparisons"]:
        distances = (f"{case[key]:.1e}" for key in ("largest_difference", "percentile_99_9"))
        length = (str(case["rows"]), f"{case['seconds']:g}")
        table.add_row(case["stream"], *length, *distances, str(case["picks"]), str(case["picks_differing"]))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE, show_edge=False, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    return table


def _console() -> Console:
    """The terminal; where the output goes elsewhere, wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 120))


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """A spinner beside the lines of progress."""
    with console.status("exporting"):
        yield lambda line: console.print(line, highlight=False)
