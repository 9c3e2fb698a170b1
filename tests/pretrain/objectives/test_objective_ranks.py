"""Two ranks with unequal masks make the step that one rank with the whole batch makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_data import contrastive, generator, gradients, tape, uneven

from pretrain.objectives import draws
from pretrain.objectives.objective import Progress

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def two_ranks(folder: Path) -> list[Any]:
    """What each of two processes saved."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
    results = [folder / f"{rank}.pt" for rank in range(2)]
    commands = [[sys.executable, HERE / "one_rank.py", str(r), folder / "meet", results[r]] for r in range(2)]
    processes = [subprocess.Popen(c, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(result) for result in results]


def test_two_ranks_equal_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients, diversity included, to 1e-6 in float64 with gloo; and statistics add up; and revival is the same."""
    monkeypatch.setattr(draws, "uniform", tape(slice(0, 8)))
    objective = contrastive().double()
    outcome = objective(uneven(), Progress(), generator())
    outcome.total.backward()
    expected = {name: gradient / outcome.count for name, gradient in gradients(objective).items()}
    first, second = two_ranks(tmp_path)
    counts = [first[2].item(), second[2].item()]
    assert counts[0] < 0.75 * counts[1]
    assert sum(counts) == outcome.count.item()
    for found, statistics, _, revived, quantizer in (first, second):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(statistics, dict(outcome.statistics))
        assert torch.equal(revived, first[3])
        torch.testing.assert_close(quantizer, first[4], rtol=0, atol=0)
