"""The bank: exact windows, labels that stay with their samples, fair draws, and trust."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
import torch
from training_data import bank, generator, quake, trace

from pretrain.bank import Bank, Windows, draw_weights, trust_of
from pretrain.data.trace import Label, Trace

SHARES = {"manual": 0.5, "auto": 0.2, "pseudo": 0.2, "noise": 0.1}


def cut(of: Bank, row: int, start: float, samples: int, rate: float = 1.0) -> Windows:
    """One window."""
    return of.cut(torch.tensor([row]), torch.tensor([start]), torch.tensor([rate]), samples)


def test_a_window_at_rate_one_is_the_trace_to_the_last_bit_and_the_last_sample() -> None:
    """Nothing is interpolated, and the first and last sample of a trace between others are its own."""
    traces = [trace(300, name="a"), trace(700, [("P", 650.5)], name="b"), trace(200, name="c")]
    of = bank(*traces)
    for start, samples in ((0, 700), (100, 256), (699, 1)):
        window = cut(of, 1, start, samples)
        np.testing.assert_array_equal(window.waveform[0], traces[1].waveform[:, start : start + samples])
        assert window.valid.all()
        assert window.positions[0, 0] == 650.5 - start
        np.testing.assert_array_equal(window.trust[0], trust_of(traces[1])[start : start + samples])


def test_beyond_the_ends_nothing_is_valid_and_no_neighbour_shows() -> None:
    """A window may reach out on both sides: zeros without validity or trust."""
    of = bank(trace(300, name="a"), trace(100, name="b"), trace(300, name="c"))
    window = cut(of, 1, -50, 200)
    inside = torch.zeros(200, dtype=torch.bool)
    inside[50:150] = True
    assert torch.equal(window.valid[0], inside.expand(3, -1))
    assert not window.waveform[0, :, ~inside].any()
    assert not window.trust[0, ~inside].any()
    assert torch.equal(cut(of, 1, -0.5, 4, 1.0).valid[0, 0], torch.tensor([False, True, True, True]))


def test_a_trace_of_one_sample_is_no_trap() -> None:
    """Its window holds that sample and nothing of the trace before."""
    traces = [trace(50, name="a"), trace(1, name="b")]
    window = cut(bank(*traces), 1, 0, 3)
    assert window.valid[0, 0].tolist() == [True, False, False]
    assert window.waveform[0, :, 0].tolist() == traces[1].waveform[:, 0].tolist()


def test_a_gap_leaves_exactly_its_samples_out_and_one_more_where_samples_are_interpolated() -> None:
    """At rate one the sample before a gap stays valid; between samples both neighbours must be."""
    record = trace(400)
    record.valid[1, 100:110] = False
    record.waveform[1, 100:110] = 0
    of = bank(record)
    np.testing.assert_array_equal(cut(of, 0, 0, 400).valid[0], record.valid)
    halfway = cut(of, 0, 0.5, 300).valid[0, 1]
    assert (~halfway).nonzero().flatten().tolist() == list(range(99, 110))


@pytest.mark.parametrize("rate", [0.8, 0.93, 1.0, 1.1, 1.25])
def test_an_impulse_stays_under_its_label_however_time_is_stretched(rate: float) -> None:
    """Labels move with the samples, to within one."""
    record = trace(2000, [("P", 1000), ("S", 1201)])
    record.waveform[:] = 0
    record.waveform[0, 1000] = record.waveform[1, 1201] = 1
    window = cut(bank(record), 0, 321, 1600, rate)
    for component, position in enumerate(window.positions[0].tolist()):
        assert abs(int(window.waveform[0, component].argmax()) - position) <= 1


@pytest.mark.parametrize("stretch", [1.0, 1.25])
def test_draws_stay_inside_long_traces_and_hold_short_ones_whole(stretch: float) -> None:
    """512 samples of a trace of 2,000 are all valid; one of 200 or 400 shows from its first sample to its last."""
    long = bank(trace(2000, [("P", 3)], name="a"), trace(2000, [("S", 1998)], name="b"), trace(2000, name="c"))
    assert long.draw(2000, 512, stretch, generator()).valid.all()
    for samples in (200, 400):
        short = trace(samples)
        short.waveform[:] = np.arange(1, samples + 1)
        drawn = bank(short).draw(500, 512, stretch, generator())
        seen = torch.where(drawn.valid, drawn.waveform, torch.nan)[:, 0]
        assert seen.nan_to_num(samples).amin(1).max() < 1 + stretch
        assert seen.nan_to_num(0).amax(1).min() > samples - stretch


def test_every_window_of_a_labelled_trace_holds_an_arrival_away_from_its_edges() -> None:
    """Where the trace leaves room, an arrival lies 5 to 95 % into the window; at its ends, at least inside."""
    of = bank(
        trace(6000, [("P", 3000), ("S", 3300)], name="a"), trace(6000, [("P", 2), ("S", 5990)], name="b"),
        trace(300, [("S", 150)], name="c"), shares={"manual": 1.0},
    )  # fmt: skip
    drawn = of.draw(3000, 512, 1.25, generator())
    assert ((drawn.positions >= 0) & (drawn.positions < 512)).any(1).all()
    middle = bank(trace(6000, [("P", 3000)]), shares={"manual": 1.0}).draw(3000, 512, 1.25, generator())
    assert middle.positions.min() > 0.045 * 512
    assert middle.positions.max() < 0.955 * 512
    assert middle.positions.std() > 100, "arrivals are all over the window"


def mixed() -> list[Trace]:
    """Kinds and sources in very different numbers."""
    spec = [
        ("manual", "labelled", "x", 1), ("manual", "labelled", "y", 16), ("auto", "labelled", "x", 7),
        ("pseudo", "pseudo", "x", 40), ("noise", "noise", "x", 5),
    ]  # fmt: skip
    return [
        trace(
            70, [("P", 5)] if kind != "noise" else [], name=f"{status}{source}", status=status, kind=kind, source=source
        )
        for status, kind, source, count in spec
        for _ in range(count)
    ]


def test_kinds_are_drawn_by_their_shares_and_sources_by_the_root_of_their_number() -> None:
    """5,000 draws: each share within four standard deviations; 16 traces of a source weigh four times one."""
    traces = mixed()
    weights = draw_weights(traces, SHARES)
    for number, one in enumerate(traces):
        one.waveform[:] = number  # each window tells its trace
    drawn = bank(*traces, shares=SHARES).draw(5000, 1, 1.0, generator()).waveform[:, 0, 0].long()
    for status, share in SHARES.items():
        mine = np.array([t.status == status for t in traces])
        assert weights[mine].sum() == pytest.approx(share)
        assert abs(mine[drawn].mean() - share) < 4 * (share * (1 - share) / 5000) ** 0.5
    source = np.array([t.source for t in traces])
    manual = np.array([t.status == "manual" for t in traces])
    assert weights[manual & (source == "y")].sum() == pytest.approx(4 * weights[manual & (source == "x")].sum())


def test_noise_draws_take_noise_only_and_a_bank_without_noise_says_so() -> None:
    """``noise=True`` never cuts an earthquake."""
    traces = mixed()
    for one in traces:
        one.waveform[:] = float(one.kind == "noise")
    of = bank(*traces, shares=SHARES)
    assert of.has_noise
    assert of.draw(500, 8, 1.0, generator(), noise=True).waveform.min() == 1
    assert not bank(quake(300, 500)).has_noise


def test_a_status_that_no_share_knows_counts_as_manual_and_noise_is_noise_by_kind() -> None:
    """A catalogue without statuses is learnt from; a noise record that carries a status is not drawn as an event."""
    unknown, noise = trace(70, [("P", 5)], status=""), trace(70, status="manual")
    np.testing.assert_allclose(draw_weights([unknown, noise], SHARES), [5 / 6, 1 / 6])
    assert draw_weights([unknown], {"labelled": 1.0}).tolist() == [1.0]
    with pytest.raises(ValueError, match="none of 1 traces is of a kind to draw"):
        bank(trace(70, kind="pseudo", status="pseudo"))


def test_the_same_seed_draws_the_same_windows() -> None:
    """Every tensor equal to the last bit; another seed gives others."""
    of = bank(quake(800, 1200), trace(2000))
    one, same, other = (of.draw(16, 512, 1.25, generator(seed)) for seed in (3, 3, 4))
    for field in fields(Windows):
        assert torch.equal(getattr(one, field.name), getattr(same, field.name)), field.name
    assert not torch.equal(one.waveform, other.waveform)


def stretches(values: np.ndarray) -> list[tuple[float, int]]:
    """(value, length) of each stretch of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(round(float(values[a]), 3), b - a) for a, b in pairwise(edges)]


