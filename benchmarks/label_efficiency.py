"""Does pretraining save labels? Fine-tuned against from scratch, at 5 to 100 % of the analysts' events, three seeds.

    python benchmarks/label_efficiency.py PACK DEV --pretrained RUN/backbone.safetensors --keep RUNS [--at-once 8]

PACK is made by `pretrain pack`; DEV (a SeisBench folder, or a pack made with `--split dev`) judges. For each cell of
the table `pretrain finetune` or `pretrain train` runs, then `label_judge.py`; a few cells at once. A study that was
ended, also by --seconds, goes on in RUNS; the report is of what is there. A .json beside it holds the figures of each
training: on another machine, --found takes them up. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import Job, python, run_jobs
from label_report import Found, bars, markdown, plot
from machine import look

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FRACTIONS, SEEDS = (0.05, 0.1, 0.2, 0.5, 1.0), (0, 1, 2)
PRETRAINED, SCRATCH = "pretrained", "from scratch"
DISTRIBUTIONS = ("torch", "triton", "onnxruntime", "numpy")
LABELS_ALONE = ("--share", "pseudo=0", "--share", "simulated=0")
"""Pseudo-labels and simulated records would stand in for the labels that are left out."""
ONE_THREAD = (("OMP_NUM_THREADS", "1"), ("PYTHONUNBUFFERED", "1"))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training of the study."""

    start: str
    fraction: float
    seed: int

    @property
    def name(self) -> str:
        """For folders and lines."""
        return f"{self.start.replace(' ', '-')}_{self.fraction:g}_{self.seed}"


def main() -> int:
    """Run what is missing, report what is there; exit status 1 where a cell failed or is missing."""
    options = _parser().parse_args()
    machine, cells, known = look(DISTRIBUTIONS, None), list(_cells(options)), _known(options.found)
    missing = [cell for cell in cells if cell.name not in known and not _judged(options.keep, cell).is_file()]
    print(f"{len(cells) - len(missing)} of {len(cells)} trainings are there", file=sys.stderr, flush=True)
    for job, status in run_jobs([_job(cell, options) for cell in missing], options.at_once, options.seconds):
        said = "" if status == 0 else f"exit {status}, see {job.folder / 'output.txt'}"
        print(f"{job.name}: {said or 'done'}", file=sys.stderr, flush=True)
    for cell in cells:
        if _judged(options.keep, cell).is_file():
            known[cell.name] = json.loads(_judged(options.keep, cell).read_text(encoding="utf-8"))
    found = [_found(cell, known[cell.name]) for cell in cells if cell.name in known]
    if not found:
        print("label_efficiency: nothing was trained to its end", file=sys.stderr)
        return 1
    out: Path = options.out or RESULTS / f"label_efficiency_{options.preset}_{machine.started:%Y-%m-%d}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    plot(found, out.with_suffix(".png"))
    out.with_suffix(".json").write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    text = markdown(found, [*machine.lines(), *_about(options)], len(cells))
    out.write_text(text, encoding="utf-8")
    print(text)
    for key, value in bars(found, PRETRAINED, SCRATCH).items():
        print(f"{key}: {value}")
    return int(len(found) < len(cells))


def _cells(options: argparse.Namespace) -> Iterator[Cell]:
    for seed in options.seeds:
        for fraction in options.fractions:
            for start in (PRETRAINED, SCRATCH):
                yield Cell(start=start, fraction=fraction, seed=seed)


def _job(cell: Cell, options: argparse.Namespace) -> Job:
    run = options.keep / cell.name
    command = python("-m", "pretrain", "finetune" if cell.start == PRETRAINED else "train", options.pack, run)
    command += ["--preset", options.preset, "--label-fraction", str(cell.fraction), "--seed", str(cell.seed)]
    command += ["--steps", str(options.steps), "--batch", str(options.batch), "--window-samples", str(options.window)]
    command += ["--validate-every", str(max(1, options.steps // 6)), "--second-look-samples", "128", "--patience", "0"]
    command += [*LABELS_ALONE]
    if cell.start == PRETRAINED:
        command += ["--initial", str(options.pretrained), "--rate", str(options.rate_pretrained)]
        command += ["--freeze-steps", str(options.steps // 6)]
    else:
        command += ["--rate", str(options.rate_scratch)]
    judged = python(HERE / "label_judge.py", run, options.pack, options.dev, _judged(options.keep, cell))
    return Job(name=cell.name, folder=run, commands=[command, judged], environment=ONE_THREAD)


def _judged(folder: Path, cell: Cell) -> Path:
    return folder / cell.name / "judged.json"


def _known(path: Path | None) -> dict[str, Any]:
    """What an earlier report wrote beside itself, by the name of the cell."""
    return {} if path is None else dict(json.loads(path.read_text(encoding="utf-8")))


def _found(cell: Cell, judged: dict[str, Any]) -> Found:
    return Found(start=cell.start, fraction=cell.fraction, seed=cell.seed, f1=judged["f1"])


def _about(options: argparse.Namespace) -> list[str]:
    return [
        f"- `{options.preset}`, {options.steps} steps of {options.batch} windows of {options.window / 100:.0f} s;"
        " labels of analysts and noise alone, no pseudo-labels, no simulated records",
        f"- {PRETRAINED}: head alone for a sixth of the steps, then all at {options.rate_pretrained:g}, 0.8 of that for"
        f" each layer further from the head; {SCRATCH}: all at {options.rate_scratch:g}",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="The label-efficiency study of a pretrained backbone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("pack", type=Path, metavar="PACK.npz", help="training pack made by `pretrain pack`")
    add("dev", type=Path, metavar="DEV", help="labelled records that judge: SeisBench folder, or pack of split dev")
    add("--pretrained", type=Path, required=True, help="backbone.safetensors of `pretrain run`")
    add("--keep", type=Path, required=True, metavar="RUNS", help="folder of the trainings")
    add("--preset", default="small", help="size of the network, that of the backbone")
    add("--fractions", type=float, nargs="+", default=FRACTIONS, help="shares of the analysts' events")
    add("--seeds", type=int, nargs="+", default=SEEDS, help="of weights, batches and the choice of events")
    add("--steps", type=int, default=900, help="optimizer steps of each training")
    add("--batch", type=int, default=32, help="windows a step")
    add("--window", type=int, default=6144, metavar="SAMPLES", help="length of a window")
    add("--rate-pretrained", type=float, default=5e-4, help="peak learning rate of the second stage")
    add("--rate-scratch", type=float, default=2e-3, help="peak learning rate")
    add("--at-once", type=int, default=8, help="trainings beside each other")
    add("--seconds", type=float, help="end after so long; the same command goes on")
    add(
        "--found",
        type=Path,
        metavar="REPORT.json",
        help="trainings that ran elsewhere, as an earlier report wrote them",
    )
    add("--out", type=Path, help="results file (.md; a .png beside it); without it, one in results/ of this day")
    return parser


if __name__ == "__main__":
    sys.exit(main())
