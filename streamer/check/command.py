"""The sub-command ``streamer check``."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from rich.console import Console

from streamer.assembly import broker_of
from streamer.check.peers import ServerAnswer, ask_broker, ask_server
from streamer.check.report import show_broker, show_server
from streamer.settings import Settings, load_settings

DESCRIPTION = """\
Connect to each SeedLink server and to the broker, and say what the daemon would pick: stations, the channels that are
used, those that are not and why. Nothing is subscribed and nothing is published, so it may be run beside the daemon.

Exit status 0: all that the settings ask for can be had, 1: something cannot, 2: the settings must be mended. Whether
the broker lets the daemon publish is seen only when it does."""

EXAMPLES = """\
examples:
  streamer check --config configs/streamer.toml
  streamer check --config configs/streamer.toml --timeout-s 120     large servers take their time to list their streams
"""

WIDTH = 160
"""Columns where the output is no terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer check``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="settings, see configs/streamer.toml"
    )
    parser.add_argument(
        "--timeout-s", type=float, default=60.0, metavar="T", help="wait so long for each peer (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Run ``streamer check``; returns the exit status. Raises ConfigError for settings that cannot be used."""
    settings = load_settings(args.config)
    broker = broker_of(settings.mqtt)
    broker.tls_context()
    settings.stations.known()
    for server in settings.seedlink:  # what the user has to mend is said before anything is connected to
        server.auth()
        server.tls_context()
    answers, refused = asyncio.run(_visit(settings, args.timeout_s))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    well = [show_server(console, answer, settings.stations.prefer) for answer in answers]
    well.append(show_broker(console, broker.address, refused))
    return 0 if all(well) else 1


async def _visit(settings: Settings, timeout_s: float) -> tuple[list[ServerAnswer], str | None]:
    """All peers at once."""
    async with asyncio.TaskGroup() as tasks:
        servers = [tasks.create_task(ask_server(server, timeout_s)) for server in settings.seedlink]
        broker = tasks.create_task(ask_broker(broker_of(settings.mqtt), timeout_s))
    return [server.result() for server in servers], broker.result()
