"""The pictures are drawn, are not blank, and show what the numbers say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monitor_data import labelled, tiny_objective, two_sets, write_log
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pretrain.objectives.objective import Batch, build
from pretrain.selfsupervised.monitor.board import Board
from pretrain.selfsupervised.monitor.contexts import gather_contexts, plane
from pretrain.selfsupervised.monitor.curves import draw_curves, running_median
from pretrain.selfsupervised.monitor.figures import draw, draw_usage, perplexity_of
from pretrain.selfsupervised.monitor.kinds import KINDS, frame_kinds
from pretrain.selfsupervised.monitor.validation import judged


def ink(path: Path, colour: str | None = None) -> float:
    """Share of the pixels of a PNG that are not white, or near a colour."""
    pixels = imread(path)[..., :3]
    assert min(pixels.shape[:2]) > 300
    if colour is None:
        return float((pixels < 0.95).any(-1).mean())
    wanted = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return float((np.abs(pixels - wanted).max(-1) < 0.02).mean())


def test_a_validation_draws_its_figures(tmp_path: Path) -> None:
    """Codebook, contexts and curves below RUN/figures, none of them blank; TensorBoard takes them."""
    objective = tiny_objective()
    entries = [
        {
            "step": s,
            "seconds": s,
            "kind": "train",
            "loss": 5 / s,
            "accuracy": 0.5,
            "gradient_norm": 1 / s,
            "rate/a": 1e-3,
        }
        for s in range(1, 30)
    ]
    run = write_log(tmp_path / "run", *entries)
    found = draw(run, objective, two_sets(), judged(objective, two_sets(), 0), 29)
    assert list(found) == ["codebook", "contexts", "curves"]
    assert sorted(path.name for path in (run / "figures").iterdir()) == ["codebook.png", "contexts.png", "curves.png"]
    assert all(ink(path) > 0.02 for path in found.values())
    assert objective.training
    board = Board(run)
    for name, path in found.items():
        board.image(name, path, 29)
    board.close()
    assert EventAccumulator(str(run / "tensorboard")).Reload().Tags()["images"] == list(found)


def test_an_objective_without_a_codebook_has_the_other_figures(tmp_path: Path) -> None:
    """And a run without a log yet has no curves; without enough frames there are no contexts."""
    objective = build("autoregressive", tiny_objective().backbone.config)
    assert list(draw(tmp_path, objective, two_sets(), judged(objective, two_sets(), 0), 0)) == ["contexts"]
    assert draw(tmp_path, objective, [], {}, 0) == {}


def test_dead_codes_are_painted(tmp_path: Path) -> None:
    """A codebook half dead shows it, one in full use does not."""
    half = np.array([[5.0, 3, 2, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
    sick = draw_usage(half, 10, tmp_path / "sick.png", "sick")
    well = draw_usage(half + 1, 16, tmp_path / "well.png", "well")
    dead = "#f6deca"
    assert ink(sick, dead) > 0.05
    assert ink(well, dead) < 0.01


def test_perplexity_of_shares() -> None:
    """One code: 1; four alike: 4."""
    assert perplexity_of(np.array([1.0, 0, 0])) == 1
    assert perplexity_of(np.array([0.25] * 4 + [0.0])) == pytest.approx(4)


def test_frames_are_named_by_what_they_show() -> None:
    """Noise up to 1 s before P, then P and S for 1 s each; all of a noise record; nothing where there is no data."""
    quake, noise = labelled("a", 1), labelled("a", 1, noise=True)
    kinds = frame_kinds(quake, 4)[0]
    named = {KINDS[kind]: (4 * torch.nonzero(kinds == kind)[:, 0]).tolist() for kind in range(3)}
    assert named["noise"] == list(range(0, 200, 4))
    assert named["P"] == list(range(300, 400, 4))
    assert named["S"] == list(range(600, 700, 4))
    assert (frame_kinds(noise, 4) == 0).all()
    valid = quake.batch.valid.clone()
    valid[:, :, 302:310] = False
    gap = frame_kinds(replace(quake, batch=Batch(quake.batch.waveform, valid)), 4)[0]
    assert gap[75:78].tolist() == [-1, -1, -1]
    assert gap[78] == 1
    coda = replace(quake, positions=torch.full_like(quake.positions, -1e6))
    assert (frame_kinds(coda, 4) == -1).all()


def test_contexts_are_those_of_the_backbone_in_fair_shares() -> None:
    """Each data set and kind has its share, and a vector is the context of its frame."""
    objective, batches = tiny_objective(), two_sets()
    found = gather_contexts(objective, batches, most=100)
    assert len(found.vectors) == len(found.kinds) == len(found.data_sets) <= 100
    pairs = list(zip(found.data_sets, found.kinds.tolist(), strict=True))
    assert {pair: pairs.count(pair) for pair in set(pairs)} == {
        (name, kind): 100 // 6 for name in ("north", "south") for kind in range(3)
    }
    again = gather_contexts(objective, batches, most=100)
    assert np.array_equal(found.vectors, again.vectors)
    with torch.no_grad():
        whole = objective.eval().backbone(batches[1].batch.waveform, batches[1].batch.valid).flatten(0, 1)
    south = torch.from_numpy(found.vectors[[name == "south" for name in found.data_sets]])
    assert torch.cdist(south, whole, compute_mode="donot_use_mm_for_euclid_dist").amin(1).max() == 0


def test_the_plane_keeps_what_is_apart_apart() -> None:
    """Two clouds stay two clouds, twice alike; constant features do no harm."""
    random = np.random.default_rng(0)
    clouds = random.normal(size=(60, 8)).astype(np.float32)
    clouds[30:] += 20
    clouds[:, 7] = 1.0
    places = plane(clouds)
    centres = places[:30].mean(0), places[30:].mean(0)
    apart = np.linalg.norm(centres[0] - centres[1])
    spread = max(
        np.linalg.norm(places[:30] - centres[0], axis=1).max(), np.linalg.norm(places[30:] - centres[1], axis=1).max()
    )
    assert apart > spread
    assert np.array_equal(places, plane(clouds))


def test_curves_stand_gaps_and_logs_without_validation(tmp_path: Path) -> None:
    """NaN in the log leaves a gap; figures that no entry has are said to be missing."""
    entries = [
        {"step": s, "kind": "train", "loss": math.nan if s == 3 else 1.0, "gradient_norm": 0.0} for s in range(9)
    ]
    assert ink(draw_curves(entries, tmp_path / "a.png", "a")) > 0.01
    more = {"kind": "validation", "step": 8, "all/loss": 2.0, "x/y/loss": 2.5, "all/hard_perplexity": 300.0}
    rich = [entry | {"hard_perplexity": 200.0, "soft_perplexity": 400.0, "windows_per_s": 1.0} for entry in entries]
    target = "#e0f3ee"
    assert ink(draw_curves([*rich, more], tmp_path / "b.png", "b"), target) > 0.01
    assert ink(tmp_path / "a.png", target) < 0.001


def test_the_running_median_looks_around() -> None:
    """And over what is not a number."""
    assert running_median([1, 9, 2, math.nan, 3], 3) == [5, 2, 5.5, 2.5, 3]
    assert math.isnan(running_median([math.nan, math.nan, math.nan, 1], 3)[0])
