"""What the codes stand for: counts against plain loops, medoids, and the page."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monitor_data import labelled, tiny_objective, two_sets

from pretrain.objectives.contrastive import Contrastive
from pretrain.objectives.objective import Batch
from pretrain.selfsupervised.data_held_out import LabelledBatch
from pretrain.selfsupervised.monitor.codebook import as_dict, usage_table
from pretrain.selfsupervised.monitor.codebook_page import draw_codebook
from pretrain.selfsupervised.monitor.kinds import frame_kinds
from pretrain.selfsupervised.monitor.survey import HALF_SAMPLES, Survey, survey


def gappy() -> list[LabelledBatch]:
    """Three batches, of which one has a gap in one window."""
    batches = two_sets()
    valid = batches[0].batch.valid.clone()
    valid[1, :, 400:480] = False
    return [replace(batches[0], batch=Batch(batches[0].batch.waveform, valid)), *batches[1:]]


def plain_tokens(
    objective: Contrastive, labelled_batch: LabelledBatch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalised tokens, codes and frames with data of a batch."""
    backbone = objective.eval().backbone
    with torch.no_grad():
        features = backbone.features(labelled_batch.batch.waveform, labelled_batch.batch.valid)
        tokens = objective.token_norm(backbone.tokens(features))
        return tokens, objective.quantizer.codes(tokens), backbone.frames(features)


def test_counts_equal_plain_loops() -> None:
    """Use, use by kind, what goes together and what follows; frames without data count for nothing."""
    objective, batches = tiny_objective(), gappy()
    found = survey(objective, batches, most=3)
    used, kinds = np.zeros((2, 8), int), np.zeros((3, 2, 8), int)
    together, followed = np.zeros((8, 8), int), np.zeros((2, 8, 8), int)
    for one in batches:
        _, codes, present = plain_tokens(objective, one)
        shown = frame_kinds(one, 4)
        for row in range(len(codes)):
            for frame in range(codes.shape[1]):
                if not present[row, frame]:
                    continue
                pair = codes[row, frame].tolist()
                together[pair[0], pair[1]] += 1
                for group, code in enumerate(pair):
                    used[group, code] += 1
                    if shown[row, frame] >= 0:
                        kinds[shown[row, frame], group, code] += 1
                    if frame + 1 < codes.shape[1] and present[row, frame + 1]:
                        followed[group, code, codes[row, frame + 1, group]] += 1
    assert (found.used == used).all()
    assert (found.by_kind == kinds).all()
    assert found.together is not None
    assert (found.together == together).all()
    assert (found.followed == followed).all()
    assert found.frames == used[0].sum() < sum(b.batch.waveform.shape[0] * 256 for b in batches)
    assert objective.training is False


def test_medoids_are_the_nearest_frames_of_their_code() -> None:
    """Of different windows, in order, with the waveform around them, and away from the ends of the window."""
    objective, batches = tiny_objective(), gappy()
    found = survey(objective, batches, most=2, shown=3)
    tokens, codes, present = zip(*(plain_tokens(objective, one) for one in batches), strict=True)
    assert set(found.medoids) == {(group, code) for group in range(2) for code in found.ranked(group, 2)}
    for (group, code), medoids in found.medoids.items():
        flags = [p & (c[..., group] == code) for p, c in zip(present, codes, strict=True)]
        mean = torch.cat([t[f] for t, f in zip(tokens, flags, strict=True)]).mean(0)
        near = []
        for one, t, f in zip(batches, tokens, flags, strict=True):
            inner = f.clone()
            inner[:, : HALF_SAMPLES // 4] = False
            inner[:, -HALF_SAMPLES // 4 :] = False
            distance = (t - mean).norm(dim=-1).masked_fill(~inner, math.inf)
            for row in range(len(t)):
                near.append((float(distance[row].min()), one.data_set, row, int(distance[row].argmin()), one))
        near.sort(key=lambda entry: entry[0])
        assert [m.distance for m in medoids] == pytest.approx([entry[0] for entry in near[:3]], rel=1e-4)
        _, data_set, row, frame, one = near[0]
        best = medoids[0]
        assert (best.data_set, best.trace, best.sample) == (data_set, one.names[row], 4 * frame + 2)
        cut = one.batch.waveform[row, :, best.sample - HALF_SAMPLES : best.sample + HALF_SAMPLES]
        assert np.array_equal(best.waveform, cut.numpy())


def made_survey() -> Survey:
    """Two groups of four codes that always go together, one of them used for P alone, one dead."""
    used = np.array([[60, 30, 10, 0]] * 2)
    by_kind = np.zeros((3, 2, 4), int)
    by_kind[0, :, 0], by_kind[1, :, 1], by_kind[2, :, 0] = 40, 20, 20
    followed = np.array([np.diag([57, 20, 5, 0])] * 2)
    followed[:, 0, 1] = 3
    return Survey(used, by_kind, np.diag([60, 30, 10, 0]), followed, {})


def test_what_is_derived_from_the_counts() -> None:
    """Ranks, shares of use, how long a code lasts, and what the groups share."""
    found = made_survey()
    assert found.ranked(0, 10) == [0, 1, 2]
    assert found.balanced(0, 0) == {"noise": 0.5, "P": 0.0, "S": 0.5}
    assert found.balanced(0, 1)["P"] == 1
    assert math.isnan(found.balanced(0, 2)["P"])
    assert found.run_frames(0, 0) == 20
    assert found.run_frames(0, 1) == math.inf
    entropy = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1))
    assert found.shared_nats() == pytest.approx(entropy)
    apart = replace(found, together=np.outer([6, 3, 1, 0], [6, 3, 1, 0]))
    assert apart.shared_nats() == pytest.approx(0, abs=1e-12)
    assert replace(found, together=None).shared_nats() == 0


def test_the_figures_are_json() -> None:
    """Without NaN or infinity; pairs of codes with how much oftener than by chance."""
    written = json.loads(json.dumps(as_dict(made_survey(), 3), allow_nan=False))
    first, lone = written["groups"][0]["codes"][0], written["groups"][0]["codes"][2]
    assert (first["code"], first["share"], first["lasts_s"], first["followed_by"]) == (0, 0.6, pytest.approx(0.8), 0)
    assert (lone["P"], lone["lasts_s"]) == (None, None)
    assert written["groups"][0]["dead_codes"] == 1
    pairs = written["between_groups"]["pairs"]
    assert [pair["codes"] for pair in pairs] == [[0, 0], [1, 1], [2, 2]]
    assert pairs[0]["times_chance"] == pytest.approx(1 / 0.6)


def test_the_page_shows_the_windows(tmp_path: Path) -> None:
    """More ink than without windows; one group, one code and a table of a few rows do as well."""
    objective = tiny_objective()
    found = survey(objective, two_sets(), most=6)
    full = imread(draw_codebook(found, tmp_path / "full.png", "tiny", 6))[..., :3]
    bare = imread(draw_codebook(replace(found, medoids={}), tmp_path / "bare.png", "tiny", 6))[..., :3]
    assert (full < 0.9).any(-1).mean() > (bare < 0.9).any(-1).mean() + 0.005
    assert usage_table(found, 6).row_count == sum(len(found.ranked(group, 6)) for group in range(2))
    single = tiny_objective(quantizer={"groups": 1, "codes": 4, "size": 16})
    alone = survey(single, [labelled("a", 2)], most=1)
    assert alone.together is None
    assert imread(draw_codebook(alone, tmp_path / "one.png", "one", 1)).std() > 0.05
    assert as_dict(alone, 1)["between_groups"]["pairs"] == []
