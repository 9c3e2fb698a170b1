"""Channel codes of real networks: which are picked, as which component, and which instrument wins."""

from __future__ import annotations

import pytest

from streamer.channels import components, normalised, preference_rank, refusal
from streamer.record import Nslc


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("ZNE", {"Z": "Z", "N": "N", "E": "E"}),
        ("Z12", {"Z": "Z", "1": "N", "2": "E"}),
        ("Z23", {"Z": "Z", "2": "N", "3": "E"}),
        ("123", {"1": "Z", "2": "N", "3": "E"}),
        ("Z123", {"Z": "Z", "1": "N", "2": "E"}),
        ("ZNE12", {"Z": "Z", "N": "N", "E": "E"}),
        ("Z", {"Z": "Z"}),
        ("Z1", {"Z": "Z", "1": "N"}),
        ("Z2", {"Z": "Z", "2": "E"}),
        ("12", {"1": "N", "2": "E"}),
        ("N2", {"N": "N", "2": "E"}),
        ("NE", {"N": "N", "E": "E"}),
        ("", {}),
    ],
)
def test_orientations_to_components(seen: str, expected: dict[str, str]) -> None:
    """The table of the module holds, and no component is given twice."""
    found = components(seen)
    assert found == expected
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    "channel", ["HHZ", "BHN", "EHE", "SHZ", "HNZ", "BH1", "HH2", "HH3", "EPZ", "HLE", "DHZ", "CNZ"]
)
def test_picked_channels(channel: str) -> None:
    """Seismometers, geophones and accelerometers of the bands that can hold 20-500 Hz."""
    assert refusal(channel) is None


@pytest.mark.parametrize(
    ("channel", "reason"),
    [
        ("LOG", "not_seismic"),
        ("BDF", "not_seismic"),
        ("HDH", "not_seismic"),
        ("VM1", "not_seismic"),
        ("LHZ", "band_not_picked"),
        ("VHZ", "band_not_picked"),
        ("HHU", "orientation_not_picked"),
        ("BHR", "orientation_not_picked"),
        ("XX_YY_ZZ", "not_three_letters"),
        ("", "not_three_letters"),
    ],
)
def test_refused_channels(channel: str, reason: str) -> None:
    """State of health, infrasound, long period and rotated channels each have their reason."""
    assert refusal(channel) == reason


@pytest.mark.parametrize("location", ["", "--", "  "])
def test_codes_are_normalised(location: str) -> None:
    """Lower case, padding and the two ways to write a blank location."""
    assert normalised(Nslc("xx", "test ", location, "hhz")) == Nslc("XX", "TEST", "", "HHZ")


def test_default_preference() -> None:
    """HH, BH, EH, other seismometers, geophones, low gain, then accelerometers; locations blank first."""
    order = [
        ("HH", ""),
        ("HH", "00"),
        ("HH", "10"),
        ("BH", ""),
        ("EH", ""),
        ("SH", ""),
        ("EP", ""),
        ("EL", ""),
        ("HN", ""),
    ]
    order.append(("EN", ""))
    reverse = order[::-1]
    assert sorted(reverse, key=lambda one: preference_rank(*one)) == order


def test_preference_can_be_overridden() -> None:
    """The settings' patterns come first; whatever they leave out stays usable, accelerometers last."""
    codes = ["HH", "BH", "HN", "SH", "EN"]
    assert sorted(codes, key=lambda code: preference_rank(code, "", ("HN", "B?"))) == ["HN", "BH", "HH", "SH", "EN"]
