"""Are the TFLA kernels the plain mLSTM cell, and what do they save?

    python benchmarks/tfla_parity.py [--presets small base large] [--gates sigmoid] [--dtypes bfloat16] [--batch 64]

For both gates and the shapes of every level of the presets: the relative error of h and of each gradient behind the
head norm (as in a block) against the plain cell in float32, with the kernels in bfloat16 and, for `base`, in float32
(whose products run in tf32); and time and memory of forward and backward of both. What training uses comes first, each
row is printed as it is found, and a kernel that fails takes no other case with it. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from gpu import Cost, cost, device_of, keep, lines, machine_and_gpu, results_file, synchronize
from torch import Tensor
from torch.nn import functional as F

from picker.model.cell import CELLS, initial_cell_state
from picker.model.config import PRESETS, Gate, ModelConfig, preset
from pretrain.kernels import KERNEL_CELLS

GATES: tuple[Gate, ...] = ("sigmoid", "exponential")
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
NAMES = ("h", "dq", "dk", "dv", "di", "df")
PATIENCE = 60
"""Seconds that a process may take to end after its last case."""


@dataclass(frozen=True)
class Case:
    """One level of one preset."""

    preset: str
    gate: Gate
    dtype: torch.dtype
    batch: int
    heads: int
    tokens: int
    keys: int
    values: int


@dataclass(frozen=True)
class Found:
    """Relative errors of ``NAMES``, and what the plain cell and the kernel cost."""

    errors: tuple[float, ...]
    plain: Cost
    kernel: Cost


Outcome = Found | str
"""What a case gave, or why it failed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and keep the report; exit status 1 where a case failed or a number is not finite."""
    parser = _parser()
    options = parser.parse_args(arguments)
    device = device_of(options.quick)
    cases = [
        case
        for name in options.presets
        for case in level_cases(preset(name), options.batch, options.samples, options.gates, options.dtypes)
    ]
    if not cases:
        parser.error("float32 is measured for base only: add it to --presets")
    print("\n".join(_header()), flush=True)
    found: list[tuple[Case, Outcome]] = []
    for group in grouped(cases):
        if device.type == "cuda":
            compile_ahead(group)
        for name in dict.fromkeys(case.preset for case in group):
            found += outcomes([case for case in group if case.preset == name], device)
    machine, gpu = machine_and_gpu()
    text = _markdown(found, lines(machine, gpu), options.batch)
    keep(options.out or results_file("tfla_parity", machine, gpu), text)
    return 0 if all(isinstance(each, Found) and all(e == e for e in each.errors) for _, each in found) else 1


def level_cases(
    config: ModelConfig, batch: int, samples: int, gates: Sequence[Gate] = GATES, dtypes: Sequence[str] = tuple(DTYPES)
) -> list[Case]:
    """Every level of a network with every gate, in bfloat16; of `base` in float32 too."""
    cases = []
    for depth, level in enumerate(config.levels):
        tokens = samples // (config.stride * config.pooling**depth)
        shape = (batch, level.heads, tokens, config.key_size, config.value_size)
        for gate in gates:
            for dtype in dtypes:
                if dtype == "bfloat16" or config.name == "base":
                    cases.append(Case(config.name, gate, DTYPES[dtype], *shape))
    return cases


def grouped(cases: Sequence[Case]) -> list[list[Case]]:
    """By dtype and gate, what training uses first: bfloat16 and the sigmoid gate."""
    groups = [[c for c in cases if (c.dtype, c.gate) == (d, g)] for d in DTYPES.values() for g in GATES]
    return [group for group in groups if group]


def compile_ahead(cases: Sequence[Case]) -> None:
    """Triton compiles one kernel after the other: several processes fill its cache sooner.

    A case that fails here is left for the process that measures it to report.
    """
    workers = min(len(cases), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(_once, case) for case in cases]:
            future.exception()


def _once(case: Case) -> None:
    warnings.simplefilter("ignore")
    _run(case, _inputs(case, torch.device("cuda")), kernel=True)
    synchronize()


def outcomes(cases: Sequence[Case], device: torch.device) -> list[tuple[Case, Outcome]]:
    """Of each case: in one process, and after a failure, which CUDA does not get over, in a new one."""
    found: list[tuple[Case, Outcome]] = []
    while len(found) < len(cases):
        found += _in_own_process(cases[len(found) :], device)
    return found


def _in_own_process(cases: Sequence[Case], device: torch.device) -> list[tuple[Case, Outcome]]:
    """Up to and with the first case that fails."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(cases, device, sender))
    process.start()
    sender.close()
    found: list[tuple[Case, Outcome]] = []
    for case in cases:
        try:
            outcome: Outcome = receiver.recv()
        except EOFError:
            process.join()
            outcome = f"failed: the process ended with exit status {process.exitcode}"
        print(_row(case, outcome), flush=True)
        found.append((case, outcome))
        if isinstance(outcome, str):
            break
    process.join(PATIENCE)
    process.kill()
    return found


