"""The stage of the chaos runs: stations on disk, broker, two servers behind proxies, the daemon, and a subscriber."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import rig
from chaos_proxy import Proxy
from rig_subscriber import Heard, Subscriber
from rig_waves import COMPONENTS, SECOND_NS, quakes, records, source_id, waveforms

NETWORKS = (("XX", "3", 2), ("YY", "4", 3))
"""Of each server: network, version of SeedLink, version of miniSEED."""
QUIET_S = 8.0
"""A run is over when for so long no message has come and no chunk was worked off."""
LATEST_S = 240.0
"""How long after the last record the daemon may take."""
PAST_S = 7200
"""So long ago the data began: replayed at speed, they are never from the future."""
QUOTA_BYTES = 64 << 20
"""Of the small file system: three snapshots, one of them being written, and the outbox with its log."""
LEAD_S = 20.0
"""From the start of a run to the first record: all must stand by then, or the runs begin with different samples."""
SUBSCRIBED_S = 3.0
"""Of it, what the daemon needs from ``serving`` to the end of its subscriptions."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What all runs share: the data, which are the same, and how fast they come."""

    folder: Path
    bundle: Path
    stations: tuple[str, ...]
    seconds: float
    speed: float
    start_ns: int


@dataclass
class Outcome:
    """What a run has left: messages, counters summed over the daemon's lives, its ends, and what was done to it."""

    heard: list[Heard] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    log: list[tuple[float, str]] = field(default_factory=list)
    daemon_lives: int = 0
    crashes: int = 0
    """Ends of the daemon that the run did not bring about, and an exit status that is not 0."""
    seconds: float = 0.0


def names(count: int) -> tuple[str, ...]:
    """Codes of the stations; each server has every other one."""
    return tuple(f"V{number + 1:04d}" for number in range(count))


