"""``python -m export``: checkpoint to bundle, and the proof that the bundle is the network."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from picker.errors import ConfigError, OnsetError
from picker.version import installed_version

DESCRIPTION = "Onset's exporter: a trained checkpoint becomes a bundle, the folder that the daemon opens."
EXAMPLES = """\
from a training run to a bundle whose thresholds were tuned:
  python -m export build runs/first models/first
  pretrain calibrate models/first data/labelled --out first.json
  python -m export build runs/first models/first --calibration first.json
  python -m export describe models/first

`python -m export COMMAND --help` says more about each."""

BUILD = """\
Translate the network to ONNX, prove that the graph, streamed chunk by chunk, gives the same probabilities and
the same picks as the network in float64, and write model.onnx, spec.json, parity.json and card.md to OUT.
Where the proof fails nothing is written, and a bundle that stands at OUT stands there still."""
BUILD_EXAMPLES = """\
examples:
  python -m export build runs/first models/first
  python -m export build runs/first/picker.safetensors models/first --name first --threshold-p 0.35
  pretrain evaluate models/first data/labelled --split dev --json dev.json
  python -m export build runs/first models/first --evaluation dev.json --data-sources data.md --notes weak.md"""
VERIFY = """\
Prove again that a bundle's graph is the network of its checkpoint, for instance after an upgrade of ONNX Runtime.
The comparison runs over synthetic stations (quiet, events, saturation, gaps, resets) in batches of 1 to 256 that
stations join and leave, and over recorded ones where --records names them. Exit status 0 if it holds, 2 if not."""
VERIFY_EXAMPLES = """\
examples:
  python -m export verify models/first --checkpoint runs/first
  python -m export verify models/first --checkpoint runs/first --records day/*.mseed --seconds 7200 --write
  python -m export verify models/first --checkpoint runs/first --engine tensorrt"""
PLAN = """\
Build the TensorRT plan of a bundle for one GPU and keep it in the bundle's folder `plans`. A plan that stands there is
kept where graph, library version, GPU, precision and --batch are the same, and built anew where any of them differs.
Needs neither PyTorch nor ONNX. The library tensorrt builds on the GPU itself; tensorrt_rtx builds on any machine."""
PLAN_EXAMPLES = """\
examples:
  python -m export plan models/small
  python -m export plan models/small --library tensorrt_rtx --capability 8.9 --batch 1 64 1024"""
ROUND = """\
Write a checkpoint whose matrices are rounded to 16 bits: half the size, and so is the bundle that is built from it,
which computes in float32 all the same. Evaluate the bundle to see that it is harmless."""
ROUND_EXAMPLES = """\
example:
  python -m export round runs/first models/checkpoints/first.safetensors"""
DESCRIBE = "Print a bundle's identity and size, its inputs and outputs, its state, and its operators."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0, 2 for an error that is the user's to mend, 130 when interrupted."""
    options = parser().parse_args(arguments)
    try:
        getattr(_commands(options.command), f"run_{options.command}")(options)
    except OnsetError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("export: interrupted", file=sys.stderr)
        return 130
    return 0


def _commands(command: str) -> ModuleType:
    """The commands, most of which need PyTorch and ONNX: imported when one is run, so that --help needs neither."""
    try:
        return importlib.import_module("export.plan_command" if command == "plan" else "export.commands")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed, and exporting needs it: pip install 'onset[export]'"
        ) from error


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    top = argparse.ArgumentParser(
        prog="python -m export",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"onset {installed_version()}")
    sub = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, help: str, description: str, examples: str) -> argparse.ArgumentParser:
        raw = argparse.RawDescriptionHelpFormatter
        return sub.add_parser(name, help=help, description=description, epilog=examples, formatter_class=raw)

    _build_arguments(command("build", "turn a checkpoint into a bundle", BUILD, BUILD_EXAMPLES))
    _verify_arguments(command("verify", "prove a bundle's parity again", VERIFY, VERIFY_EXAMPLES))
    _plan_arguments(command("plan", "build a bundle's TensorRT plan", PLAN, PLAN_EXAMPLES))
    rounding = command("round", "store a checkpoint in 16 bits", ROUND, ROUND_EXAMPLES)
    rounding.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a safetensors file, or a run folder")
    rounding.add_argument("out", type=Path, metavar="OUT", help="file to write")
    describe = command(
        "describe", "print what is in a bundle", DESCRIBE, "example:\n  python -m export describe models/first"
    )
    describe.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")
    return top


def _build_arguments(build: argparse.ArgumentParser) -> None:
    build.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a safetensors file, or a run folder")
    build.add_argument("out", type=Path, metavar="OUT", help="folder to write; a bundle that stands there is replaced")
    for phase in ("p", "s"):
        build.add_argument(
            f"--threshold-{phase}",
            type=float,
            help=f"probability at which a {phase.upper()} pick opens (that of --calibration, else 0.3)",
        )
    build.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="thresholds, calibration of probabilities and time uncertainty: JSON of `pretrain calibrate`",
    )
    build.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16"),
        default="fp32",
        help="of the products with weights; state and gates stay in float32 (fp32; the others are for GPUs)",
    )
    build.add_argument("--name", help="the bundle's name (that of the model's configuration)")
    build.add_argument(
        "--evaluation", type=Path, metavar="FILE", help="figures for the card: JSON of `pretrain evaluate --json`"
    )
    build.add_argument(
        "--data-sources", type=Path, metavar="FILE", help="Markdown for the card: data sources and their licences"
    )
    build.add_argument("--notes", type=Path, metavar="FILE", help="Markdown for the card: known weaknesses")


def _verify_arguments(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")
    verify.add_argument(
        "--checkpoint", type=Path, required=True, help="the safetensors file or run folder that it was built from"
    )
    verify.add_argument(
        "--records", type=Path, nargs="+", default=[], metavar="FILE", help="miniSEED at 100 Hz to compare on as well"
    )
    verify.add_argument("--seconds", type=float, default=600.0, help="of each such file, its last so many (600)")
    verify.add_argument("--write", action="store_true", help="keep the proof, where it holds, as the parity.json")
    verify.add_argument("--engine", choices=("cpu", "tensorrt"), default="cpu", help="what runs the graph (cpu)")
    _library_arguments(verify)


def _plan_arguments(plan: argparse.ArgumentParser) -> None:
    plan.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")
    plan.add_argument("--capability", metavar="X.Y", help="compute capability to build for (that of this machine)")
    plan.add_argument(
        "--batch",
        type=int,
        nargs=3,
        default=(1, 256, 8192),
        metavar=("LEAST", "BEST", "MOST"),
        help="stations in a call (1 256 8192)",
    )
    plan.add_argument("--tf32", action="store_true", help="let float32 products be rounded to TF32, 10 bits")
    _library_arguments(plan)


def _library_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--library", choices=("tensorrt", "tensorrt_rtx"), help="(the first that is installed)")
    command.add_argument("--cache", type=Path, metavar="FOLDER", help="of plans (`plans` in the bundle)")
