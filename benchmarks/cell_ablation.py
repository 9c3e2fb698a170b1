"""Which gate, look-ahead, pooling and size should the picker have? Same data, same steps, one table.

    python benchmarks/cell_ablation.py PACK.npz [--steps 2000] [--at-once 8] [--keep FOLDER]

Each variant is one `pretrain train` in a process of its own, several at once on one GPU, judged on the fold tune of the
pack by the averaged weights at its last validation. The baseline is trained with three seeds: differences below the
spread of those are noise. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from jobs import Job, python, run_jobs
from machine import look

RESULTS = Path(__file__).parent / "results"
DISTRIBUTIONS = ("torch", "triton", "numpy")
FIGURES = ("P_f1_0.5s", "P_f1_0.1s", "S_f1_0.5s", "S_f1_0.1s", "f1", "P_false_per_noise_hour", "S_false_per_noise_hour")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What differs from the baseline (small, sigmoid gate, look-ahead 64, pooling 4): options of `pretrain train`."""

    name: str
    options: tuple[str, ...] = ()
    compile: bool = True


VARIANTS = (
    Variant(name="baseline, seed 0"),
    Variant(name="baseline, seed 1", options=("--seed", "1")),
    Variant(name="baseline, seed 2", options=("--seed", "2")),
    # Its loop over chunks takes the compiler minutes, and a step as it is no longer than base's.
    Variant(name="exponential gate", options=("--gate", "exponential"), compile=False),
    Variant(name="look-ahead 0", options=("--lookahead-samples", "0")),
    Variant(name="look-ahead 16", options=("--lookahead-samples", "16")),
    Variant(name="look-ahead 32", options=("--lookahead-samples", "32")),
    Variant(name="pooling 2x2", options=("--pooling", "2")),
    Variant(name="base", options=("--preset", "base")),
)


def main() -> int:
    """Train all variants, print and write the table."""
    options = _parser().parse_args()
    machine = look(DISTRIBUTIONS, None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        found = _train_all([v for v in VARIANTS if not options.only or v.name in options.only], options, folder)
    gpu = _gpu()
    text = _markdown(found, [*machine.lines(), f"- GPU: {gpu}"], options)
    slug = gpu.lower().replace(" ", "-") if gpu != "none" else machine.slug
    out: Path = options.out or RESULTS / f"cell_ablation_{slug}_{machine.started:%Y-%m-%d}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _train_all(variants: list[Variant], options: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """The last validation of each variant that finished."""
    found = dict[str, dict[str, float]]()
    for job, status in run_jobs([_job(variant, options, folder) for variant in variants], options.at_once):
        found[job.name] = _last(job.folder / "log.jsonl")
        said = "  ".join(f"{key} {value:.3f}" for key, value in found[job.name].items())
        print(f"{job.name}: exit {status}  {said}", file=sys.stderr, flush=True)
    return {variant.name: found[variant.name] for variant in variants}


def _job(variant: Variant, options: argparse.Namespace, folder: Path) -> Job:
    run = folder / _slug(variant.name)
    command = python("-m", "pretrain", "train", options.pack, run)
    command += ["--steps", str(options.steps), "--batch", str(options.batch), "--window-samples", str(options.window)]
    command += ["--validate-every", str(-(-options.steps // 2)), *variant.options]
    command += ["--compile"] if variant.compile and not options.eager else []
    return Job(name=variant.name, folder=run, commands=[command])


def _last(log: Path) -> dict[str, float]:
    """Figures of the last validation; NaN for each where there was none."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    validated = [line for line in lines if "f1" in line] or [{}]
    return {key: float(validated[-1].get(key, float("nan"))) for key in (*FIGURES, "step", "seconds")}


def _markdown(found: dict[str, dict[str, float]], machine: list[str], options: argparse.Namespace) -> str:
    rows = [
        "| variant | " + " | ".join(FIGURES) + " | steps | minutes |",
        "|---|" + "---|" * (len(FIGURES) + 2),
        *(
            f"| {name} | "
            + " | ".join(f"{values[key]:.3f}" if "f1" in key else f"{values[key]:.1f}" for key in FIGURES)
            + f" | {values['step']:.0f} | {values['seconds'] / 60:.1f} |"
            for name, values in found.items()
        ),
    ]
    seeds = [values["f1"] for name, values in found.items() if name.startswith("baseline")]
    spread = stdev(seeds) if len(seeds) > 1 else float("nan")
    bars = [f"f1_{_slug(name)}: {values['f1']:.3f}" for name, values in found.items()]
    return "\n".join(
        [
            "# Gate, look-ahead, pooling and size",
            "",
            f"{options.steps} steps of {options.batch} windows of {options.window / 100:.0f} s from the same pack; "
            "baseline: small, sigmoid gate, look-ahead 64, pooling 4. Best F1 over the thresholds 0.2 to 0.5 on the "
            "fold tune; `f1` is the mean of the four.",
            "",
            *machine,
            f"- at once on the GPU: {options.at_once}, so the minutes compare with each other only",
            "",
            *rows,
            "",
            f"Mean f1 of the baseline {mean(seeds) if seeds else float('nan'):.3f}, standard deviation over its seeds "
            f"{spread:.3f}.",
            "",
            *bars,
            f"f1_seed_deviation: {spread:.4f}",
            "",
        ]
    )


def _slug(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Supervised training of each variant of the network on the same data for the same steps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("pack", type=Path, metavar="PACK.npz", help="training pack made by `pretrain pack`")
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps")
    parser.add_argument("--batch", type=int, default=64, help="windows a step")
    parser.add_argument("--window", type=int, default=4096, metavar="SAMPLES", help="length of a window")
    parser.add_argument("--at-once", type=int, default=len(VARIANTS), help="runs beside each other")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these variants")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to leave the runs (default: nowhere)")
    parser.add_argument("--out", type=Path, help="results file; without it, one in results/ named after GPU and day")
    return parser


if __name__ == "__main__":
    sys.exit(main())