def build(
    folder: Path, bundle: Path, count: int, seconds: float, speed: float, extra_s: Mapping[str, float] | None = None
) -> Scene:
    """Write the miniSEED of ``count`` stations; at ``extra_s`` of a station comes a P besides those of its seed."""
    start_ns = (time.time_ns() // SECOND_NS - PAST_S) // 64 * 64 * SECOND_NS
    stations = names(count)
    for number, station in enumerate(stations):
        network, _, version = NETWORKS[number % 2]
        more = [extra_s[station]] if extra_s and station in extra_s else []
        samples = waveforms(seconds, quakes(seconds, 40.0, number) + more, number)
        place = folder / network
        place.mkdir(parents=True, exist_ok=True)
        with (place / f"{station}.mseed").open("wb") as file:
            for component, line in zip(COMPONENTS, samples, strict=True):
                file.writelines(records(line, source_id(network, station, component), start_ns, version=version))
    return Scene(folder=folder, bundle=bundle, stations=stations, seconds=seconds, speed=speed, start_ns=start_ns)


class Stage:
    """One run while its context lasts; ``play`` sees it to its end."""

    def __init__(self, scene: Scene, name: str, server_options: Sequence[str] = ()) -> None:
        self.scene, self.name, self.outcome = scene, name, Outcome()
        self.folder = scene.folder / name
        self._options = list(server_options)
        self._exits = AsyncExitStack()
        self._meant = False
        self._last_counts: Counter[str] = Counter()
        self._worked_s = 0.0
        """When a chunk was last seen to be worked off."""

    async def __aenter__(self) -> Self:
        try:
            await self._set()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def _set(self) -> None:
        self.folder.mkdir()
        (self.folder / "state").mkdir()
        self.disk = "none"
        self._mount()
        broker_port, self.metrics_port = rig.free_port(), rig.free_port()
        self.broker = rig.mosquitto(self.folder, broker_port)
        self.broker.start()
        self._exits.callback(self.broker.kill)
        self.broker.wait_ready()
        self.subscriber = Subscriber(broker_port)
        listening = asyncio.create_task(self.subscriber.run())
        self._exits.push_async_callback(_end, listening)
        await asyncio.wait_for(self.subscriber.subscribed.wait(), 20)
        self.servers, self.proxies = [], []
        self.began_s = time.time() + LEAD_S
        for network, _, _ in NETWORKS:
            port = rig.free_port()
            self.servers.append(self._server(network, port))
            self.proxies.append(await self._exits.enter_async_context(Proxy(port)))
        self.broker_proxy = await self._exits.enter_async_context(Proxy(broker_port))
        for server in self.servers:
            server.start()
            self._exits.callback(server.kill)
        for server in self.servers:
            await asyncio.to_thread(server.wait_ready)
        # No sooner given up as idle than LEAD_S: a reconnect while the first records come would lose those between.
        seedlink = [rig.Server(proxy.port, net[1], LEAD_S) for proxy, net in zip(self.proxies, NETWORKS, strict=True)]
        config = rig.write_config(
            self.folder, self.scene.bundle, seedlink, self.broker_proxy.port, self.metrics_port, every_s=2.0
        )
        self.daemon = rig.daemon(self.folder, config)
        self.daemon.start()
        self._exits.callback(self.daemon.kill)
        await asyncio.to_thread(self.daemon.wait_ready)
        if time.time() > self.began_s - SUBSCRIBED_S:
            raise rig.RigError(
                f"the daemon took longer than {LEAD_S - SUBSCRIBED_S:g} s to start: is the machine busy?"
            )
        self._exits.push_async_callback(_end, asyncio.create_task(self._watch()))

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    def _server(self, network: str, port: int) -> rig.Child:
        words = (str(port), str(self.scene.folder / network), str(self.scene.speed), str(self.began_s), *self._options)
        return rig.script(f"server-{network}", self.folder, "rig_server.py", *words)

    def _mount(self) -> None:
        """A small file system for the state, so that it can be full; where there is no right to mount, none is."""
        mounting = shutil.which("mount")
        if mounting is None:
            return
        place = str(self.folder / "state")
        done = subprocess.run(
            [mounting, "-t", "tmpfs", "-o", f"size={QUOTA_BYTES}", "onset-chaos", place],
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            self.disk = "tmpfs"
            self._exits.callback(subprocess.run, ["umount", "-l", place], check=False)

    def note(self, text: str) -> None:
        """Take down what is done, with its time since the run began."""
        self.outcome.log.append((time.time() - self.began_s, text))

    async def kill_daemon(self, away_s: float = 0.5) -> None:
        """SIGKILL and start again."""
        self.outcome.counts += await asyncio.to_thread(self._scrape)
        self._meant, self._last_counts = True, Counter()
        self.daemon.kill()
        await asyncio.sleep(away_s)
        self.daemon.start()
        await asyncio.to_thread(self.daemon.wait_ready)
        self._meant = False

    async def kill_server(self, index: int, away_s: float = 3.0) -> None:
        """SIGKILL and start again; nobody gets through to it before it stands where it would have stood."""
        proxy, server = self.proxies[index], self.servers[index]
        proxy.admits = False
        server.kill()
        await asyncio.sleep(away_s)
        server.start()
        await asyncio.to_thread(server.wait_ready)
        proxy.admits = True

    async def kill_broker(self, away_s: float = 2.0) -> None:
        """SIGKILL and start again."""
        self.broker.kill()
        await asyncio.sleep(away_s)
        self.broker.start()
        await asyncio.to_thread(self.broker.wait_ready)

    async def fill_disk(self, for_s: float) -> None:
        """Leave no room for outbox and snapshot for a while."""
        filler = self.folder / "state" / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        await asyncio.sleep(for_s)
        filler.unlink()

    async def play(self) -> Outcome:
        """Wait until all is sent, picked and published; end the daemon in order."""
        latest_s = self.began_s + self.scene.seconds / self.scene.speed + LATEST_S
        while self.alive and time.time() < latest_s and not self._served():  # noqa: ASYNC110 (other processes)
            await asyncio.sleep(0.2)
        latest_s = time.monotonic() + LATEST_S
        ended_s = time.monotonic()
        while (  # noqa: ASYNC110
            self.alive
            and time.monotonic() < min(latest_s, max(ended_s, self.subscriber.last_s, self._worked_s) + QUIET_S)
        ):
            await asyncio.sleep(0.2)
        return await self._finish()

    def _served(self) -> bool:
        return all(server.said("ended\n") for server in self.servers)

    @property
    def alive(self) -> bool:
        """Whether the daemon runs, or is away because the run means it to be."""
        return self._meant or self.daemon.running

    async def _finish(self) -> Outcome:
        outcome = self.outcome
        outcome.counts += await asyncio.to_thread(self._scrape)
        self._meant = True
        if self.daemon.running:
            status = await asyncio.to_thread(self.daemon.stop)
            outcome.crashes += status != 0
        else:
            outcome.crashes += 1
        await asyncio.sleep(2.0)
        outcome.heard = self.subscriber.heard
        lines = (json.dumps({"at_s": one.at_s, "pick": one.pick}) + "\n" for one in outcome.heard)
        (self.folder / "messages.jsonl").write_text("".join(lines))
        outcome.daemon_lives = self.daemon.lives
        outcome.seconds = time.time() - self.began_s
        return outcome

    def _scrape(self) -> Counter[str]:
        return rig.metrics(self.metrics_port) or self._last_counts

    async def _watch(self) -> None:
        """Keep the counters fresh, and see whether the daemon works: after a kill it may make known picks for long."""
        while True:
            before = self._last_counts["onset_chunks_total"]
            self._last_counts = await asyncio.to_thread(rig.metrics, self.metrics_port) or self._last_counts
            if self._last_counts["onset_chunks_total"] != before:
                self._worked_s = time.monotonic()
            await asyncio.sleep(1.0)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
