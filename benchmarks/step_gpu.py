"""How many stations one GPU serves in real time: the exported step, the same step in torch, and one with a kernel.

    PYTHONPATH=. python3 benchmarks/step_gpu.py [--presets small base] [--batches 256 1024 8192] [--only WORD ...]
        [--budget SECONDS]

In one run, for each preset and batch: torch in bf16 as a CUDA graph, the slots of the daemon's engine from host to
host, `torch.compile`, ONNX Runtime on CUDA with I/O binding and states that stay on the device (the graph of
``export build`` in fp32 with and without TF32 and in fp16, each with and without ONNX Runtime's CUDA graph), and torch
with the mLSTM step as one Triton kernel. Each contender has a process of its own; one that fails is a row, and so is
one whose turn had not come when the budget was spent. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from pathlib import Path

import torch
from gpu import device_of, keep, lines, machine_and_gpu, results_file
from step_graphs import FORMS, Graph, export_all, floor_bytes, network
from step_measure import NOT_RUN, Job, Measurement, Row, copy_bandwidth
from step_report import Findings, markdown, row_line

from picker.model.config import PRESETS

TORCH: tuple[tuple[str, str, bool], ...] = (
    ("torch, bf16 autocast, CUDA graph", "autocast", False),
    ("torch.compile, CUDA graph", "autocast", True),
    ("torch, bf16 products, CUDA graph", "casts", False),
    ("torch, Triton kernel, CUDA graph", "kernel", False),
    ("torch.compile, Triton kernel, CUDA graph", "kernel", True),
)
"""Title, kind and whether it is compiled."""
ORT: tuple[tuple[str, str], ...] = (("fp32", "tf32"), ("fp32 without TF32", "exact"), ("fp16", "exact"))
"""Precision of ``model.onnx``, and whether products in float32 are in TF32."""
SLOTS: tuple[tuple[str, str, bool], ...] = (
    ("all ready, CUDA graph", "all", True),
    ("half of them ready, CUDA graph", "sparse", True),
    ("all ready", "all", False),
)
"""The same of the engine "cuda": which stations a call has, and whether its steps are captured."""
FIRST = ("torch, bf16 autocast, CUDA graph", "daemon's slots", "torch.compile, CUDA graph")
"""What a run that is cut short should have; the first needs no graph, while they are exported."""
CHECKPOINTS = Path(__file__).parents[1] / "models" / "checkpoints"
QUICK_BATCHES, BATCHES = (2, 5), (256, 1024, 8192)
PATIENCE_S = 100.0
"""For one contender on one preset."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and keep the report; exit status 1 where a contender failed on a GPU."""
    options = _parser().parse_args(arguments)
    device = device_of(options.quick)
    batches = tuple(options.batches or (QUICK_BATCHES if options.quick else BATCHES))
    checkpoints = {name: CHECKPOINTS / f"{name}.safetensors" for name in options.presets}
    checkpoints = {name: path for name, path in checkpoints.items() if path.is_file()}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        graphs = export_all(Path(folder), options.presets, checkpoints, _forms(options.only))
        rows, waiting = list[Row](), list[Measurement]()
        for job in [*jobs(options.presets, batches, checkpoints, options.only), None]:
            left = began + options.budget - time.perf_counter()
            if job is not None and left <= 0:
                rows += _said([row for one in waiting for row in one.cancel()])
                waiting.clear()
                rows += _said([Row(job=job, batch=batch, failed=NOT_RUN) for batch in job.batches])
                continue
            if job is not None:  # the next one gets ready on the processor while this one is measured
                waiting.append(Measurement(_with_graph(job, graphs, left), device))
            while len(waiting) > (job is not None):
                rows += _said(_measured(waiting.pop(0), options.patience, began + options.budget))
    machine, gpu = machine_and_gpu()
    findings = Findings(
        facts=lines(machine, gpu),
        rows=rows,
        networks={name: _size(name, checkpoints.get(name), {row.batch for row in rows}) for name in options.presets},
        bandwidth=copy_bandwidth(device),
        memory_bytes=torch.cuda.get_device_properties(0).total_memory if device.type == "cuda" else 0,
        took_s=time.perf_counter() - began,
    )
    keep(options.out or results_file("step_gpu", machine, gpu), markdown(findings))
    return int(any(row.failed and row.reached for row in rows) and not options.quick)


