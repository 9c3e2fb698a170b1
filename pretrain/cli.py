"""The program ``pretrain``: pack data, pretrain and train a model, evaluate a bundle."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from picker.errors import ConfigError, OnsetError
from picker.version import installed_version
from pretrain import commands

DESCRIPTION = "Onset's trainer: waveforms to checkpoint, and the evaluation of what the exporter made of it."
EXAMPLES = """\
a first run, from data to figures:
  pretrain pack train.npz --labelled data/labelled --continuous data/continuous --budget 55MiB
  pretrain train train.npz runs/first
  python -m export build runs/first models/first
  pretrain evaluate models/first train.npz --tune
  pretrain evaluate models/first data/labelled --split dev --status manual --plot dev.png

waveforms without labels first, then picks:
  pretrain plan configs/pretrain/base.toml
  pretrain run configs/pretrain/base.toml runs/pretrained
  pretrain diagnose runs/pretrained

`pretrain COMMAND --help` says more about each."""
WITH_TORCH = {
    "train": ("pretrain.train", "train a picker on a pack"),
    "finetune": ("pretrain.finetune", "train a picker from pretrained weights, in two stages"),
    "run": ("pretrain.selfsupervised.command", "pretrain a backbone on waveforms without labels"),
    "plan": ("pretrain.selfsupervised.plan", "what a pretraining run would take, before it is started"),
    "diagnose": (
        "pretrain.selfsupervised.monitor.diagnose",
        "what the log of a pretraining run says, and what to change",
    ),
    "codebook": (
        "pretrain.selfsupervised.monitor.codebook",
        "which waveforms each code of a pretrained run stands for",
    ),
    "card": ("pretrain.selfsupervised.card", "pretrained weights to give away, and the card that says what they are"),
}
"""Sub-commands that need PyTorch: the module of each, with ``add_arguments`` and ``run``, and its line of help."""


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The argument parser; PyTorch is imported only where ``command`` is one that needs it."""
    top = argparse.ArgumentParser(
        prog="pretrain",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"onset {installed_version()}")
    sub = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, entry in commands.COMMANDS.items():
        one = sub.add_parser(
            name,
            help=entry.help,
            description=entry.description,
            epilog=entry.examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        entry.add_arguments(one)
        one.set_defaults(run=entry.run)
    for name, (module, line) in WITH_TORCH.items():
        one = sub.add_parser(
            name,
            help=line,
            description=f"{line[0].upper()}{line[1:]}. Needs PyTorch (pip install 'onset[train]').",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command == name:
            _mount(one, module)
    return top


def _mount(one: argparse.ArgumentParser, module: str) -> None:
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed, and this command needs it: pip install 'onset[train]'"
        ) from error
    found.add_arguments(one)
    one.set_defaults(run=found.run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0, 2 for an error that is the user's to mend, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = next((word for word in arguments if not word.startswith("-")), None)
    try:
        options = parser(command).parse_args(arguments)
        return int(options.run(options))
    except OnsetError as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pretrain: interrupted", file=sys.stderr)
        return 130
