"""The GPU that a figure belongs to, and how time and memory are taken on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from machine import Machine, look

RESULTS = Path(__file__).parent / "results"
DISTRIBUTIONS = ("torch", "triton", "mlstm_kernels", "transformers")
MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """Seconds a call (median, each from its own events) and MiB at the peak beyond what was there before."""

    seconds: float
    mib: float


def device_of(quick: bool) -> torch.device:
    """CUDA, or the processor where ``quick`` says that this is a trial of the script; raises SystemExit otherwise."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if quick:
        return torch.device("cpu")
    raise SystemExit("no CUDA device: this benchmark is of a GPU; --quick tries the script on a processor")


def machine_and_gpu() -> tuple[Machine, str]:
    """The machine as other benchmarks print it, and the name of the GPU."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return look(DISTRIBUTIONS, None), name


def lines(machine: Machine, gpu: str) -> list[str]:
    """One Markdown list item a fact."""
    if not torch.cuda.is_available():
        return machine.lines()
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return [f"- GPU: {gpu}, {memory:.0f} GiB, CUDA {torch.version.cuda}", *machine.lines()]


def results_file(what: str, machine: Machine, gpu: str) -> Path:
    """``results/<what>_<gpu>_<date>.md``."""
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    return RESULTS / f"{what}_{slug}_{machine.started:%Y-%m-%d}.md"


def keep(path: Path, text: str) -> None:
    """Write a report and print it, so that the ``key: value`` lines at its end come last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(text)


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def cost(call: Callable[[], object], repeats: int = 10, warm: int = 3) -> Cost:
    """Of a call on the current GPU; on a processor nothing is measured, it is only called."""
    for _ in range(warm):
        call()
    if not torch.cuda.is_available():
        return Cost(float("nan"), float("nan"))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, times = torch.cuda.memory_allocated(), []
    for _ in range(repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        stop.record()
        times.append((start, stop))
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    return Cost(median(a.elapsed_time(b) for a, b in times) / 1e3, peak / MIB)