def _measured(measurement: Measurement, patience_s: float, deadline: float) -> list[Row]:
    """Its rows, with what is left of the budget to its patience."""
    left = deadline - time.perf_counter()
    return measurement.rows(min(patience_s, left)) if left > 0 else measurement.cancel()


def jobs(
    presets: Sequence[str], batches: tuple[int, ...], checkpoints: dict[str, Path], only: Sequence[str] = ()
) -> list[Job]:
    """Every contender on every preset, in the order of ``FIRST``; then ONNX Runtime, captured first, and the rest."""
    found = []
    for title, kind, compiled in TORCH:
        found += [Job(title=title, engine="torch", preset=name, batches=batches, checkpoint=checkpoints.get(name),
                      kind=kind, compiled=compiled) for name in presets]  # fmt: skip
    slots = [
        Job(title=f"daemon's slots, fp32, {words}", engine="slots", preset=name,
            batches=_halves(batches) if kind == "sparse" else batches,
            checkpoint=checkpoints.get(name), cuda_graph=captured, kind=kind)
        for words, kind, captured in SLOTS for name in presets
    ]  # fmt: skip
    ort = [
        Job(title=f"ONNX Runtime, {form}{', CUDA graph' * captured}", engine="ort", preset=name, batches=batches,
            checkpoint=checkpoints.get(name), cuda_graph=captured, kind=kind)
        for captured in (True, False) for form, kind in ORT for name in presets
    ]  # fmt: skip
    first = [job for words in FIRST for job in [*found, *slots] if words in job.title]
    ordered = [*first, *ort, *(job for job in found if job not in first)]
    return [job for job in ordered if not only or any(word in job.title for word in only)]


def _halves(batches: tuple[int, ...]) -> tuple[int, ...]:
    """Stations of a call of which half are ready: so there are as many slots as where all are."""
    return tuple(max(1, batch // 2) for batch in batches)


def _forms(only: Sequence[str]) -> list[str]:
    titles = {job.title for job in jobs(["small"], (1,), {}, only)}
    return [form for form in FORMS if any(form in title for title in titles)]


def _with_graph(job: Job, graphs: dict[str, Future[Graph]], patience_s: float) -> Job:
    """``job`` with the graph of its title, once that is written; without it where it could not be."""
    if job.engine == "torch":
        return job
    form = job.title.split(", ")[1].split()[0]
    graph = _graph(graphs[f"{job.preset} {form}"], patience_s)
    if isinstance(graph, str):
        print(f"{job.preset} {form} could not be exported: {graph}", file=sys.stderr)
    return Job(**{**vars(job), "graph": graph if isinstance(graph, Graph) else None})


def _graph(future: Future[Graph], patience_s: float) -> Graph | str:
    try:
        return future.result(patience_s)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _said(rows: list[Row]) -> list[Row]:
    for row in rows:
        print(row_line(row), flush=True)
    return rows


def _size(name: str, checkpoint: Path | None, batches: Collection[int]) -> tuple[int, dict[int, int]]:
    """Bytes of state a station, and the fewest bytes of a step by batch."""
    model = network(name, checkpoint)
    state = sum(t.numel() * 4 for t in _flat(model.initial_state(1)))
    return state, {batch: floor_bytes(model, batch) for batch in batches}


def _flat(state: object) -> list[torch.Tensor]:
    from picker.model.state import named

    return [tensor for _, tensor in named(state)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Stations that one GPU serves in real time.")
    parser.add_argument("--presets", nargs="+", choices=sorted(PRESETS), default=["small", "base"])
    parser.add_argument("--batches", nargs="+", type=int, help="stations a call (256 1024 8192)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="contenders whose title holds a WORD")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds that a contender may take")
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds of the run, the rest is not run (3600)")
    parser.add_argument("--quick", action="store_true", help="try the script on a processor; its figures mean nothing")
    parser.add_argument("--out", type=Path, help="results file; without it, one in results/ named after GPU and day")
    return parser


if __name__ == "__main__":
    sys.exit(main())