def test_trust_of_a_catalogue_record_falls_beyond_five_seconds_around_its_labels() -> None:
    """Unlabelled earthquakes may hide there; the labels themselves have their own trust within a second."""
    assert stretches(trust_of(trace(4000, [("P", 1000), ("S", 1500)], weight=0.5))) == [
        (0.3, 500), (1, 400), (0.5, 200), (1, 300), (0.5, 200), (1, 400), (0.3, 2000),
    ]  # fmt: skip


def test_trust_is_none_where_an_unread_phase_must_be() -> None:
    """After a lone P the S, before a lone S the P; the label's own second comes first."""
    assert stretches(trust_of(trace(4000, [("P", 1000)]))) == [(0.3, 500), (1, 600), (0, 1100), (0.3, 1800)]
    assert stretches(trust_of(trace(4000, [("S", 2000)]))) == [(0.3, 800), (0, 1100), (1, 600), (0.3, 1500)]


def test_trust_near_a_doubtful_pick_is_none_whatever_else_is_there() -> None:
    """Even within a second of a label; at the ends of a trace the second is cut."""
    doubtful = (Label(phase="S", sample=1050), Label(phase="P", sample=3990))
    record = trace(4000, [("P", 1000)], kind="pseudo", status="pseudo", weight=0.7, doubtful=doubtful)
    assert stretches(trust_of(record)) == [(1, 900), (0.7, 50), (0, 200), (1, 2740), (0, 110)]


