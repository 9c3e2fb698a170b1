"""The program ``pretrain``: pack data, train a model, evaluate a bundle."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

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

`pretrain COMMAND --help` says more about each."""


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The argument parser; PyTorch is imported, for the trainer's arguments, only where ``command`` is ``train``."""
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
    train = sub.add_parser(
        "train",
        help="train a model on a pack",
        description="Train a picker on a pack. Needs PyTorch (pip install 'onset[train]').",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if command == "train":
        _mount_trainer(train)
    return top


def _mount_trainer(train: argparse.ArgumentParser) -> None:
    try:
        from pretrain import train as trainer
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed, and training needs it: pip install 'onset[train]'"
        ) from error
    trainer.add_arguments(train)
    train.set_defaults(run=trainer.run)


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
