"""The sub-commands of ``pretrain`` that need no PyTorch: their arguments, and what they print."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pretrain import calibrate_command, continuous_command, evaluate_command, pack_command, splice_command
from pretrain.pack_command import size_bytes as size_bytes
from pretrain.simulate import command as simulation
from pretrain.terminal import new_bar, new_console


@dataclass(frozen=True, kw_only=True)
class Command:
    """A sub-command: how it is described, which arguments it takes, what it does (returns the exit status)."""

    help: str
    description: str
    examples: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class _Module(Protocol):
    """What a module of a sub-command holds, beside ``run``."""

    DESCRIPTION: str
    EXAMPLES: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""


def _command(words: str, module: _Module, run: Callable[[argparse.Namespace], int]) -> Command:
    return Command(
        help=words,
        description=module.DESCRIPTION,
        examples=module.EXAMPLES,
        add_arguments=module.add_arguments,
        run=run,
    )


def _pack(options: argparse.Namespace) -> int:
    return pack_command.run(options, new_console(), new_bar)


def _simulate(options: argparse.Namespace) -> int:
    return simulation.run(options, new_console(), new_bar)


COMMANDS = {
    "pack": _command("pack waveforms and labels for training", pack_command, _pack),
    "evaluate": _command("evaluate a bundle on labelled records", evaluate_command, evaluate_command.run),
    "evaluate-continuous": _command(
        "compare a bundle with other machines on continuous data", continuous_command, continuous_command.run
    ),
    "evaluate-splice": _command(
        "compare recall after a minute and after hours of stream", splice_command, splice_command.run
    ),
    "calibrate": _command(
        "choose thresholds and calibrate what a bundle states of its picks", calibrate_command, calibrate_command.run
    ),
    "simulate": _command("simulate labelled records from physics", simulation, _simulate),
}