def test_noise_is_trusted_throughout_and_machine_picks_do_not_lower_what_lies_around() -> None:
    """The rules of catalogue records are theirs alone."""
    assert stretches(trust_of(trace(4000))) == [(1, 4000)]
    pseudo = trace(4000, [("P", 1000), ("S", 1400)], kind="pseudo", status="pseudo", weight=0.7)
    assert stretches(trust_of(pseudo)) == [(1, 900), (0.7, 200), (1, 200), (0.7, 200), (1, 2500)]


def test_machines_that_agree_on_one_phase_alone_say_little_of_the_other() -> None:
    """Where the other phase must be its absence weighs ``lonely``; a doubtful pick of it is one."""
    more = {"kind": "pseudo", "status": "pseudo", "weight": 0.7}
    lone = trace(4000, [("P", 1000)], **more)
    assert stretches(trust_of(lone)) == [(1, 900), (0.7, 200), (0.3, 1100), (1, 1800)]
    assert stretches(trust_of(lone, lonely=1.0)) == [(1, 900), (0.7, 200), (1, 2900)]
    assert stretches(trust_of(trace(4000, [("S", 2000)], **more)))[:3] == [(1, 800), (0.3, 1100), (0.7, 200)]
    doubted = trace(4000, [("P", 1000)], **more, doubtful=(Label(phase="S", sample=1500),))
    assert stretches(trust_of(doubted)) == [(1, 900), (0.7, 200), (1, 300), (0, 200), (1, 2400)]


def test_an_arrival_lies_where_it_is_wanted_as_far_as_the_trace_reaches() -> None:
    """Stretched or not; where nothing is wanted it lies anywhere, and traces without arrivals do not mind."""
    of = bank(trace(6000, [("P", 3000)]), shares={"manual": 1.0})
    wanted = torch.linspace(10, 500, 200)
    wanted[::2] = torch.nan
    drawn = of.draw(200, 512, 1.5, generator(), near=wanted)
    off = (drawn.positions[:, 0] - wanted)[1::2]
    assert off.abs().max() <= 1.5
    assert drawn.positions[::2].std() > 100
    edge = bank(trace(6000, [("P", 20)]), shares={"manual": 1.0}).draw(50, 512, 1.0, generator(), near=wanted[:50])
    assert edge.valid.all()
    quiet = bank(trace(6000), shares={"noise": 1.0}).draw(50, 512, 1.5, generator(), near=wanted[:50])
    assert quiet.valid.all()
