"""The sub-commands of ``pretrain`` that need no PyTorch: their arguments, and what they print."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from pretrain import calibrate_command, continuous_command, evaluate_command, splice_command
from pretrain import pack_command as packing
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


# pack


def _pack(options: argparse.Namespace) -> int:
    return packing.run(options, new_console(), new_bar)


# simulate


def _simulate(options: argparse.Namespace) -> int:
    return simulation.run(options, new_console(), new_bar)


COMMANDS = {
    "pack": Command(
        help="pack waveforms and labels for training",
        description=packing.DESCRIPTION,
        examples=packing.EXAMPLES,
        add_arguments=packing.add_arguments,
        run=_pack,
    ),
    "evaluate": Command(
        help="evaluate a bundle on labelled records",
        description=evaluate_command.DESCRIPTION,
        examples=evaluate_command.EXAMPLES,
        add_arguments=evaluate_command.add_arguments,
        run=evaluate_command.run,
    ),
    "evaluate-continuous": Command(
        help="compare a bundle with other machines on continuous data",
        description=continuous_command.DESCRIPTION,
        examples=continuous_command.EXAMPLES,
        add_arguments=continuous_command.add_arguments,
        run=continuous_command.run,
    ),
    "evaluate-splice": Command(
        help="compare recall after a minute and after hours of stream",
        description=splice_command.DESCRIPTION,
        examples=splice_command.EXAMPLES,
        add_arguments=splice_command.add_arguments,
        run=splice_command.run,
    ),
    "calibrate": Command(
        help="choose thresholds and calibrate what a bundle states of its picks",
        description=calibrate_command.DESCRIPTION,
        examples=calibrate_command.EXAMPLES,
        add_arguments=calibrate_command.add_arguments,
        run=calibrate_command.run,
    ),
    "simulate": Command(
        help="simulate labelled records from physics",
        description=simulation.DESCRIPTION,
        examples=simulation.EXAMPLES,
        add_arguments=simulation.add_arguments,
        run=_simulate,
    ),
}
