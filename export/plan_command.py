"""``python -m export plan``: needs a TensorRT library and neither PyTorch nor ONNX, for the machine that picks."""

from __future__ import annotations

import argparse

from rich.console import Console

from export.plan import PlanRequest, build_plan
from picker.bundle import load_bundle
from picker.tensorrt import capability_of, library


def run_plan(options: argparse.Namespace) -> None:
    """Build the TensorRT plan of a bundle, or say that the one that stands is right."""
    least, best, most = options.batch
    request = PlanRequest(
        capability=capability_of(options.capability) if options.capability else None,
        batch=(least, best, most),
        tf32=options.tf32,
        cache=options.cache,
    )
    bundle, found, console = load_bundle(options.bundle), library(options.library), Console()
    said: list[str] = []

    def watch(phase: str, done: int, steps: int) -> None:
        if not console.is_terminal and done == 0 and phase not in said:
            said.append(phase)
            console.print(phase, highlight=False, soft_wrap=True)
        status.update(f"{phase} {done}/{steps}")

    with console.status(f"building with {found.name} {found.version}") as status:
        built = build_plan(bundle, found, request, watch)
    verdict = f"built ({built.why})" if built.why else "up to date"
    size = built.path.stat().st_size / 2**20
    least, best, most = built.plan.batch
    rows = f"{least} to {most} rows, best at {best}"
    console.print(f"{built.path}: {verdict}, {size:.1f} MiB, {rows}", highlight=False, soft_wrap=True)
