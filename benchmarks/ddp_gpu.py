"""Is pretraining on several GPUs right, and how much faster is it?

    python benchmarks/ddp_gpu.py                                # 1, 2, 4 and 8 GPUs, as many as there are
    python benchmarks/ddp_gpu.py --backend gloo --ranks 1 2     # on a processor, tiny: is the script whole?

Four questions to the trainer of `pretrain run` under torchrun: how its speed grows with the GPUs, whether two ranks
step as one, and whether a run goes on with another number of ranks and after a kill -9. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from ddp_report import markdown
from ddp_stages import STAGES, Bench
from gpu import keep, lines, machine_and_gpu, results_file

GPUS = (1, 2, 4, 8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and keep the report; the exit status is 1 where a bar was measured and missed."""
    options = _parser().parse_args(arguments)
    ranks = _ranks(options.backend, options.ranks)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), options.backend, ranks, options.preset, options.batch)
        for name in options.stages:
            STAGES[name](bench)
    machine, gpu = machine_and_gpu()
    where = "cpu-gloo" if options.backend == "gloo" else f"{max(ranks)}x-{gpu}"
    facts = [*lines(machine, gpu), *_facts(options.backend, ranks), *bench.facts]
    bars = bench.bars(options.stages)
    keep(options.out or results_file("ddp_gpu", machine, where), markdown(facts, bench.sections, bars))
    return int(any(bar.met is False for bar in bars))


def _ranks(backend: str, asked: Sequence[int] | None) -> list[int]:
    """Numbers of ranks to measure, 1 among them; raises SystemExit where there are not as many GPUs."""
    gpus = torch.cuda.device_count()
    if backend == "gloo":
        return sorted({1, *(asked or (1, 2))})
    if not gpus:
        raise SystemExit("no CUDA device: --backend gloo --ranks 1 2 tries the script on a processor")
    if asked and max(asked) > gpus:
        raise SystemExit(f"--ranks {max(asked)}: this machine has {gpus} GPUs; name at most as many")
    return sorted({1, *(asked or (number for number in GPUS if number <= gpus))})


def _facts(backend: str, ranks: Sequence[int]) -> list[str]:
    command = f"--backend {backend} --ranks {' '.join(map(str, ranks))}"
    if backend == "gloo":
        return [f"- ranks: {command}: processes of this machine's processor; their speed means nothing"]
    number = ".".join(map(str, torch.cuda.nccl.version()))
    multicast = os.environ.get("NCCL_NVLS_ENABLE", "0")
    return [f"- ranks: {command}: one a GPU, NCCL {number}, NCCL_NVLS_ENABLE={multicast}"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Pretraining on several GPUs: weak scaling, gradients, resume, restart."
    )
    add = parser.add_argument
    add(
        "--backend", choices=("nccl", "gloo"), default="nccl", help="gloo tries the script on a processor (%(default)s)"
    )
    add("--ranks", type=int, nargs="+", metavar="N", help="numbers of GPUs (those of 1, 2, 4, 8 that there are)")
    add("--preset", default="base", help="size of the network on GPUs (%(default)s)")
    add("--batch", type=int, help="windows a GPU in the scaling (1024; on a processor 8)")
    add("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="what to do (all)")
    add("--out", type=Path, help="results file; without it, one in results/ named after GPUs and day")
    return parser


if __name__ == "__main__":
    sys.exit(main())
