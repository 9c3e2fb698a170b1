"""The sub-command ``streamer replay``."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import textwrap
from pathlib import Path

from pydantic import ValidationError

from picker.errors import ConfigError, OnsetError
from streamer.replay.server import ReplayServer
from streamer.replay.settings import Delay, ReplaySettings

HELP = "serve miniSEED files over SeedLink as if they were arriving now"
DESCRIPTION = textwrap.dedent(
    """\
    Serve miniSEED files over SeedLink v3 and v4, as if their data were arriving now.

    Each record is sent when its last sample would have been recorded. Use it to rehearse an operation with last year's
    earthquakes, to test settings on known events, or to load a daemon with more stations than you have.
    """
)
EXAMPLES = textwrap.dedent(
    """\
    examples:
      A day of data in real time, moved so that it begins now:
        streamer replay --shift start archive/2010/147/

      The same at ten times the speed, all of it in the past (moved so that it ends now):
        streamer replay --speed 10 --shift end archive/2010/147/

      Files with long records, cut into 512-byte records of one second so that picks come as fast as live:
        streamer replay --repack-s 1.0 event.mseed

      Fifty stations V0001 to V0050 from three, each 0.5 to 3 s late, records up to 0.2 s more:
        streamer replay --virtual-stations 50 --delay-s 0.5:3 --jitter-s 0.2 BW.UH*.mseed

      The east components three seconds behind the others:
        streamer replay --delay-s '*_E=3' event.mseed

      On any free port, starting when the daemon asks for data, ending 10 s after the last record:
        streamer replay --port 0 --wait-for-client --linger-s 10 event.mseed

      What a daemon received, packet by packet with the same numbers, ten times as fast (docs/capture.md):
        streamer replay --capture --speed 10 --wait-for-client captures/

    what to know:
      SeedLink v3 carries miniSEED 2 records of 512 bytes only; a warning names what v3 clients will not get.
      Sequence numbers count within each station and begin anew with each start of the server.
      Delays and jitter are in data seconds: at --speed 10 they pass ten times as fast.
      --shift start with --speed above 1 sends data from the future; --shift end never does.
    """
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer replay`` and the text of its help to ``parser``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="miniSEED file, or folder searched for miniSEED files")
    capture = parser.add_argument_group("capture")
    capture.add_argument(
        "--capture", action="store_true",
        help="PATH are files or folders of `streamer capture` or a daemon: send their packets as they came",
    )  # fmt: skip
    capture.add_argument(
        "--server", dest="capture_server", metavar="HOST:PORT", help="of a capture only what came from this server"
    )
    network = parser.add_argument_group("network")
    network.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    network.add_argument("--port", type=int, default=18000, help="TCP port, 0 for any free one (default %(default)s)")
    network.add_argument(
        "--max-clients", type=int, default=100, metavar="N", help="clients at once (default %(default)s)"
    )
    network.add_argument(
        "--ring-packets", type=int, default=4096, metavar="N",
        help="packets kept per station for clients that resume; slower clients are dropped (default %(default)s)",
    )  # fmt: skip
    network.add_argument(
        "--first-sequence", type=int, default=1, metavar="N",
        help="sequence number of each station's first packet; 16777200 rehearses the wrap of v3 (default %(default)s)",
    )  # fmt: skip
    _add_time_arguments(parser.add_argument_group("time"))
    _add_data_arguments(parser.add_argument_group("data"))


def _add_time_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--speed", type=float, default=1.0, metavar="N", help="data seconds per second (default 1)")
    group.add_argument(
        "--shift", choices=("none", "start", "end"), default="none",
        help="move all data by whole seconds so that they start, or end, when the replay starts (default none)",
    )  # fmt: skip
    group.add_argument("--wait-for-client", action="store_true", help="start when the first client has asked for data")
    group.add_argument(
        "--linger-s", type=float, metavar="S",
        help="exit that long after the last record (default: keep connections open until stopped)",
    )  # fmt: skip
    group.add_argument(
        "--delay-s", action="append", default=[], metavar="[PATTERN=]S[:S]",
        help="records appear that much later; LOW:HIGH draws one value per station; "
        "PATTERN with * and ? limits it to streams NET_STA_LOC_B_S_SS; may be repeated, the first match counts",
    )  # fmt: skip
    group.add_argument("--jitter-s", type=float, default=0.0, metavar="S", help="each record up to that much later")
    group.add_argument("--reorder", action="store_true", help="let jitter change the order within a station")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of delays and jitter (default 0)")


def _add_data_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--virtual-stations",
        type=int,
        metavar="M",
        help="serve M stations V0001, V0002, ... made from those in the files",
    )
    group.add_argument(
        "--repack-s", type=float, metavar="S", help="encode records again that are longer than S seconds or not of "
        "--record-length bytes, as miniSEED 2",
    )  # fmt: skip
    group.add_argument(
        "--record-length", type=int, default=512, metavar="BYTES", help="length of those records (default %(default)s)"
    )


def settings_from(args: argparse.Namespace) -> ReplaySettings:
    """Settings from parsed arguments; raises ConfigError that names the option."""
    values = {name: getattr(args, name) for name in ReplaySettings.model_fields if hasattr(args, name)}
    values["delays"] = tuple(Delay.parse(text) for text in args.delay_s)
    try:
        return ReplaySettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"--{option} {first['input']}: {first['msg']}") from None


def run(args: argparse.Namespace) -> int:
    """Serve until the data have ended (with --linger-s) or a signal comes. Exit status: 0, or 2 for a wrong setting."""
    try:
        asyncio.run(_serve(settings_from(args)))
    except OnsetError as error:
        print(f"streamer replay: {error}", file=sys.stderr)
        return 2
    return 0


async def _serve(settings: ReplaySettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with ReplayServer(settings) as server:
        print(ready_line(server), flush=True)
        ends = [asyncio.create_task(server.wait_finished()), asyncio.create_task(stop.wait())]
        done, pending = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()


def ready_line(server: ReplayServer) -> str:
    """What is served, where, and for how long; the address is the third word."""
    timeline, speed = server.timeline, server.settings.speed
    streams = sum(len(ring.streams) for ring in server.rings)
    duration_s = timeline.duration_ns * 1e-9
    return (
        f"listening on {server.host}:{server.port} (SeedLink v3 and v4): {len(server.rings)} stations, "
        f"{streams} streams, {len(timeline)} records, {duration_s:.0f} s of data in {duration_s / speed:.0f} s"
        + (", waiting for a client" if server.settings.wait_for_client else "")
    )
