"""Does the daemon grow? A day of 20 stations through it, as fast as it takes them.

    python benchmarks/soak.py [BUNDLE] [--hours 24] [--stations 20] [--most-min M] [--folder KEPT]

Real Mosquitto, the real daemon with outbox and snapshot, and a SeedLink 4 server in a process of its own that sends an
hour of made-up data over and over, moved in time, as fast as the daemon takes it. The first data minutes give the
estimate of how long it will take. Exit status 1 where a bar was missed. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import rig
from machine import Machine, load, look
from rig_waves import RATE_HZ

from picker.bundle import load_bundle
from picker.errors import OnsetError

RESULTS = Path(__file__).parent / "results"
WARM_UP_H = 2.0
GROWTH = 0.02
"""Most that the resident memory may differ between the end of the warm-up and the end, of the former."""
SAMPLE_S = 2.0
ESTIMATE_H = 0.25
CHUNK_S = 64 / RATE_HZ


class Point(NamedTuple):
    """The daemon at one moment, after so many hours of data."""

    hours: float
    wall_s: float
    resident_mb: float
    files: int
    threads: int
    tasks: int
    """Tasks of the event loop where the daemon says, else -1."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write the report. Exit status 0, 1 where a bar was missed, 2 where it cannot run."""
    options = _parser().parse_args(arguments)
    rig.end_in_order()
    machine, before = look(("numpy", "onnxruntime", "pymseed", "seedlink-client", "aiomqtt"), None), load()
    try:
        load_bundle(options.bundle)
        with tempfile.TemporaryDirectory(prefix="onset-soak-") as folder:
            points = soak(options, options.folder or Path(folder))
    except (OnsetError, rig.RigError) as error:
        say(f"soak: {error}")
        return 2
    figures = bars(points, options.hours)
    text = markdown(machine, (before, load()), points, figures, options)
    out: Path = options.out or RESULTS / f"soak_{machine.slug}_{machine.started:%Y-%m-%d}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(text)
    for key, value in figures.items():
        print(f"{key}: {value}")
    return 1 if missed(figures) else 0


def soak(options: argparse.Namespace, folder: Path) -> list[Point]:
    """All points of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = {name: rig.free_port() for name in ("server", "broker", "metrics")}
    server = rig.script(
        "server", folder, "soak_server.py", str(ports["server"]), str(options.stations), str(options.hours)
    )
    servers = [rig.Server(ports["server"], "4", 30.0)]
    config = rig.write_config(folder, options.bundle, servers, ports["broker"], ports["metrics"], every_s=30.0)
    children = [rig.mosquitto(folder, ports["broker"]), server, rig.daemon(folder, config)]
    try:
        for child in children:
            child.start()
            child.wait_ready(180.0)
        return _watch(children[2], ports["metrics"], options)
    finally:
        for child in children:
            child.kill()


def _watch(daemon: rig.Child, port: int, options: argparse.Namespace) -> list[Point]:
    stations, hours = options.stations, options.hours
    points: list[Point] = []
    begun_s = moved_s = time.monotonic()
    estimated = False
    while daemon.running:
        time.sleep(SAMPLE_S)
        counts, wall_s = rig.metrics(port), time.monotonic() - begun_s
        used = rig.usage(daemon.number)
        done_h = rig.total(counts, "onset_chunks_total") * CHUNK_S / 3600 / stations
        tasks = round(rig.total(counts, "onset_tasks")) or -1
        if points and done_h <= points[-1].hours:
            if done_h >= hours * 0.999 or time.monotonic() - moved_s > 30:
                return points
            continue
        moved_s = time.monotonic()
        if wall_s > options.most_min * 60:
            say(f"stopped after {wall_s / 60:.0f} min at {done_h:.1f} h of data")
            return points
        points.append(Point(done_h, wall_s, used.resident_bytes / 1e6, used.files, used.threads, tasks))
        if not estimated and done_h >= min(ESTIMATE_H, hours / 10):
            estimated = True
            pace = done_h / wall_s * 60
            say(f"{pace:.1f} h of data a minute: {hours:g} h take {hours / pace:.1f} min")
    raise rig.RigError("the daemon has ended: " + daemon.log.read_text(errors="replace")[-1500:])


def bars(points: Sequence[Point], hours: float) -> dict[str, str]:
    """The figures that are quoted, each under its key."""
    warm = [point for point in points if point.hours >= min(WARM_UP_H, hours / 4)]
    tenth = max(1, len(warm) // 10)
    first, last = (_middle([point.resident_mb for point in part]) for part in (warm[:tenth], warm[-tenth:]))
    figures = {
        "hours": f"{points[-1].hours:.2f}",
        "minutes": f"{points[-1].wall_s / 60:.1f}",
        "hours_a_minute": f"{points[-1].hours / points[-1].wall_s * 60:.2f}",
        "resident_mb_after_warm_up": f"{first:.1f}",
        "resident_mb_at_the_end": f"{last:.1f}",
        "growth": f"{last / first - 1:.4f}",
    }
    for name in ("files", "threads", "tasks"):
        values = [getattr(point, name) for point in warm]
        tenths = [_middle(values[:tenth]), _middle(values[-tenth:])]
        figures[f"{name}_first_last_most"] = f"{tenths[0]:g} {tenths[1]:g} {max(values)}"
    return figures


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def missed(figures: dict[str, str]) -> list[str]:
    """Bars that do not hold."""
    out = ["growth"] if abs(float(figures["growth"])) > GROWTH else []
    for name in ("files", "threads", "tasks"):
        first, last, _ = figures[f"{name}_first_last_most"].split()
        out += [name] if float(last) > float(first) else []
    return out


def markdown(
    machine: Machine,
    loads: tuple[float | None, float | None],
    points: Sequence[Point],
    figures: dict[str, str],
    options: argparse.Namespace,
) -> str:
    """The report, with a row for about each twentieth of the run."""
    failed = missed(figures)
    lines = [
        "# Soak",
        "",
        *rig.facts(machine, loads),
        f"- {options.stations} stations, {points[-1].hours:.1f} h of {options.hours:g} h of data, SeedLink 4,"
        f" bundle {options.bundle.name}",
        "- files: open descriptors in /proc; threads: of the process, in /proc; tasks: of the event loop, by",
        "  the metric `onset_tasks` (-1: the daemon has no such metric)",
        "",
        f"**{'Bars missed: ' + ', '.join(failed) if failed else 'All bars hold.'}**",
        "",
        "| hours of data | minutes | resident MB | files | threads | tasks |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one.hours:.2f} | {one.wall_s / 60:.1f} | {one.resident_mb:.1f} | {one.files} | {one.threads} "
            f"| {one.tasks} |"
            for one in points[:: max(1, len(points) // 24)]
        ),
        "",
        "```",
        *(f"{key}: {value}" for key, value in figures.items()),
        "```",
        "",
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="A day of stations through the daemon.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", type=Path, default=rig.ROOT / "models" / "small", help="bundle folder")
    parser.add_argument("--hours", type=float, default=24.0, help="hours of data")
    parser.add_argument("--stations", type=int, default=20, help="stations of three components")
    parser.add_argument("--most-min", type=float, default=math.inf, help="stop after so many minutes, whatever is done")
    parser.add_argument("--folder", type=Path, help="keep logs and state there")
    parser.add_argument("--out", type=Path, help="results file; without it, one in results/ named by machine and day")
    return parser


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
