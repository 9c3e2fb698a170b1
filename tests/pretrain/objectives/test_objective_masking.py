"""Span masking: how much is masked, in which pieces, and where."""

from __future__ import annotations

import hashlib

import pytest
import torch
from objective_data import generator

from pretrain.objectives.draws import rank_generator
from pretrain.objectives.frames import pack, take
from pretrain.objectives.masking import MaskSettings, most_masked, span_mask

SHARE, FAIRSEQ = MaskSettings(), MaskSettings(kind="fairseq")


def whole(rows: int, frames: int = 1024) -> torch.Tensor:
    """Frames that all have data."""
    return torch.ones(rows, frames, dtype=torch.bool)


def run_lengths(row: torch.Tensor) -> list[int]:
    """Lengths of the runs of masked frames."""
    edges = torch.diff(row.int(), prepend=torch.zeros(1, dtype=torch.int), append=torch.zeros(1, dtype=torch.int))
    return (edges.eq(-1).nonzero() - edges.eq(1).nonzero()).flatten().tolist()


def test_the_share_is_what_ends_up_masked() -> None:
    """Over 1,000 draws of 1,024 frames 65 % are masked, and each row to within one span."""
    count = span_mask(whole(1000), SHARE, generator()).sum(1)
    assert (count - 0.65 * 1024).abs().max() <= SHARE.length
    assert count.float().mean() / 1024 == pytest.approx(0.65, abs=0.002)


def test_the_share_of_fairseq_is_that_before_spans_overlap() -> None:
    """Over 1,000 draws of 1,024 frames 0.65 masks about 49 %."""
    share = span_mask(whole(1000), FAIRSEQ, generator()).float().mean()
    assert share == pytest.approx(0.485, abs=0.01)


def test_fairseq_semantics_equal_a_plain_reference() -> None:
    """As many different starts as the expected share asks for, drawn one row at a time, give the same mean share."""
    stream, shares = generator(3), []
    for _ in range(300):
        row = torch.zeros(1024, dtype=torch.bool)
        spans = int(0.65 * 1024 / 10 + torch.rand((), generator=stream).item())
        for start in torch.randperm(1024 - 10 + 1, generator=stream)[:spans].tolist():
            row[start : start + 10] = True
        shares.append(row.float().mean())
    ours = span_mask(whole(300), FAIRSEQ, generator()).float().mean()
    assert ours == pytest.approx(torch.stack(shares).mean().item(), abs=0.005)


@pytest.mark.parametrize("settings", [SHARE, FAIRSEQ])
def test_masked_runs_are_whole_spans(settings: MaskSettings) -> None:
    """Spans join, but none is cut short; and every frame is masked about as often as any other."""
    mask = span_mask(whole(400, 200), settings, generator())
    assert min(length for row in mask for length in run_lengths(row)) >= settings.length
    often = mask.float().mean(0)[20:-20]
    assert often.min() > 0.75 * often.mean()
    assert often.max() < 1.25 * often.mean()


@pytest.mark.parametrize("settings", [SHARE, FAIRSEQ])
def test_rows_are_masked_each_for_itself_and_only_where_they_have_data(settings: MaskSettings) -> None:
    """Frames without data are never masked, a row without any has no mask, and rows differ."""
    frames = whole(4, 300)
    frames[0, 100:] = False
    frames[1, 50:250] = False
    frames[2] = False
    mask = span_mask(frames, settings, generator())
    assert not (mask & ~frames).any()
    share = mask.sum(1) / frames.sum(1).clamp(min=1)
    assert share[2] == 0
    assert ((share[[0, 1, 3]] > 0.25) & (share[[0, 1, 3]] < 0.75)).all()
    if settings.kind == "share":
        assert ((share - 0.65).abs() * frames.sum(1))[[0, 1, 3]].max() <= settings.length
    both = span_mask(whole(2, 300), settings, generator())
    assert not torch.equal(both[0], both[1])


def test_a_row_shorter_than_a_span_is_masked_or_not() -> None:
    """Nothing breaks where the only span is cut short by the window."""
    mask = span_mask(whole(3, 6), SHARE, generator())
    assert set(mask.sum(1).tolist()) <= {0, 6}


@pytest.mark.parametrize("settings", [SHARE, FAIRSEQ, MaskSettings(share=0.95), MaskSettings(length=1)])
def test_no_row_exceeds_the_most(settings: MaskSettings) -> None:
    """Packed frames keep every masked frame, in order of time, and say which places are empty."""
    mask = span_mask(whole(200, 128), settings, generator())
    packed = pack(mask, most_masked(128, settings))
    assert torch.equal(packed.present.sum(1), mask.sum(1))
    for row in range(5):
        assert packed.index[row][packed.present[row]].tolist() == mask[row].nonzero().flatten().tolist()
    x = torch.randn(200, 128, 3)
    assert torch.equal(take(x, packed.index)[packed.present], x[mask])


def test_masks_repeat_for_a_rank_and_differ_between_ranks() -> None:
    """Ranks of one seed draw different masks; the same rank draws them again, and others when it goes on."""

    def digest(stream: torch.Generator) -> str:
        return hashlib.sha256(span_mask(whole(4), SHARE, stream).numpy().tobytes()).hexdigest()

    streams = [rank_generator(7, rank) for rank in range(4)]
    first = [digest(stream) for stream in streams]
    state = streams[0].get_state()
    going_on = digest(streams[0])
    assert len({*first, going_on}) == 5
    assert [digest(rank_generator(7, rank)) for rank in range(4)] == first
    resumed = torch.Generator()
    resumed.set_state(state)
    assert digest(resumed) == going_on
