"""Selectors of both protocols against real codes."""

from __future__ import annotations

import time

import pytest

from streamer.replay.selector import parse_v3, parse_v4, selects
from streamer.replay.stream import parse_source_id
from streamer.replay.timecode import format_iso, format_slashes, parse_any, parse_commas, parse_iso


@pytest.mark.parametrize(
    ("selector", "stream", "kind", "wanted"),
    [
        ("BHZ", "00_B_H_Z", "2D", True),
        ("BHZ", "_B_H_Z", "2D", True),
        ("BHZ", "00_B_H_N", "2D", False),
        ("00BHZ", "00_B_H_Z", "2D", True),
        ("00BHZ", "_B_H_Z", "2D", False),
        ("00BHZ.D", "00_B_H_Z", "2D", True),
        ("00BHZ.L", "00_B_H_Z", "2D", False),
        ("--BHZ", "_B_H_Z", "2D", True),
        ("--BHZ", "00_B_H_Z", "2D", False),
        ("??BH?", "_B_H_Z", "2D", True),
        ("BH?", "10_B_H_E", "2D", True),
        ("0BHZ", "0_B_H_Z", "2D", True),
        ("*", "00_B_H_Z", "2D", True),
        ("*Z", "00_B_H_Z", "2D", True),
        ("B*", "00_B_H_Z", "2D", True),
        ("B*", "00_H_H_Z", "2D", False),
        ("D", "00_B_H_Z", "2D", True),
        ("L", "00_B_H_Z", "2D", False),
        (".D", "00_B_H_Z", "2D", True),
        ("BHZ", "00_B_HH_Z", "2D", False),
    ],
)
def test_v3_selector(selector: str, stream: str, kind: str, wanted: bool) -> None:
    """LLCCC.T with parts left out, ``-`` for a blank and wildcards."""
    name = parse_source_id(f"FDSN:XX_STA_{stream}")
    assert parse_v3(selector).matches(name, kind) is wanted
    assert selects([parse_v3(f"!{selector}")], name, kind) is not wanted


@pytest.mark.parametrize(
    ("selector", "stream", "kind", "wanted"),
    [
        ("00_B_H_Z", "00_B_H_Z", "2D", True),
        ("_B_H_Z", "00_B_H_Z", "2D", False),
        ("_B_H_Z", "_B_H_Z", "2D", True),
        ("*_B_H_?", "00_B_H_Z", "3D", True),
        ("_*Z", "_B_H_Z", "2D", True),
        ("_*Z", "00_B_H_Z", "2D", False),
        ("_*Z", "_B_Z_H", "2D", False),
        ("*.2D", "00_B_H_Z", "2D", True),
        ("*.2", "00_B_H_Z", "2D", True),
        ("*.D", "00_B_H_Z", "2D", False),
        ("*.?L", "00_B_H_Z", "2D", False),
        ("*_Z:native", "00_B_H_Z", "2D", True),
        ("*", "LOC9_BB_SS_XYZ", "3D", True),
    ],
)
def test_v4_selector(selector: str, stream: str, kind: str, wanted: bool) -> None:
    """Stream patterns are anchored at both ends, format patterns at the beginning (SeedLink 4.0, Pattern matching)."""
    assert parse_v4(selector).matches(parse_source_id(f"FDSN:XX_STA_{stream}"), kind) is wanted


@pytest.mark.parametrize("text", ["B", "BH", "00BHZX", "00_B_H_Z", "BHZ.", "BHZ.X", "BHZ.DD", "!", "BH Z", "BH[Z]"])
def test_bad_v3_selectors_are_refused(text: str) -> None:
    """What is no v3 selector, v4 ones among them, is an error and not a filter that matches nothing."""
    with pytest.raises(ValueError, match=r".+"):
        parse_v3(text)


def test_positive_and_negative_selectors_together() -> None:
    """A stream is served when any positive selector means it, or there is none, and no negative one does."""
    z, e = parse_source_id("FDSN:XX_STA_00_B_H_Z"), parse_source_id("FDSN:XX_STA_00_B_H_E")
    both = [parse_v4("*_B_*"), parse_v4("!*_E")]
    assert (selects(both, z, "2D"), selects(both, e, "2D")) == (True, False)
    assert selects([], e, "2D")


def test_a_hostile_pattern_is_matched_quickly() -> None:
    """Many stars do not make matching exponential."""
    selector = parse_v4("*a" * 100 + "b")
    begun = time.perf_counter()
    assert not selector.matches(parse_source_id(f"FDSN:XX_STA_{'a' * 60}_B_H_Z"), "2D")
    assert time.perf_counter() - begun < 1.0


def test_times_of_both_protocols() -> None:
    """Commas with up to seven fields and ISO 8601 with fractions give the same nanoseconds; formats lead back."""
    time_ns = 1_274_977_440_250_000_000
    assert parse_commas("2010,5,27,16,24,0,250000000") == parse_iso("2010-05-27T16:24:00.25Z") == time_ns
    assert parse_any("2010,05,27") == parse_any("2010-05-27T00:00:00Z")
    assert parse_commas("2016,12,31,23,59,60") == parse_commas("2017,1,1")
    assert parse_iso(format_iso(time_ns)) == time_ns
    assert format_slashes(time_ns) == "2010/05/27 16:24:00.2500"
    for wrong in ("2010,5", "2010,5,40", "2010-05-27", "now", "2010,5,27,1,1,1,1,1", "²010,5,27"):
        with pytest.raises(ValueError, match=r".+"):
            parse_any(wrong)
