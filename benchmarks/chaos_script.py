"""The script of run A: what is done to processes, connections and disk, when, drawn from a seed."""

from __future__ import annotations

import asyncio
import random
import time
from typing import NamedTuple

from chaos_stage import Stage

CAST = (
    ("kill_daemon", 4),
    ("kill_broker", 2),
    ("kill_server", 2),
    ("half_open_server", 2),
    ("half_open_broker", 1),
    ("disk_full", 1),
)
"""Faults that destroy no data, and how often each comes."""
DISK_FULL_S = 12.0


class Act(NamedTuple):
    """A fault and when it comes, in seconds from the start of the run."""

    at_s: float
    kind: str


def acts(first_s: float, last_s: float, seed: int) -> list[Act]:
    """The faults in order of time: one at a random moment of each of as many equal parts."""
    chance = random.Random(seed)
    kinds = [kind for kind, count in CAST for _ in range(count)]
    chance.shuffle(kinds)
    part_s = (last_s - first_s) / len(kinds)
    return [Act(first_s + part_s * (turn + chance.random()), kind) for turn, kind in enumerate(kinds)]


async def perform(stage: Stage, script: list[Act]) -> None:
    """Do them all, each at its time or as soon as the one before is over (a full disk does not hold up the next)."""
    beside: list[asyncio.Task[None]] = []
    for turn, act in enumerate(script):
        await asyncio.sleep(max(0.0, stage.began_s + act.at_s - time.time()))
        if act.kind == "disk_full":
            beside.append(asyncio.create_task(_disk_full(stage)))
        else:
            await _perform(stage, act.kind, turn % 2)
    await asyncio.gather(*beside)


async def _perform(stage: Stage, kind: str, server: int) -> None:
    network = stage.servers[server].name
    match kind:
        case "kill_daemon":
            stage.note("kill -9 of the daemon")
            await stage.kill_daemon()
            stage.note("daemon serves again")
        case "kill_broker":
            stage.note("kill -9 of the broker")
            await stage.kill_broker()
            stage.note("broker is back")
        case "kill_server":
            stage.note(f"kill -9 of {network}")
            await stage.kill_server(server)
            stage.note(f"{network} is back")
        case "half_open_server":
            stage.note(f"{stage.proxies[server].go_silent()} connections to {network} go silent")
        case "half_open_broker":
            stage.note(f"{stage.broker_proxy.go_silent()} connections to the broker go silent")


async def _disk_full(stage: Stage) -> None:
    if stage.disk == "none":
        stage.note("disk full: not played, there is no right to mount a small file system")
        return
    stage.note(f"disk of outbox and snapshot full ({stage.disk})")
    await stage.fill_disk(DISK_FULL_S)
    stage.note("disk has room again")
