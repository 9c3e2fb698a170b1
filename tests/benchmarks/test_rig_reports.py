"""The figures of soak, fuzz and latency: computed from what was seen, and a bar that is missed is named."""

from __future__ import annotations

import fuzz
import latency
import pytest
import rig
import soak
from fuzz import Besieged, Fuzzed
from pymseed import MS3Record
from rig_subscriber import Heard
from soak_server import packets

START_NS = 1_700_000_000_000_000_000


def points(resident: list[float], files: int = 20) -> list[soak.Point]:
    return [
        soak.Point(hours=24 * n / len(resident), wall_s=60.0 * n, resident_mb=mb, files=files, threads=9, tasks=-1)
        for n, mb in enumerate(resident, 1)
    ]


@pytest.mark.parametrize(("late_mb", "expected"), [(101.5, []), (103.0, ["growth"]), (97.0, ["growth"])])
def test_soak_compares_the_end_with_the_warm_state(late_mb: float, expected: list[str]) -> None:
    """What happens before hour 2 does not count; 2 % up or down does."""
    warm = [50.0] * 2 + [100.0] * 18 + [late_mb] * 4
    figures = soak.bars(points(warm), 24.0)
    assert figures["hours"] == "24.00"
    assert figures["resident_mb_after_warm_up"] == "100.0"
    assert soak.missed(figures) == expected


def test_soak_sees_a_leak_of_descriptors() -> None:
    """More open files at the end than after the warm-up miss the bar, whatever the memory."""
    run = points([100.0] * 24)
    run[-4:] = [point._replace(files=21) for point in run[-4:]]
    assert soak.missed(soak.bars(run, 24.0)) == ["files"]


def test_the_soak_server_goes_on_in_time_without_a_gap() -> None:
    """Beyond its hour the same waveforms come again, an hour later, each channel without gap or overlap."""
    ends: dict[str, int] = {}
    numbers: dict[bytes, int] = {}
    for count, piece in enumerate(packets(2, 1.1, START_NS)):
        station = piece[17:24]
        number = int.from_bytes(piece[8:16], "little")
        assert number == numbers.get(station, 0) + 1
        numbers[station] = number
        if count % 5 and count > 500:  # reading them all takes long
            continue
        record = MS3Record.parse(piece[24:])
        ends[record.sourceid] = max(record.endtime, ends.get(record.sourceid, 0))
    assert set(ends) == {f"FDSN:XX_S00{n}__H_H_{c}" for n in (1, 2) for c in "ZNE"}
    assert all(abs(end - START_NS - 1.1 * 3600e9) < 60e9 for end in ends.values())


def test_fuzz_names_crashes_and_greedy_peers() -> None:
    """A crash, a wrong sample, a daemon that died or grew, and a server that was starved: each misses its bar."""
    sound = Fuzzed("records 2", 10, {"accepted": 3, "wrong": 0}, [], 0.1)
    calm, besieged = (Besieged(name, 100.0, 120.0, 50.0, True) for name in ("none", "seedlink"))
    assert fuzz.missed(fuzz.bars([sound], [calm, besieged])) == []
    bad = sound._replace(found={"wrong": 1}, crashes=["records 2, seed 1: exit status -11"])
    assert fuzz.missed(fuzz.bars([bad], [])) == ["crashes_or_hangs", "wrong_samples"]
    for change, key in (
        ({"most_mb": 400.0}, "growth_mb"), ({"alive": False}, "daemon_lives"), ({"records": 10.0}, "honest_share"),
    ):  # fmt: skip
        figures = fuzz.bars([sound], [calm, besieged._replace(**change)])
        assert fuzz.missed(figures) == [f"hostile_seedlink_{key}"]


def heard(after_s: float) -> Heard:
    onset = {
        "decided_time": "2023-11-14T22:13:21.000000Z",
        "latency": {"data_s": 0.5, "queue_s": 0.001, "inference_s": 0.02, "decision_s": 0.003},
    }
    return Heard(START_NS / 1e9 + 1.5 + after_s, {"id": "a", "analyticsInfo": {"extensions": {"onset": onset}}})


def test_latency_counts_from_the_arrival_of_the_data() -> None:
    """Arrival is the decided time plus data_s; median and 99th percentile have their bars, and picks must be enough."""
    good = latency.evaluate([heard(0.05)] * 990 + [heard(0.3)] * 10, {"daemon": 0.5})
    figures = latency.bars({"model": good})
    assert (figures["model_median_ms"], figures["model_most_ms"]) == ("50", "300")
    assert max(good.parts_s["delivery_s"]) == pytest.approx(0.276)
    assert latency.missed(figures) == []
    slow = latency.evaluate([heard(0.05)] * 900 + [heard(0.7)] * 100, {})
    assert latency.missed(latency.bars({"model": slow})) == ["model_p99_ms"]
    assert latency.missed(latency.bars({"model": latency.evaluate([heard(0.2)] * 400, {})})) == [
        "model_median_ms", "model_picks",
    ]  # fmt: skip


def test_metrics_add_up_by_label() -> None:
    """Counts are chosen by name and by a part of their labels."""
    counts = rig.Counter({'onset_x_total{reason="gap"}': 2.0, 'onset_x_total{reason="late"}': 1.0, "onset_y": 7.0})
    assert rig.total(counts, "onset_x_total") == 3
    assert rig.total(counts, "onset_x_total", 'reason="gap"') == 2
