"""The demo's records: what is served is what obspy ships, moved in time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pymseed
import pytest
from obspy import Stream

from demo.onsets import load_onsets
from demo.prepare import RECORD_BYTES, encode, prepare
from demo.records import LEAD_IN_S, SOURCES, TIMELINE_START, Served, Source, load

MICROSECOND_NS = 1000


@pytest.fixture(scope="module", params=SOURCES, ids=lambda source: source.key)
def served(request: pytest.FixtureRequest) -> Served:
    return load(request.param)


def test_records_are_low_latency_miniseed_2_with_the_samples_of_the_original(served: Served) -> None:
    """512 bytes, at most one second, Steim2; put together again each channel has its samples and its moved time."""
    expected = {tuple(trace.id.split(".")): trace for trace in served.stream}
    found: dict[tuple[str, ...], list[tuple[int, np.ndarray]]] = {}
    for record in pymseed.MS3Record.from_buffer(encode(served), unpack_data=True):
        assert record.reclen == RECORD_BYTES
        assert record.formatversion == 2
        assert record.encoding == pymseed.DataEncoding.STEIM2
        codes = tuple(pymseed.sourceid2nslc(record.sourceid))
        assert record.numsamples <= round(expected[codes].stats.sampling_rate)
        found.setdefault(codes, []).append((record.starttime, np.array(record.datasamples)))
    assert found.keys() == expected.keys()
    for codes, pieces in found.items():
        trace = expected[codes]
        assert abs(pieces[0][0] - served.shift_ns - trace.stats.starttime.ns) <= MICROSECOND_NS
        np.testing.assert_array_equal(np.concatenate([samples for _, samples in pieces]), trace.data)


def test_records_are_moved_by_whole_seconds_to_their_place_on_the_timeline(served: Served) -> None:
    """Sampling instants keep their fraction of a second, and the source begins where the table says."""
    assert served.shift_ns % 1_000_000_000 == 0
    start_ns = min(trace.stats.starttime.ns for trace in served.stream) + served.shift_ns
    assert abs(start_ns - TIMELINE_START.ns - served.source.at_s * 10**9) <= 500_000_000


def test_the_lead_in_is_the_time_before_the_first_onset(served: Served) -> None:
    """The stated lead-in is true, and a short one is said in the note."""
    first_s = []
    for trace in served.stream:
        mine = [o for o in load_onsets() if o.station == trace.stats.station and o.certain]
        offsets_s = [(o.time_ns - trace.stats.starttime.ns) / 1e9 for o in mine]
        first_s += [s for s in offsets_s if 0 <= s <= trace.stats.npts / trace.stats.sampling_rate]
    assert served.source.lead_in_s == pytest.approx(min(first_s), abs=0.1)
    assert served.source.lead_in_s >= LEAD_IN_S or "before P" in served.source.note


def test_records_of_one_station_do_not_overlap_on_the_timeline() -> None:
    """A station that has several records has one at a time, with a gap between them that resets its model."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for one in map(load, SOURCES):
        for trace in one.stream:
            span = (trace.stats.starttime.ns + one.shift_ns, trace.stats.endtime.ns + one.shift_ns)
            spans.setdefault(trace.id, []).append(span)
    for of_channel in spans.values():
        ordered = sorted(of_channel)
        assert all(later[0] - earlier[1] > 5 * 10**9 for earlier, later in pairwise(ordered))


def test_prepare_replaces_its_files_and_touches_no_others(tmp_path: Path) -> None:
    """What an earlier version of the demo left there is not served; what is not miniSEED stays."""
    (tmp_path / "old.mseed").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("mine")
    prepare(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["notes.txt", *(f"{source.key}.mseed" for source in SOURCES)]
    )


def test_a_missing_record_is_one_clear_error() -> None:
    """An obspy without its test data is named, with the mend."""
    source = Source(key="x", name="Nowhere", at_s=0, lead_in_s=0.0, read=Stream, channels={"A.BHZ": ("XX", "A", "BHZ")})
    with pytest.raises(FileNotFoundError, match=r"Nowhere: found 0 of 1 channels in obspy .* install"):
        load(source)