def _measure(cases: Sequence[Case], device: torch.device, sender: Connection) -> None:
    """Send what each case gave, up to and with the first that fails."""
    warnings.simplefilter("ignore")
    for case in cases:
        print(f"running {_title(case)}", file=sys.stderr, flush=True)
        try:
            sender.send(_compare(case, device))
        except Exception as error:  # whatever it is becomes a row
            first = next(iter(str(error).splitlines()), type(error).__name__)
            sender.send(f"failed: {first}")
            return


def _inputs(case: Case, device: torch.device) -> list[Tensor]:
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(case.batch, case.heads, case.tokens, *shape, generator=generator, device=device)

    # Rounded beforehand: the error is that of the kernel, not of its inputs.
    q, k, v = (normal(size).to(case.dtype) for size in (case.keys, case.keys, case.values))
    return [q, k, v, normal() - 1, normal() + 3]


def _run(case: Case, data: list[Tensor], kernel: bool) -> list[Tensor]:
    """The normalised h and the gradients of a weighted sum of it."""
    leaves = [t.detach().requires_grad_() for t in data]
    state = initial_cell_state(case.gate, case.batch, case.heads, case.keys, case.values, data[3], shared=True)
    h, _ = (KERNEL_CELLS if kernel else CELLS)[case.gate](*leaves, state, min(64, case.tokens & -case.tokens))
    normed = F.layer_norm(h.float(), (case.values,), eps=1e-5)
    weights = torch.randn(case.tokens, case.values, generator=torch.Generator().manual_seed(1)).to(normed)
    return [normed.detach(), *torch.autograd.grad((normed * weights).sum(), leaves)]


def _compare(case: Case, device: torch.device) -> Found:
    data = _inputs(case, device)
    wide = [t.float() for t in data]
    exact, found = _run(case, wide, kernel=False), _run(case, data, kernel=True)
    synchronize()
    pairs = zip(found, exact, strict=True)
    errors = tuple(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs)
    return Found(errors, cost(lambda: _run(case, wide, False)), cost(lambda: _run(case, data, True)))


def _title(case: Case) -> str:
    return f"{case.preset}, {case.heads} x {case.tokens} | {case.gate} | {str(case.dtype).removeprefix('torch.')}"


def _header() -> list[str]:
    columns = [*NAMES, "plain, ms", "kernel, ms", "plain, MiB", "kernel, MiB"]
    return [f"| level | gate | kernel in | {' | '.join(columns)} |", "|---|---|---|" + "---:|" * len(columns)]


def _row(case: Case, outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return f"| {_title(case)} | {outcome.replace('|', '/')} |{' |' * (len(NAMES) + 3)}"
    errors = " | ".join(f"{error:.1e}" for error in outcome.errors)
    times = f"{outcome.plain.seconds * 1e3:.2f} | {outcome.kernel.seconds * 1e3:.2f}"
    return f"| {_title(case)} | {errors} | {times} | {outcome.plain.mib:.0f} | {outcome.kernel.mib:.0f} |"


def _markdown(found: list[tuple[Case, Outcome]], facts: list[str], batch: int) -> str:
    parts = [
        "# TFLA kernels against the plain mLSTM cell",
        "Relative errors behind the head norm against the plain cell in float32; forward and backward of "
        f"{batch} windows. A level is heads x tokens.",
        "\n".join(facts),
        "\n".join([*_header(), *(_row(case, each) for case, each in found)]),
        "\n".join(["```", *_figures(found), "```"]),
    ]
    return "\n\n".join(parts) + "\n"


def _figures(found: list[tuple[Case, Outcome]]) -> list[str]:
    figures = []
    for group in grouped([case for case, _ in found]):
        name = f"{group[0].gate}_{str(group[0].dtype).removeprefix('torch.')}"
        chosen = [each for case, each in found if case in group and isinstance(each, Found)]
        figures.append(f"failed_cases_{name}: {len(group) - len(chosen)}")
        if not chosen:
            continue
        for place, what in enumerate(NAMES):
            figures.append(f"worst_error_{what}_{name}: {max(each.errors[place] for each in chosen):.2e}")
        ratio = sum(e.plain.seconds for e in chosen) / sum(e.kernel.seconds for e in chosen)
        figures.append(f"speedup_{name}: {ratio:.2f}")
    return figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="TFLA kernels against the plain mLSTM cell.")
    parser.add_argument("--presets", nargs="+", choices=sorted(PRESETS), default=["small", "base", "large"])
    parser.add_argument("--gates", nargs="+", choices=GATES, default=GATES)
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=tuple(DTYPES), help="float32: base only")
    parser.add_argument("--batch", type=int, default=64, help="windows a call")
    parser.add_argument("--samples", type=int, default=4096, help="samples a window")
    parser.add_argument("--quick", action="store_true", help="try the script on a processor; its figures mean nothing")
    parser.add_argument("--out", type=Path, help="results file; without it, one in results/ named after GPU and day")
    return parser


if __name__ == "__main__":
    sys.exit(main())
