"""Mutated records and packets through decoder and client: no crash, no hang, no wrong sample. `make fuzz` does more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
ITEMS = 1000
LONGEST_S = 2.0


def fuzzed(kind: str, version: int, folder: Path) -> dict[str, Any]:
    """What the worker of ``make fuzz`` finds in a process of its own, where a crash would show."""
    command = [sys.executable, str(BENCHMARKS / "fuzz_work.py"), kind, str(version), "77", str(ITEMS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder / "hand")], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("version", [2, 3])
def test_mutated_records_never_give_wrong_samples(version: int, tmp_path: Path) -> None:
    """What is accepted is what the bytes say (and, in miniSEED 3, what the checksum holds for); the rest is refused."""
    result = fuzzed("records", version, tmp_path)
    assert result["items"] == ITEMS
    assert result["found"]["wrong"] == 0
    assert result["found"]["accepted"] > ITEMS / 50
    assert result["found"]["corrupt"] > ITEMS / 4
    assert result["slowest_s"] < LONGEST_S


@pytest.mark.parametrize("version", [3, 4])
def test_mutated_packets_never_give_wrong_samples(version: int, tmp_path: Path) -> None:
    """Through a socket and the daemon's own reader: only a broken packet header may end the connection."""
    result = fuzzed("packets", version, tmp_path)
    assert result["items"] >= ITEMS
    assert result["found"]["wrong"] == 0
    assert result["found"]["packets_read"] > 0.95 * ITEMS
    assert result["found"]["accepted"] > ITEMS / 20
    assert result["slowest_s"] < LONGEST_S


def test_a_wrong_sample_would_be_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The oracle is no stub: with a decoder that alters one sample nearly everything accepted is wrong."""
    spoil = (
        "import fuzz_work, dataclasses, streamer.decode as decode, sys\n"
        "from streamer.record import Record\n"
        "def spoilt(data):\n"
        "    for item in decode.decode_each(data):\n"
        "        if isinstance(item, Record):\n"
        "            item.samples[-1] += 1\n"
        "        yield item\n"
        "fuzz_work.decode_each = spoilt\n"
        "print(fuzz_work.fuzz_records(2, 1, 300, 0 + fuzz_work.os.open(sys.argv[1], fuzz_work.os.O_RDWR | "
        "fuzz_work.os.O_CREAT))['found'])\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{BENCHMARKS}")
    command = [sys.executable, "-c", spoil, str(tmp_path / "hand")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout.partition("'wrong': ")[2].partition(",")[0].rstrip("}\n")) > 20
