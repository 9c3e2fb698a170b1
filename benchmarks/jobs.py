"""Programs one after another, several of such chains beside each other: what the training benchmarks start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

WAIT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Job:
    """Commands that are run one after another, as long as each succeeds; what they print is in folder/output.txt."""

    name: str
    folder: Path
    commands: Sequence[Sequence[str]]
    environment: tuple[tuple[str, str], ...] = ()


class _Running:
    def __init__(self, job: Job) -> None:
        self.job, self._left = job, list(job.commands)
        job.folder.mkdir(parents=True, exist_ok=True)
        self._output = (job.folder / "output.txt").open("ab")
        self._process = self._next()

    def _next(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **dict(self.job.environment)}
        return subprocess.Popen(self._left.pop(0), stdout=self._output, stderr=subprocess.STDOUT, env=environment)

    def poll(self) -> int | None:
        """Exit status of the chain, None while it runs."""
        status = self._process.poll()
        if status == 0 and self._left:
            self._process = self._next()
            return None
        if status is not None:
            self._output.close()
        return status

    def stop(self) -> None:
        """SIGTERM, upon which a training saves itself."""
        self._process.terminate()

    def wait(self) -> None:
        """Until it has ended."""
        self._process.wait()
        self._output.close()


def python(*arguments: object) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, *map(str, arguments)]


def run_jobs(jobs: Sequence[Job], at_once: int, seconds: float | None = None) -> Iterator[tuple[Job, int]]:
    """Each job as it ends, with its exit status; after so many ``seconds`` those that still run are ended, unsaid."""
    waiting, running, began = list(jobs), list[_Running](), time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_Running(waiting.pop(0)))
            time.sleep(WAIT_S)
            for one in list(running):
                if (status := one.poll()) is not None:
                    running.remove(one)
                    yield one.job, status
            if seconds is not None and time.monotonic() - began > seconds:
                return
    finally:
        for one in running:
            one.stop()
        for one in running:
            one.wait()
