"""Ranks of `ddp_rank.py` under torchrun, as processes of this machine: started, killed where asked, and waited for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ddp_rank import FOUND, PIDS

HERE = Path(__file__).parent
LAST_CHARACTERS = 4000
DEFAULTS = {
    # NVLink multicast off.
    "NCCL_NVLS_ENABLE": "0",
    # Else ranks that are started again may read the addresses that those before them left in torchrun's store, and wait
    # for them for half an hour (seen with torch 2.13; pytorch/pytorch#135712).
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    "OMP_NUM_THREADS": "1",
}
LIMIT_S = 1800
PATIENCE_S = 60
"""For torchrun to end its ranks: it kills them after half of it."""


class Launch:
    """A job on some ranks in a new ``folder``; torchrun starts them again up to ``restarts`` times."""

    def __init__(self, folder: Path, ranks: int, job: dict[str, Any], restarts: int = 0) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        path = folder / "job.json"
        path.write_text(json.dumps({**job, "folder": str(folder)}), encoding="utf-8")
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*launch, f"--max-restarts={restarts}", str(HERE / "ddp_rank.py"), str(path)],
                env=environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> Path:
        """What all ranks print."""
        return self.folder / "output.txt"

    def finish(self) -> dict[str, Any]:
        """What rank 0 found. Raises SystemExit with the end of the output where the job failed or took too long."""
        try:
            status: int | None = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            self._end()
        if status != 0:
            what = f"took longer than {LIMIT_S} s" if status is None else f"ended with exit status {status}"
            raise SystemExit(f"{self.output.read_text(errors='replace')[-LAST_CHARACTERS:]}\na job of ranks {what}")
        found: dict[str, Any] = json.loads((self.folder / FOUND).read_text(encoding="utf-8"))
        return found

    def kill_rank(self, rank: int, run: Path, step: int) -> int:
        """kill -9 of one rank once ``run`` has a checkpoint of ``step`` or later; returns that checkpoint's step."""
        try:
            while (saved := saved_step(run)) < step:
                if self.process.poll() is not None:
                    raise SystemExit(f"{self.output.read_text(errors='replace')[-LAST_CHARACTERS:]}\nended too early")
                time.sleep(0.005)
            os.kill(int((self.folder / PIDS / str(rank)).read_text()), signal.SIGKILL)
        except BaseException:
            self._end()
            raise
        return saved

    def _end(self) -> None:
        """Leave no process behind: ranks are in sessions of their own, and only torchrun ends them."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def environment() -> dict[str, str]:
    """What the machine sets stays as it is, and ``DEFAULTS`` are added."""
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**DEFAULTS, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def saved_step(run: Path) -> int:
    """Of the last checkpoint of a run; 0 where there is none yet."""
    try:
        index = json.loads((run / "last" / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return int(index["counters"]["step"])
