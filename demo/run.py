"""The demo: ``python -m demo.run``. See README.md.

    records of demo/records.py -> streamer replay (SeedLink) -> streamer run -> MQTT broker -> subscriber

Exit status: 0, 1 where the picks miss the bar (six onsets matched, at most two picks without one), 2 where it broke.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from demo.children import HOST, Broker, Child, DemoError, free_port, python
from demo.onsets import ArrivedPick, Judge, load_onsets
from demo.prepare import OUT, prepare
from demo.records import Served
from demo.subscriber import Subscriber, cancelled
from demo.table import PickTable, passed, summary
from picker.bundle import load_bundle
from picker.errors import OnsetError

ROOT = Path(__file__).parent.parent
SPEED = 10.0
LINGER_S = 2.0
"""Time that the replay server stays after its last record."""
QUIET_S = 1.0
START_S, END_S = 20.0, 20.0
"""Most that the beginning and the end may take beyond the data themselves."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the demo."""
    parser = argparse.ArgumentParser(prog="python -m demo.run", description="Real earthquakes, live, end to end.")
    parser.add_argument(
        "--bundle", type=Path, default=ROOT / "models" / "small", help="model bundle (default %(default)s)"
    )
    parser.add_argument("--speed", type=float, default=SPEED, help="data seconds per second (default %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for data, logs and picture (default %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; its exit status."""
    options = parse(arguments)
    console = Console(highlight=False)
    try:
        return asyncio.run(_run(options, console))
    except (DemoError, OnsetError, FileNotFoundError) as error:
        console.print(f"demo: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("demo: stopped")
        return 130


async def _run(options: argparse.Namespace, console: Console) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a background job would inherit it as ignored
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    begun, out = time.monotonic(), options.out.resolve()
    bundle = load_bundle(options.bundle)
    served = prepare(out / "data")
    stations = {(trace.stats.network, trace.stats.station) for one in served for trace in one.stream}
    console.print(
        f"{len(stations)} stations, {len(served)} records of real earthquakes (1990-2010) from obspy's package, served "
        f"by SeedLink {options.speed:g} times faster than they happened and picked by {bundle.label}.",
        soft_wrap=True,
    )
    judge, table = Judge(load_onsets()), PickTable(console)
    with table.shown():
        await _pick(options, out, served, judge, table)
    if table.is_live:
        console.print(table.whole())
    picture = out / "picks.png"
    _draw(picture, served, options.bundle, judge, f"Onset demo: picks of {bundle.label}")
    console.print()
    for line in summary(judge):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    good = passed(judge)
    took = f"{time.monotonic() - begun:.0f} s"
    console.print("Passed" if good else "Failed", "in", took, style="bold green" if good else "bold red")
    _advise(console, options, picture)
    return 0 if good else 1


async def _pick(options: argparse.Namespace, out: Path, served: list[Served], judge: Judge, table: PickTable) -> None:
    """Start everything, serve all data, and end everything; raises DemoError."""
    duration_s = _duration_s(served) / options.speed
    seedlink_port, mqtt_port = free_port(), free_port()
    replay = Child(
        "the SeedLink server (streamer replay)",
        python(
            "streamer", "replay", "--host", HOST, "--port", str(seedlink_port), "--speed", str(options.speed),
            "--wait-for-client", "--linger-s", str(LINGER_S), out / "data",
        ),
        out / "replay.log",
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        table.status("starting the SeedLink server and the MQTT broker")
        await stack.enter_async_context(replay)
        broker = await stack.enter_async_context(Broker(out, mqtt_port))
        await replay.ready(seedlink_port)

        def add(pick: ArrivedPick) -> None:
            table.add(judge.judge(pick))

        subscriber = Subscriber(mqtt_port, broker.protocol, served, add)
        listening = asyncio.create_task(subscriber.run(), name="demo subscriber")
        stack.push_async_callback(cancelled, listening)
        await _subscribed(subscriber, listening)
        settings = _write_settings(options, out, served, seedlink_port, mqtt_port, broker.protocol)
        daemon = await stack.enter_async_context(
            Child("the daemon (streamer run)", python("streamer", "run", "--config", settings), out / "daemon.log")
        )
        table.status(f"broker: {broker.name}; logs: {_short(out)}/*.log; streaming takes {duration_s:.0f} s")
        try:
            async with asyncio.timeout(START_S + duration_s + END_S):
                await _until_served(replay, daemon, listening)
                table.status("all data served; waiting for the last picks")
                await subscriber.quiet(QUIET_S)
                await daemon.stop()  # it publishes what it still holds
                await subscriber.quiet(QUIET_S)
        except TimeoutError:
            raise DemoError(
                f"not done after {START_S + duration_s + END_S:.0f} s: see {out}/replay.log and {out}/daemon.log"
            ) from None


async def _subscribed(subscriber: Subscriber, listening: asyncio.Task[None]) -> None:
    """Until the subscription stands; raises DemoError where it fails."""
    subscribed = asyncio.create_task(subscriber.subscribed.wait())
    await asyncio.wait([subscribed, listening], return_when=asyncio.FIRST_COMPLETED)
    subscribed.cancel()
    if listening.done():
        listening.result()


async def _until_served(replay: Child, daemon: Child, listening: asyncio.Task[None]) -> None:
    """Until the SeedLink server has served all and ended; raises DemoError where anything ends before."""
    replayed, daemon_ended = asyncio.create_task(replay.wait()), asyncio.create_task(daemon.wait())
    try:
        await asyncio.wait([replayed, daemon_ended, listening], return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            listening.result()
        if daemon_ended.done():
            raise daemon.failure()
        if replayed.result() != 0:
            raise replay.failure()
    finally:
        replayed.cancel()
        daemon_ended.cancel()


def _write_settings(
    options: argparse.Namespace, out: Path, served: list[Served], seedlink_port: int, mqtt_port: int, protocol: str
) -> Path:
    """The daemon's settings, as a user would write them."""
    stations = sorted({(trace.stats.network, trace.stats.station) for one in served for trace in one.stream})
    streams = "".join(f'  {{network = "{network}", station = "{station}"}},\n' for network, station in stations)
    bundle = Path(os.path.relpath(options.bundle.resolve(), out)).as_posix()
    path = out / "demo.toml"
    path.write_text(
        f"""# Written by the demo at each run; configs/streamer.toml explains every key.
author = "onset-demo"

[bundle]
path = '{bundle}'

[[seedlink]]
host = "{HOST}"
port = {seedlink_port}
streams = [
{streams}]

[mqtt]
host = "{HOST}"
port = {mqtt_port}
protocol = "{protocol}"
""",
        encoding="utf-8",
    )
    return path


def _draw(path: Path, served: list[Served], bundle: Path, judge: Judge, title: str) -> None:
    from demo.picture import save_picture
    from demo.traces import station_traces

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a missing font is no concern of a demo
        save_picture(path, station_traces(served, bundle), load_onsets(), judge.verdicts, title)


def _advise(console: Console, options: argparse.Namespace, picture: Path) -> None:
    data, settings = _short(picture.parent / "data"), _short(picture.parent / "demo.toml")
    console.print(
        f"""
Picture: {_short(picture)}   settings: {settings}   logs: {_short(picture.parent)}/*.log

What to try next:
  your own data     streamer replay --shift start --repack-s 1 my.mseed     then point [[seedlink]] of a copy of
                    configs/streamer.toml to it and: streamer run --config my.toml
  real time         python -m demo.run --speed 1
  a live network    put your SeedLink server and stations into [[seedlink]] of that copy
  see the messages  streamer watch --json     the payload is described in docs/mqtt.md
  these records     {data}, onsets: demo/reference_onsets.csv""",
        markup=False,
        soft_wrap=True,
    )


def _duration_s(served: list[Served]) -> float:
    """From the first sample served to the last."""
    starts = [trace.stats.starttime.ns + one.shift_ns for one in served for trace in one.stream]
    ends = [trace.stats.endtime.ns + one.shift_ns for one in served for trace in one.stream]
    return float(max(ends) - min(starts)) / 1e9


def _short(path: Path) -> str:
    """The path as seen from here, where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


if __name__ == "__main__":
    sys.exit(main())
