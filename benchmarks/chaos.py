"""Does the daemon lose, double or invent picks, whatever happens around it?

    python benchmarks/chaos.py [BUNDLE] [--seconds 1600] [--speed 10] [--stations 50] [--seed 1] [--folder KEPT]

Mosquitto with persistence, two SeedLink servers (v3 with miniSEED 2, v4 with miniSEED 3) and the daemon, each a
process; a subscriber whose session outlives connections. An undisturbed run is the
reference for run A (faults that destroy no data) and run B (faults that do). About ten minutes; exit status 1 where a
bar was missed. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from chaos_data import plan, write_faults
from chaos_report import Findings, bars, markdown, missed
from chaos_script import acts, perform
from chaos_stage import Outcome, Scene, Stage, build, names
from machine import load, look
from rig import ROOT, RigError, end_in_order

from picker.bundle import load_bundle
from picker.errors import OnsetError

RESULTS = Path(__file__).parent / "results"
WARM_S = 8.0
"""No fault sooner after a run's start (s)."""
AFTER_S = 4.7
"""So long after a fault its station has an earthquake: the pick must say what was near."""
DISTRIBUTIONS = ("numpy", "onnxruntime", "aiomqtt", "seedlink-client", "pymseed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write the report. Exit status 0, 1 where a bar was missed, 2 where it cannot run."""
    options = _parser().parse_args(arguments)
    end_in_order()
    try:
        with tempfile.TemporaryDirectory(prefix="onset-chaos-") as folder:
            return _measure(options, options.folder or Path(folder))
    except (OnsetError, RigError) as error:
        say(f"chaos: {error}")
        return 2


def _measure(options: argparse.Namespace, folder: Path) -> int:
    load_bundle(options.bundle)
    folder.mkdir(exist_ok=True)
    machine, before = look(DISTRIBUTIONS, None), load()
    say(f"writing {options.stations} stations of {options.seconds:g} s")
    faults = plan(names(options.stations), options.seconds * 0.2, options.seconds * 0.45, options.seed)
    after_s = {fault.station: fault.end_s + AFTER_S for fault in faults}
    scene = build(folder, options.bundle, options.stations, options.seconds, options.speed, after_s)
    reference = asyncio.run(_run(scene, "reference"))
    gentle = asyncio.run(_run(scene, "a", "--shaken", script_seed=options.seed))
    harsh = asyncio.run(_run(scene, "b", "--faults", str(write_faults(folder / "faults.json", faults))))
    findings = Findings(
        machine=machine, scene=scene, faults=faults, reference=reference, a=gentle, b=harsh, seed=options.seed,
        loads=(before, load()),
    )  # fmt: skip
    text = markdown(findings)
    out: Path = options.out or RESULTS / f"chaos_{machine.slug}_{machine.started:%Y-%m-%d}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(text)
    for key, value in bars(findings).items():
        print(f"{key}: {value}")
    say(f"written to {out}")
    return 1 if missed(findings) else 0


async def _run(scene: Scene, name: str, *server_options: str, script_seed: int | None = None) -> Outcome:
    say(f"run {name}: {scene.seconds / scene.speed:.0f} s")
    async with Stage(scene, name, server_options) as stage:
        if script_seed is None:
            outcome = await stage.play()
        else:
            last_s = scene.seconds / scene.speed - 10.0
            await perform(stage, acts(WARM_S, last_s, script_seed))
            outcome = await stage.play()
    say(f"run {name}: {len(outcome.heard)} messages in {outcome.seconds:.0f} s, daemon lives {outcome.daemon_lives}")
    return outcome


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Picks under faults against picks without.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", type=Path, default=ROOT / "models" / "small", help="bundle folder")
    parser.add_argument("--seconds", type=float, default=1600.0, help="length of the data of a run")
    parser.add_argument("--speed", type=float, default=10.0, help="data seconds per second")
    parser.add_argument("--stations", type=int, default=50, help="stations in all, half at each server")
    parser.add_argument("--seed", type=int, default=1, help="of all faults")
    parser.add_argument("--folder", type=Path, help="keep logs, data and state there")
    parser.add_argument("--out", type=Path, help="results file; without it, one in results/ named by machine and day")
    return parser


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
