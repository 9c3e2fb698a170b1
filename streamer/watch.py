"""``streamer watch``: the picks of a broker as a live table, or as one line of JSON each."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import aiomqtt
from rich.console import Console

from picker.errors import ConfigError
from streamer.backoff import Backoff
from streamer.broker import REFUSED, Broker, BrokerClient
from streamer.pick_view import JsonView, TableView, View
from streamer.topic import ROOT, checked_root

DESCRIPTION = """\
Show picks as they arrive at an MQTT broker: time of the arrival, channel, phase, probability, latency (from the arrival
of the wave to the publication of its pick; of no meaning for replayed data that keep their old times), and status: a
pick may be provisional first, and is confirmed or retracted then. On a terminal the last revision of a pick is shown,
and a retracted pick is struck out; into a pipe each message is a line.

Ends after --count messages or --for-s seconds, whichever comes first, else with Ctrl-C. The exit status is 1 where
--count was given and fewer messages came."""

EXAMPLES = """\
examples:
  streamer watch                                      every pick of the broker on this machine
  streamer watch --host mqtt.example.org --select CX/PB01/+/P
  streamer watch --json --for-s 60 > picks.jsonl      one message a line, as it was published
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer watch``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--host", default="localhost", help="broker's name or address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=1883, help="broker's TCP port (default: %(default)s)")
    parser.add_argument("--protocol", choices=("5", "3.1.1"), default="5", help="MQTT version (default: %(default)s)")
    parser.add_argument("--username", help="user name; the password is taken from ONSET_MQTT_PASSWORD")
    parser.add_argument("--ca-file", type=Path, help="PEM file of the authority that signed the broker's certificate")
    parser.add_argument("--root", default=ROOT, help="what the topics start with (default: %(default)s)")
    parser.add_argument(
        "--select",
        default="#",
        metavar="FILTER",
        help="what to watch, as an MQTT filter of network/station/location/phase (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="print each message as one line of JSON")
    parser.add_argument("--count", type=int, metavar="N", help="end after N messages")
    parser.add_argument("--for-s", type=float, metavar="T", help="end after T seconds")


def run(args: argparse.Namespace) -> int:
    """Run ``streamer watch``; returns the exit status. Raises ConfigError for options that cannot be used."""
    broker = Broker(
        host=args.host,
        port=args.port,
        protocol=args.protocol,
        username=args.username,
        password=os.environ.get("ONSET_MQTT_PASSWORD") if args.username else None,
        ca_file=args.ca_file,
        client_id=f"onset-watch-{uuid.uuid4().hex[:8]}",
    )
    console = Console()
    view: View = JsonView(console) if args.json else TableView(console)
    watch = Watch(broker, f"{checked_root(args.root)}/picks/{args.select}", view, args.count)
    try:
        with suppress(KeyboardInterrupt), view.shown():
            asyncio.run(watch.run(args.for_s))
    except BrokenPipeError:  # the reader of a pipe has gone: Python must not try to flush what is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if args.count is not None and watch.count < args.count else 0


class Watch:
    """A subscriber that reconnects until it has seen ``limit`` messages (None: without end)."""

    def __init__(self, broker: Broker, topic_filter: str, view: View, limit: int | None = None) -> None:
        broker.tls_context()
        self.count = 0
        self._broker, self._filter, self._view, self._limit = broker, topic_filter, view, limit
        self._backoff = Backoff()
        self._absence_told = False

    async def run(self, for_s: float | None = None) -> None:
        """Show messages until the limit or the time is reached."""
        with suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                while not self._enough():
                    try:
                        await self._listen()
                    except aiomqtt.MqttError as error:
                        self._went_away(error)
                        await asyncio.sleep(self._backoff.delay_s())

    async def _listen(self) -> None:
        client = BrokerClient(self._broker)
        await client.connect()
        try:
            await self._subscribe(client)
            self._backoff.reset()
            self._absence_told = False
            async for message in client.messages:
                self._show(message)
                if self._enough():
                    return
        finally:
            await client.leave()

    async def _subscribe(self, client: BrokerClient) -> None:
        try:
            reasons = await client.subscribe(self._filter, qos=1)
        except ValueError as error:
            raise ConfigError(f"--select: {self._filter!r} is not an MQTT topic filter ({error})") from error
        for reason in reasons:
            if (reason if isinstance(reason, int) else reason.value) >= REFUSED:
                raise ConfigError(
                    f"{self._broker.address} refuses the subscription to {self._filter!r} ({reason}): "
                    "see the broker's access rules, or give --username"
                )
        _tell(f"watching {self._filter} at {self._broker.address}")

    def _show(self, message: aiomqtt.Message) -> None:
        try:
            self._view.add(message.payload if isinstance(message.payload, bytes) else b"")
        except ValueError as error:
            _tell(f"{message.topic}: passed over, {error}")
        else:
            self.count += 1

    def _enough(self) -> bool:
        return self._limit is not None and self.count >= self._limit

    def _went_away(self, error: aiomqtt.MqttError) -> None:
        if not self._absence_told:
            self._absence_told = True
            _tell(f"no broker at {self._broker.address} ({error}): trying again")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
