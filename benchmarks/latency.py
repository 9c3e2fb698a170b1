"""How long from the packet that completes a chunk to the broker's acknowledgement of the pick in it?

    python benchmarks/latency.py [BUNDLE] [--stations 200] [--seconds 75] [--folder KEPT]

200 stations in real time, records of one second, through the real daemon on loopback, once with the model and once with
a graph that does next to nothing: the floor. Load generator, broker, daemon and this script are processes of their own,
and the processor time of each is printed. Exit status 1 where a bar was missed. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rig
from machine import Machine, load, look
from rig_idle import write_idle_bundle
from rig_subscriber import Heard, Subscriber
from rig_waves import COMPONENTS, RATE_HZ, SECOND_NS, quakes, short_records, source_id, waveforms

from picker.bundle import load_bundle
from picker.errors import OnsetError
from streamer.instant import utc_ns

RESULTS = Path(__file__).parent / "results"
MEDIAN_S, P99_S = 0.150, 0.500
WARM_S = 12.0
"""What is picked sooner after the start does not count."""
QUAKE_EVERY_S = 9.0
POOL = 20
"""Stations with waveforms of their own; the others have the same ones."""
PARTS = ("queue_s", "inference_s", "decision_s", "delivery_s")
"""The first three by the daemon's own account; ``delivery`` is the rest: sync of the outbox, broker, this script."""
PROBE_S = 1.0
"""So often a page is written and synced beside the outbox, to know what the disk itself takes."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Of one run: latencies (s, sorted), their parts PARTS, shares of a core by process, and how
    long the disk took to sync a page of ours meanwhile (s)."""

    total_s: Sequence[float]
    parts_s: Mapping[str, Sequence[float]]
    shares: Mapping[str, float]
    syncs_s: Sequence[float] = ()

    def quantile(self, share: float) -> float:
        """Latency that so many stay below, in seconds; infinite without picks."""
        return float(np.quantile(self.total_s, share)) if self.total_s else float("inf")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write the report. Exit status 0, 1 where a bar was missed, 2 where it cannot run."""
    options = _parser().parse_args(arguments)
    rig.end_in_order()
    machine, before = look(("numpy", "onnxruntime", "pymseed", "seedlink-client", "aiomqtt"), None), load()
    try:
        load_bundle(options.bundle)
        with tempfile.TemporaryDirectory(prefix="onset-latency-") as kept:
            folder: Path = options.folder or Path(kept)
            idle = write_idle_bundle(folder / "idle")
            runs = {
                name: asyncio.run(measure(bundle, folder / name, options))
                for name, bundle in (("floor", idle), ("model", options.bundle))
            }
    except (OnsetError, rig.RigError) as error:
        print(f"latency: {error}", file=sys.stderr)
        return 2
    figures = bars(runs)
    text = markdown(machine, (before, load()), runs, figures, options)
    out: Path = options.out or RESULTS / f"latency_{machine.slug}_{machine.started:%Y-%m-%d}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(text)
    for key, value in figures.items():
        print(f"{key}: {value}")
    return 1 if missed(figures) else 0


def write_stations(folder: Path, count: int, seconds: float, start_ns: int) -> None:
    """miniSEED of ``count`` stations in records of one second."""
    folder.mkdir(parents=True)
    pool = [waveforms(seconds, quakes(seconds, QUAKE_EVERY_S, seed, 4.0), seed, 2.0) for seed in range(POOL)]
    for number in range(count):
        code = f"V{number + 1:04d}"
        with (folder / f"{code}.mseed").open("wb") as file:
            for component, line in zip(COMPONENTS, pool[number % POOL], strict=True):
                file.writelines(short_records(line, source_id("XX", code, component), start_ns, RATE_HZ))


async def measure(bundle: Path, folder: Path, options: argparse.Namespace) -> Found:
    """One run."""
    stations, seconds = options.stations, options.seconds
    ports = {name: rig.free_port() for name in ("server", "broker", "metrics")}
    began_s = round(time.time() + 20.0 + stations / 10)  # so long it takes to write and index the data
    await asyncio.to_thread(write_stations, folder / "data", stations, seconds, began_s * SECOND_NS)
    servers = [rig.Server(ports["server"], "4", 30.0)]
    config = rig.write_config(folder, bundle, servers, ports["broker"], ports["metrics"])
    words = (str(ports["server"]), str(folder / "data"), "1", str(began_s), "--spread")
    children = {
        "broker": rig.mosquitto(folder, ports["broker"]),
        "load generator": rig.script("server", folder, "rig_server.py", *words),
        "daemon": rig.daemon(folder, config),
    }
    subscriber = Subscriber(ports["broker"])
    try:
        for child in children.values():
            child.start()
            await asyncio.to_thread(child.wait_ready, 120.0)
        listening = asyncio.create_task(subscriber.run())
        await asyncio.sleep(max(0.0, began_s + WARM_S - time.time()))
        before = {name: rig.usage(child.number).cpu_s for name, child in children.items()}
        syncs_s: list[float] = []
        probing = asyncio.create_task(probe(folder, syncs_s))
        own_s, begun_s = time.process_time(), time.time()
        await asyncio.sleep(max(1.0, began_s + seconds - time.time()))
        wall_s = time.time() - begun_s
        shares = {name: (rig.usage(child.number).cpu_s - before[name]) / wall_s for name, child in children.items()}
        shares["subscriber (this script)"] = (time.process_time() - own_s) / wall_s
        await asyncio.sleep(3.0)
        listening.cancel()
        probing.cancel()
        await asyncio.gather(listening, probing, return_exceptions=True)
    finally:
        for child in children.values():
            child.kill()
    return evaluate([one for one in subscriber.heard if begun_s <= one.at_s <= begun_s + wall_s], shares, syncs_s)


async def probe(folder: Path, syncs_s: list[float]) -> None:
    """Write and sync a page in ``folder`` every PROBE_S, and add how long each took (s), until cancelled."""
    page = b"x" * 4096

    def once() -> float:
        begun_s = time.perf_counter()
        with (folder / "probe").open("wb") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        return time.perf_counter() - begun_s

    while True:
        syncs_s.append(await asyncio.to_thread(once))
        await asyncio.sleep(PROBE_S)


def evaluate(heard: Sequence[Heard], shares: Mapping[str, float], syncs_s: Sequence[float] = ()) -> Found:
    """Latencies of the picks: from the arrival that the message says to when the subscriber had it."""
    total_s, parts_s = [], {part: list[float]() for part in PARTS}
    for one in heard:
        latency = one.onset["latency"]
        arrived_s = utc_ns(one.onset["decided_time"]) / 1e9 + latency["data_s"]
        total_s.append(one.at_s - arrived_s)
        parts = {**latency, "delivery_s": total_s[-1] - sum(latency[part] for part in PARTS[:-1])}
        for part in PARTS:
            parts_s[part].append(parts[part])
    return Found(total_s=sorted(total_s), parts_s=parts_s, shares=shares, syncs_s=syncs_s)


def bars(runs: Mapping[str, Found]) -> dict[str, str]:
    """The figures that are quoted, each under its key."""
    figures = {}
    for name, found in runs.items():
        figures[f"{name}_picks"] = str(len(found.total_s))
        for key, share in (("median", 0.5), ("p99", 0.99), ("most", 1.0)):
            figures[f"{name}_{key}_ms"] = f"{found.quantile(share) * 1e3:.0f}"
    return figures


def missed(figures: Mapping[str, str]) -> list[str]:
    """Bars that do not hold."""
    out = ["model_median_ms"] if float(figures["model_median_ms"]) > MEDIAN_S * 1e3 else []
    out += ["model_p99_ms"] if float(figures["model_p99_ms"]) > P99_S * 1e3 else []
    return out + (["model_picks"] if int(figures["model_picks"]) < 500 else [])


def markdown(
    machine: Machine,
    loads: tuple[float | None, float | None],
    runs: Mapping[str, Found],
    figures: Mapping[str, str],
    options: argparse.Namespace,
) -> str:
    """The report."""
    failed = missed(figures)
    lines = [
        "# Latency",
        "",
        *rig.facts(machine, loads),
        f"- {options.stations} stations in real time, records of 1 s, SeedLink 4, bundle {options.bundle.name}",
        "- from the arrival of the record that completed the chunk (`decided_time` + `latency.data_s` of the message)",
        "  to when a subscriber on the same machine had it: the broker acknowledges and forwards in one turn",
        "",
        f"**{'Bars missed: ' + ', '.join(failed) if failed else 'All bars hold.'}**",
        "",
        f"| run | picks | median (ms) | p99 | most | {' | '.join(f'{part[:-2]}, median, p99' for part in PARTS)} |",
        "|---|---|---|---|---|" + "---|" * len(PARTS),
    ]
    for name, found in runs.items():
        parts = [_middle_and_p99(found.parts_s[part]) for part in PARTS]
        cells = [figures[f"{name}_{key}"] for key in ("picks", "median_ms", "p99_ms", "most_ms")]
        lines.append(f"| {' | '.join([name, *cells, *parts])} |")
    lines += ["", *(_disk(name, found) for name, found in runs.items())]
    lines += ["", "| process | share of a core, floor | with the model |", "|---|---|---|"]
    for process in runs["model"].shares:
        lines.append(f"| {process} | {runs['floor'].shares[process]:.1%} | {runs['model'].shares[process]:.1%} |")
    return "\n".join([*lines, "", "```", *(f"{key}: {value}" for key, value in figures.items()), "```", ""])


def _middle_and_p99(values_s: Sequence[float]) -> str:
    return "{:.1f}, {:.1f}".format(*(np.quantile(values_s, (0.5, 0.99)) * 1e3)) if values_s else ""


def _disk(name: str, found: Found) -> str:
    if not found.syncs_s:
        return f"- disk, run {name}: not looked at"
    middle, most = np.median(found.syncs_s) * 1e3, max(found.syncs_s) * 1e3
    return f"- disk, run {name}: sync of a page once a second, median {middle:.0f} ms, most {most:.0f} ms"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="From packet to acknowledged pick.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", type=Path, default=rig.ROOT / "models" / "small", help="bundle folder")
    parser.add_argument("--stations", type=int, default=200, help="stations of three components")
    parser.add_argument("--seconds", type=float, default=75.0, help="length of a run")
    parser.add_argument("--folder", type=Path, help="keep logs, data and state there")
    parser.add_argument("--out", type=Path, help="results file; without it, one in results/ named by machine and day")
    return parser


if __name__ == "__main__":
    sys.exit(main())
