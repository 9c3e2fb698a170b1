"""Can bytes from outside crash, stall or mislead the daemon?

    python benchmarks/fuzz.py [--items 200000] [--seed 1] [--hostile-s 40] [BUNDLE]

Mutated miniSEED 2 and 3 records through the decoder, mutated SeedLink 3 and 4 packets through socket, client and
decoder, a process each; then the daemon with six hostile SeedLink servers and one honest one, and again with a hostile
broker. Minutes; exit status 1 where a bar was missed. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rig
from chaos_stage import build
from fuzz_hostile import SEEDLINK
from machine import Machine, load, look

from picker.errors import OnsetError

RESULTS = Path(__file__).parent / "results"
WORK = (("records", 2), ("records", 3), ("packets", 3), ("packets", 4))
GROWTH_MB = 150.0
"""Memory that hostile peers may cost: the list of stations alone may be 64 MB."""
PIECE = 10_000
"""Items a process: one that crashes loses no more, and names the seed that did it."""


class Fuzzed(NamedTuple):
    """What came of one kind of work."""

    name: str
    items: int
    found: dict[str, int]
    crashes: list[str]
    slowest_s: float


class Besieged(NamedTuple):
    """The daemon between hostile peers: its memory, and what the honest server delivered meanwhile."""

    name: str
    before_mb: float
    most_mb: float
    records: float
    alive: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write the report. Exit status 0, 1 where a bar was missed, 2 where it cannot run."""
    options = _parser().parse_args(arguments)
    rig.end_in_order()
    machine, before = look(("pymseed", "seedlink-client", "aiomqtt", "numpy"), None), load()
    try:
        fuzzed = [fuzz(kind, version, options.items // len(WORK), options.seed) for kind, version in WORK]
        besieged = []
        for name in ("none", "seedlink", "broker") if options.hostile_s > 0 else ():
            with tempfile.TemporaryDirectory(prefix="onset-fuzz-") as folder:
                besieged.append(besiege(name, Path(folder), options.bundle, options.hostile_s))
    except (OnsetError, rig.RigError) as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2
    figures = bars(fuzzed, besieged)
    text = markdown(machine, (before, load()), fuzzed, besieged, figures)
    out: Path = options.out or RESULTS / f"fuzz_{machine.slug}_{machine.started:%Y-%m-%d}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(text)
    for key, value in figures.items():
        print(f"{key}: {value}")
    return 1 if missed(figures) else 0


def fuzz(kind: str, version: int, items: int, seed: int) -> Fuzzed:
    """So many items in processes of ``PIECE`` each."""
    done, crashes, found, slowest_s = 0, list[str](), dict[str, int](), 0.0
    with tempfile.NamedTemporaryFile(prefix="onset-fuzz-") as hand:
        while done < items:
            count = min(PIECE, items - done)
            words = [kind, str(version), str(seed), str(count), hand.name]
            result = _work(words, Path(hand.name))
            if isinstance(result, str):
                crashes.append(f"{kind} {version}, seed {seed}: {result}")
                done, seed = done + count, seed + 1
                continue
            for key, value in result["found"].items():
                found[key] = found.get(key, 0) + value
            slowest_s = max(slowest_s, result["slowest_s"])
            done, seed = done + result["items"], seed + 1
            print(f"{kind} {version}: {done} of {items}", file=sys.stderr)
    return Fuzzed(f"{kind} {version}", done, found, crashes, slowest_s)


def _work(words: Sequence[str], hand: Path) -> dict[str, Any] | str:
    """What the process found, or how it ended instead."""
    command = [sys.executable, str(rig.HERE / "fuzz_work.py"), *words]
    environment = {**os.environ, "PYTHONPATH": str(rig.ROOT)}
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    except subprocess.TimeoutExpired:
        return f"no end after 900 s, at item {hand.read_text().strip()}"
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or [""])[-1]
        return f"exit status {run.returncode} at item {hand.read_text().strip()}: {last}"
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


def besiege(name: str, folder: Path, bundle: Path, for_s: float) -> Besieged:
    """The daemon with an honest server of four stations and, ``name`` says where, hostile peers."""
    build(folder, bundle, 4, for_s + 30.0, 1.0)
    ports = {"honest": rig.free_port(), "broker": rig.free_port(), "metrics": rig.free_port()}
    children = [
        rig.script("honest", folder, "rig_server.py", str(ports["honest"]), str(folder / "XX"), "1", str(time.time()))
    ]
    servers = [rig.Server(ports["honest"], "4", 20.0)]
    if name == "broker":
        children.append(rig.script("broker", folder, "fuzz_hostile.py", "broker", str(ports["broker"])))
    else:
        children.append(rig.mosquitto(folder, ports["broker"]))
    for hostile in SEEDLINK if name == "seedlink" else ():
        port = rig.free_port()
        children.append(rig.script(hostile, folder, "fuzz_hostile.py", hostile, str(port)))
        servers.append(rig.Server(port, "4", 10.0))
    config = rig.write_config(folder, bundle, servers, ports["broker"], ports["metrics"])
    daemon = rig.daemon(folder, config)
    children.append(daemon)
    try:
        for child in children:
            child.start()
            child.wait_ready()
        return _watch(name, daemon, ports["metrics"], f"127.0.0.1:{ports['honest']}", for_s)
    finally:
        for child in children:
            child.kill()


def _watch(name: str, daemon: rig.Child, port: int, honest: str, for_s: float) -> Besieged:
    first, most, begun_s = 0, 0, time.monotonic()
    label = f'server="{honest}"'
    delivered = list[float]()
    while time.monotonic() < begun_s + for_s and daemon.running:
        here = rig.usage(daemon.number).resident_bytes
        first, most = first or here, max(most, here)
        delivered.append(rig.total(rig.metrics(port), "onset_records_total", label))
        time.sleep(0.5)
    begin, end = delivered[len(delivered) // 2], delivered[-1]

    return Besieged(name, first / 1e6, most / 1e6, end - begin, daemon.running)


def bars(fuzzed: Sequence[Fuzzed], besieged: Sequence[Besieged]) -> dict[str, str]:
    """The figures that are quoted, each under its key."""
    figures = {
        "items": str(sum(one.items for one in fuzzed)),
        "crashes_or_hangs": str(sum(len(one.crashes) for one in fuzzed)),
        "wrong_samples": str(sum(one.found.get("wrong", 0) for one in fuzzed)),
        "accepted": str(sum(one.found.get("accepted", 0) for one in fuzzed)),
        "slowest_s": f"{max(one.slowest_s for one in fuzzed):.3f}",
    }
    calm = next((one for one in besieged if one.name == "none"), None)
    for one in besieged:
        if calm is not None and one is not calm:
            figures[f"hostile_{one.name}_growth_mb"] = f"{one.most_mb - calm.most_mb:.1f}"
            figures[f"hostile_{one.name}_daemon_lives"] = str(one.alive)
            figures[f"hostile_{one.name}_honest_records"] = f"{one.records:.0f} (undisturbed {calm.records:.0f})"
            figures[f"hostile_{one.name}_honest_share"] = f"{one.records / max(calm.records, 1):.2f}"
    return figures


def missed(figures: dict[str, str]) -> list[str]:
    """Bars that do not hold."""
    out = [key for key in ("crashes_or_hangs", "wrong_samples") if figures[key] != "0"]
    for key, value in figures.items():
        bad = (
            (key.endswith("_growth_mb") and float(value) > GROWTH_MB)
            or (key.endswith("_daemon_lives") and value != "True")
            or (key.endswith("_honest_share") and float(value) < 0.8)
        )
        out += [key] if bad else []
    return out


def markdown(
    machine: Machine, loads: tuple[float | None, float | None], fuzzed: Sequence[Fuzzed],
    besieged: Sequence[Besieged], figures: dict[str, str],
) -> str:  # fmt: skip
    """The report."""
    failed = missed(figures)
    lines = [
        "# Fuzz",
        "",
        *rig.facts(machine, loads),
        "",
        f"**{'Bars missed: ' + ', '.join(failed) if failed else 'All bars hold.'}**",
        "",
        "| work | items | slowest (s) | what came of them |",
        "|---|---|---|---|",
        *(
            f"| {one.name} | {one.items} | {one.slowest_s:.3f} | "
            f"{', '.join(f'{key} {value}' for key, value in sorted(one.found.items()))} |"
            for one in fuzzed
        ),
        *(f"- crash: {crash}" for one in fuzzed for crash in one.crashes),
        "",
        "| hostile | memory at first (MB) | at most | records of the honest server, second half |",
        "|---|---|---|---|",
        *(f"| {one.name} | {one.before_mb:.1f} | {one.most_mb:.1f} | {one.records:.0f} |" for one in besieged),
        "",
        "```",
        *(f"{key}: {value}" for key, value in figures.items()),
        "```",
        "",
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Mutated records and packets, hostile peers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("bundle", nargs="?", type=Path, default=rig.ROOT / "models" / "small", help="bundle folder")
    parser.add_argument("--items", type=int, default=200_000, help="mutated records and packets in all")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations")
    parser.add_argument("--hostile-s", type=float, default=40.0, help="seconds between hostile peers; 0 leaves it out")
    parser.add_argument("--out", type=Path, help="results file; without it, one in results/ named by machine and day")
    return parser


if __name__ == "__main__":
    sys.exit(main())
