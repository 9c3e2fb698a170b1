"""The metric: figures computed by hand, and agreement with the shared scorer where it is at hand."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain.metric import Reference, TracePick, as_dict, score

SCORER = Path(
    os.environ.get("ONSET_SCORER", Path(__file__).resolve().parents[2] / ".." / "shared" / "tools" / "score.py")
)


def picks_of(name: str, phase: str, *samples: float, probability: float = 0.9) -> list[TracePick]:
    return [TracePick(trace_name=name, phase=phase, sample=sample, probability=probability) for sample in samples]


REFERENCES = [
    Reference(name="both", samples=9000, p_sample=1000.0, s_sample=1500.0, source="x"),
    Reference(name="p only", samples=9000, p_sample=2000.0, source="y"),
    Reference(name="noise", samples=180_000, source="y"),
]
PICKS = [
    *picks_of("both", "P", 1005.0, 1030.0, 2100.0),  # hit; false; after S + 5 s, does not count
    *picks_of("both", "S", 1540.0),  # 0.4 s off: false at 0.1 s, hit at 0.5 s
    *picks_of("p only", "P", 2900.0, 3001.0, 1499.0),  # false; after P + 10 s and before P - 5 s, do not count
    *picks_of("p only", "S", 2100.0),  # S is unlabelled: does not count
    *picks_of("noise", "P", 5.0, 100_000.0),
    *picks_of("both", "P", 990.0, probability=0.1),  # below the threshold
]


def test_figures_computed_by_hand() -> None:
    """Hits, false picks inside the window, residuals and picks an hour of noise are what the definition says."""
    scores = score(REFERENCES, PICKS, {"P": 0.3, "S": 0.3})
    near, far = (scores["P"].tallies[tolerance_s] for tolerance_s in (0.1, 0.5))
    assert (near.labels, near.hits, near.false_picks) == (far.labels, far.hits, far.false_picks) == (2, 1, 2)
    assert (near.recall, near.precision) == (0.5, 1 / 3)
    assert near.f1 == pytest.approx(0.4)
    assert scores["P"].residuals_s.tolist() == [0.05]
    assert scores["P"].false_per_noise_hour == pytest.approx(4.0)
    near, far = (scores["S"].tallies[tolerance_s] for tolerance_s in (0.1, 0.5))
    assert (near.labels, near.hits, near.false_picks, near.f1) == (1, 0, 1, 0.0)
    assert (far.labels, far.hits, far.false_picks, far.f1) == (1, 1, 0, 1.0)
    assert scores["S"].false_per_noise_hour == 0.0


def test_without_thresholds_every_pick_counts_and_the_nearest_is_the_hit() -> None:
    """The faint pick at 990 joins: 1005 stays the nearest to the label at 1000, 990 becomes a false pick."""
    tally = score(REFERENCES, PICKS)["P"].tallies[0.1]
    assert (tally.hits, tally.false_picks) == (1, 3)


def test_nothing_to_score_is_nan_and_not_an_error() -> None:
    """No label and no pick: ratios are NaN, F1 is zero; no noise record: no rate."""
    scores = score([Reference(name="a", samples=100, p_sample=5.0)], [])
    assert math.isnan(scores["S"].tallies[0.5].recall)
    assert math.isnan(scores["P"].tallies[0.5].precision)
    assert scores["P"].tallies[0.5].f1 == 0.0
    assert "false_per_noise_hour" not in as_dict(scores)["P"]
    with pytest.raises(ValueError, match="noise"):
        Reference(name="n", samples=1).window()


def random_example(seed: int) -> tuple[list[Reference], list[TracePick]]:
    """Sixty records of all kinds with picks near labels, inside windows, outside, doubled, and at the very edges."""
    draw = np.random.default_rng(seed)
    references, picks = [], []
    for number in range(60):
        p = float(draw.integers(600, 4000)) if draw.random() < 0.8 else None
        s = (p or 3000.0) + float(draw.integers(50, 2000)) if draw.random() < 0.7 else None
        name = f"r{number:02d}"
        references.append(Reference(name=name, samples=9000, p_sample=p, s_sample=s, source="ab"[number % 2]))
        for phase, label in (("P", p), ("S", s)):
            offsets = [*draw.normal(0, 20, draw.integers(0, 3)), *draw.choice([-500, -50, -10, 10, 50, 500, 1000], 2)]
            samples = [*((label or 2000.0) + np.array(offsets)), *draw.uniform(0, 9000, draw.integers(0, 3))]
            for sample in samples:
                picks.append(TracePick(trace_name=name, phase=phase, sample=sample, probability=draw.random()))
    return references, picks


def shared_scorer() -> Any:
    if not SCORER.is_file():
        pytest.skip(f"no scorer at {SCORER.resolve()}: set ONSET_SCORER to the path of score.py to compare with it")
    specification = importlib.util.spec_from_file_location("shared_scorer", SCORER)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.0, 0.6])
def test_agrees_exactly_with_the_shared_scorer(seed: int, threshold: float) -> None:
    """On random examples every figure, of all records and of each source, is that of score.py."""
    scorer = shared_scorer()
    pandas = pytest.importorskip("pandas")
    references, picks = random_example(seed)
    labels = pandas.DataFrame(
        [
            {
                "trace_name": r.name,
                "trace_npts": r.samples,
                "data_source": r.source,
                "trace_p_arrival_sample": math.nan if r.p_sample is None else r.p_sample,
                "trace_s_arrival_sample": math.nan if r.s_sample is None else r.s_sample,
            }
            for r in references
        ]
    )
    table = pandas.DataFrame([vars(pick) for pick in picks])
    table = table[table.probability >= threshold]
    thresholds = {"P": threshold, "S": threshold}
    assert as_dict(score(references, picks, thresholds)) == scorer.score(labels, table)
    for source in "ab":
        mine = as_dict(score([r for r in references if r.source == source], picks, thresholds))
        assert mine == scorer.score(labels[labels.data_source == source], table)
