"""The sub-command ``streamer capture``."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from picker.errors import ConfigError
from streamer.capture.recorder import Recorder, recorder_of
from streamer.logs import configure_logs
from streamer.metrics import Metrics
from streamer.origin import Origin
from streamer.record import Record
from streamer.seedlink import SeedLinkReader
from streamer.settings import Settings, load_settings

DESCRIPTION = """\
Keep what SeedLink servers send, packet by packet with the time of arrival, in files of a folder, until SIGTERM, Ctrl-C
or --for-s. Servers and streams are those of a daemon's settings; the connections are its own, and nothing is picked.

A daemon keeps what it receives itself where its settings have `path` in [capture]: then the capture, played back, gives
the daemon's picks to the byte. Files are only added to: what a crash leaves can be played up to where it ends.
docs/capture.md says more."""

EXAMPLES = """\
examples:
  streamer capture --config my.toml captures/                   until Ctrl-C
  streamer capture --config my.toml --for-s 600 bug/            ten minutes
  streamer capture --config my.toml --rotate-h 24 --max-gb 50 --gzip captures/
                                                                one file a day, the last 50 GB, compressed
and then:
  streamer pick --capture --config my.toml captures/            the picks, as fast as it can, the same every time
  streamer replay --capture --speed 10 --wait-for-client captures/    a SeedLink server that sends it again
"""

STATUS_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer capture``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder for the files, made where there is none")
    add("--config", type=Path, required=True, metavar="FILE", help="settings of a daemon, see configs/streamer.toml")
    add("--rotate-h", type=float, metavar="H", help="begin a new file so often (default: that of the settings, 1)")
    add("--max-gb", type=float, metavar="GB",
        help="most that the folder holds; the oldest files go (default: that of the settings, 10)")  # fmt: skip
    add("--gzip", action="store_true", help="compress each file when it is complete")
    add("--for-s", type=float, metavar="T", help="end after T seconds")


def run(args: argparse.Namespace) -> int:
    """Run ``streamer capture``; returns the exit status: 1 where no packet was captured. Raises ConfigError."""
    settings = _settings(args)
    configure_logs(settings.log.format, settings.log.level)
    recorder = recorder_of(settings)
    assert recorder is not None, "OUT is given"
    asyncio.run(_record(settings, recorder, args.for_s))
    print(summary(recorder, args.out), file=sys.stderr)
    return 0 if recorder.counts["written"] else 1


def summary(recorder: Recorder, out: Path) -> str:
    """What was done, for people."""
    counts = recorder.counts
    lost = f", {counts['lost']:,} lost" if counts["lost"] else ""
    return (
        f"{out}: {counts['written']:,} packets of {len(recorder.stations)} stations, "
        f"{counts['bytes'] / 1e6:,.1f} MB{lost}"
    )


def _settings(args: argparse.Namespace) -> Settings:
    """The settings, with what the options say of the capture; raises ConfigError that names the option."""
    given = {"rotate_h": args.rotate_h, "max_gb": args.max_gb}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if not 0 < value < 1e6:
            raise ConfigError(f"--{name.replace('_', '-')} {value:g}: give a number above 0")
    if args.for_s is not None and not args.for_s > 0:
        raise ConfigError(f"--for-s {args.for_s:g}: give seconds above 0")
    settings = load_settings(args.config)
    capture = settings.capture.model_copy(
        update={**given, "path": args.out, "gzip": args.gzip or settings.capture.gzip}
    )
    return settings.model_copy(update={"capture": capture})


async def _record(settings: Settings, recorder: Recorder, for_s: float | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics()
    readers = [
        SeedLinkReader(server, _pass, metrics, on_packet=partial(recorder.take, server.address))
        for server in settings.seedlink
    ]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.run(), name="capture")
        reading = [tasks.create_task(one.run(), name=f"seedlink {one.settings.address}") for one in readers]
        await _until(stop, for_s, recorder, readers)
        for reader in readers:
            reader.stop()
        await asyncio.wait(reading)
        recorder.stop(flushed=True)


async def _pass(record: Record, received_ns: int, origin: Origin) -> None:
    """Nothing is picked here."""


async def _until(
    stop: asyncio.Event, for_s: float | None, recorder: Recorder, readers: Sequence[SeedLinkReader]
) -> None:
    """Wait for a signal or the time, and on a terminal say meanwhile how it goes."""
    begun_s = time.monotonic()
    while for_s is None or time.monotonic() - begun_s < for_s:
        left_s = STATUS_S if for_s is None else min(STATUS_S, for_s - (time.monotonic() - begun_s))
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                await stop.wait()
            return
        except TimeoutError:
            if sys.stderr.isatty():
                connected = sum(reader.receiving for reader in readers)
                counts = recorder.counts
                print(
                    f"{counts['written']:,} packets, {len(recorder.stations)} stations, "
                    f"{counts['bytes'] / 1e6:,.1f} MB, {connected} of {len(readers)} servers",
                    file=sys.stderr,
                )
