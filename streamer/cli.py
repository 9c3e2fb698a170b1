"""``streamer``: run the daemon, pick an archive, rehearse with recorded data, watch the picks."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from picker.errors import OnsetError
from picker.version import installed_version


class _Command(NamedTuple):
    """A sub-command: a module with ``add_arguments`` and ``run``, imported only when it is wanted."""

    module: str
    help: str


COMMANDS = {
    "run": _Command("streamer.run", "pick on live SeedLink data and publish over MQTT"),
    "pick": _Command("streamer.archive.command", "pick recorded miniSEED, as fast as it can"),
    "capture": _Command("streamer.capture.command", "keep what SeedLink servers send, to play it back later"),
    "replay": _Command("streamer.replay.command", "serve recorded miniSEED over SeedLink as if it were arriving now"),
    "status": _Command("streamer.status_command", "ask the running daemon how it is"),
    "check": _Command("streamer.check.command", "connect to servers and broker, and say what would be picked"),
    "watch": _Command("streamer.watch", "show the picks that arrive at a broker"),
    "compare": _Command("streamer.compare", "say how two sets of picks differ"),
}

EXAMPLES = """\
a rehearsal on one machine, each line in a terminal of its own (an MQTT broker must be running):
  streamer replay --shift start --repack-s 1.0 event.mseed
  streamer watch
  streamer run --config configs/streamer.toml

streamer COMMAND --help says more about each.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 2 for what the user has to mend, said in one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser(given).parse_args(given)
    try:
        return int(importlib.import_module(COMMANDS[args.command].module).run(args))
    except OnsetError as error:
        print(f"streamer: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; only the sub-command that is wanted gets its options, so that the others are not imported."""
    parser = argparse.ArgumentParser(
        prog="streamer",
        description="Onset's daemon: P and S picks on live seismic stations, a fraction of a second after the wave.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"onset {installed_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((argument for argument in given if not argument.startswith("-")), None)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help)
        if name == wanted:
            importlib.import_module(command.module).add_arguments(subparser)
    return parser
