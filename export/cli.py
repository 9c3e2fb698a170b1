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
  pretrain evaluate models/first train.npz --tune
  python -m export build runs/first models/first --threshold-p 0.35 --threshold-s 0.25
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
Exit status 0 if it is, 2 if not."""
DESCRIBE = "Print a bundle's identity and size, its inputs and outputs, its state, and its operators."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0, 2 for an error that is the user's to mend, 130 when interrupted."""
    options = parser().parse_args(arguments)
    try:
        getattr(_commands(), f"run_{options.command}")(options)
    except OnsetError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("export: interrupted", file=sys.stderr)
        return 130
    return 0


def _commands() -> ModuleType:
    """The commands, which need PyTorch and ONNX: imported when one is run, so that --help needs neither."""
    try:
        return importlib.import_module("export.commands")
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
    verify = command(
        "verify",
        "prove a bundle's parity again",
        VERIFY,
        "example:\n  python -m export verify models/first --checkpoint runs/first",
    )
    verify.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")
    verify.add_argument(
        "--checkpoint", type=Path, required=True, help="the safetensors file or run folder that it was built from"
    )
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
            f"--threshold-{phase}", type=float, help=f"probability at which a {phase.upper()} pick opens (0.3)"
        )
    build.add_argument("--name", help="the bundle's name (that of the model's configuration)")
    build.add_argument(
        "--evaluation", type=Path, metavar="FILE", help="figures for the card: JSON of `pretrain evaluate --json`"
    )
    build.add_argument(
        "--data-sources", type=Path, metavar="FILE", help="Markdown for the card: data sources and their licences"
    )
    build.add_argument("--notes", type=Path, metavar="FILE", help="Markdown for the card: known weaknesses")
