"""What the streaming rigs run on: processes (daemon, Mosquitto, servers), and what /proc and /metrics say of them."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from machine import Machine

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
HOST = "127.0.0.1"
START_S = 60.0
POLL_S = 0.02
_SAMPLE = re.compile(r"^(onset_\w+|process_\w+)(\{[^}]*\})? ([^ \n]+)$", re.MULTILINE)


class RigError(RuntimeError):
    """A process that the rig needs cannot be had."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def facts(machine: Machine, loads: tuple[float | None, float | None]) -> list[str]:
    """The machine and how busy it was, one Markdown list item a fact; these processes use all its cores."""
    lines = [line.replace(", not pinned (the system has no affinity call)", "") for line in machine.lines()]
    return [*lines, f"- load average before and after: {_one(loads[0])} and {_one(loads[1])}"]


def _one(load: float | None) -> str:
    return "unknown" if load is None else f"{load:.1f}"


def end_in_order() -> None:
    """Let SIGTERM end this process like Ctrl-C, so that it takes the processes that it has started with it."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class Usage(NamedTuple):
    """What a process uses: resident memory (bytes), processor time (s), open files, threads."""

    resident_bytes: int
    cpu_s: float
    files: int
    threads: int


def usage(process: int) -> Usage:
    """Usage of the process by its number, from /proc; raises OSError where it is gone."""
    folder = Path("/proc") / str(process)
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return Usage(
        resident_bytes=int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        cpu_s=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        files=len(list((folder / "fd").iterdir())),
        threads=int(fields[17]),
    )


class Child:
    """A process that may be started, killed and started again; it is ready once ``ready`` stands in its log."""

    def __init__(self, name: str, command: Sequence[str], log: Path, ready: str) -> None:
        self.name, self.log = name, log
        self._command, self._ready = list(command), ready
        self._process: subprocess.Popen[bytes] | None = None
        self._from = 0
        self.lives = 0

    @property
    def number(self) -> int:
        """Number of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; does not wait."""
        self._from = self.log.stat().st_size if self.log.exists() else 0
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=ROOT, env=environment)
        self.lives += 1

    def said(self, text: str) -> bool:
        """Whether ``text`` stands in what it has logged since it was started."""
        with self.log.open("rb") as log:
            log.seek(self._from)
            return text.encode() in log.read()

    def wait_ready(self, timeout_s: float = START_S) -> None:
        """Wait until it is ready. Raises RigError where it ends or takes longer."""
        deadline_s = time.monotonic() + timeout_s
        while not self.said(self._ready):
            if not self.running or time.monotonic() > deadline_s:
                tail = self.log.read_text(errors="replace")[-1500:]
                raise RigError(f"{self.name} did not start: {tail}")
            time.sleep(POLL_S)

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)

    def stop(self, timeout_s: float = 15.0) -> int | None:
        """SIGTERM; returns the exit status, None where it had to be killed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None


def mosquitto(folder: Path, port: int) -> Child:
    """A Mosquitto with a memory of its own on disk, not started; raises RigError where none is installed."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RigError("there is no mosquitto: install it (Debian and Ubuntu: apt-get install mosquitto)")
    store = folder / "mosquitto"
    store.mkdir(exist_ok=True)
    (folder / "mosquitto.conf").write_text(
        f"user {getpass.getuser()}\nallow_anonymous true\nlistener {port} {HOST}\nmax_queued_messages 0\n"
        f"persistence true\npersistence_location {store}/\nautosave_interval 1\nautosave_on_changes true\n"
    )
    return Child("broker", [found, "-c", str(folder / "mosquitto.conf")], folder / "broker.log", "running")


def daemon(folder: Path, config: Path) -> Child:
    """``python -m streamer run``, not started."""
    command = [sys.executable, "-m", "streamer", "run", "--config", str(config)]
    return Child("daemon", command, folder / "daemon.log", '"event": "serving"')


def script(name: str, folder: Path, file: str, *arguments: str) -> Child:
    """A script of this folder as a process, ready when it has written a line that begins ``ready``; not started."""
    command = [sys.executable, str(HERE / file), *arguments]
    return Child(name, command, folder / f"{name}.log", "ready")


class Server(NamedTuple):
    """A SeedLink server that the daemon is to read: its port and protocol version."""

    port: int
    protocol: str = "auto"
    idle_s: float = 6.0


def write_config(
    folder: Path,
    bundle: Path,
    servers: Sequence[Server],
    mqtt: int,
    metrics: int,
    *,
    more: str = "",
    every_s: float = 3.0,
) -> Path:
    """Settings of the daemon: JSON log, metrics at a port, outbox and snapshot in ``folder``/state."""
    (folder / "state").mkdir(exist_ok=True)
    tables = "".join(
        f'[[seedlink]]\nhost = "{HOST}"\nport = {one.port}\nprotocol = "{one.protocol}"\n'
        f'idle_timeout_s = {one.idle_s}\nsilence_s = 10.0\nstreams = [{{ network = "*", station = "*" }}]\n'
        for one in servers
    )
    path = folder / "streamer.toml"
    path.write_text(
        f'agency = "RIG"\n[bundle]\npath = "{bundle.resolve()}"\n{tables}'
        f'[mqtt]\nhost = "{HOST}"\nport = {mqtt}\nclient_id = "onset-rig"\n'
        f'[outbox]\npath = "state/outbox.sqlite"\n[snapshot]\npath = "state/snapshot"\nevery_s = {every_s}\n'
        f'[metrics]\nenabled = true\nport = {metrics}\n[log]\nformat = "json"\n{more}'
    )
    return path


def metrics(port: int) -> Counter[str]:
    """What the daemon counts, ``name{label="value"}`` to value; empty where it does not answer."""
    with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
        return Counter({name + labels: float(value) for name, labels, value in _SAMPLE.findall(text)})
    return Counter()


def total(counts: Counter[str], name: str, label: str = "") -> float:
    """Sum of all counts of ``name`` whose labels contain ``label``."""
    return sum(value for key, value in counts.items() if key.partition("{")[0] == name and label in key)
