"""Which channel is which component, and which instrument of a station is picked (SEED 2.4 appendix A, FDSN codes).

A channel code is band, instrument, orientation. Accepted bands are those that can hold 20-500 Hz; accepted instruments
are H and L (seismometer, high and low gain), N (accelerometer) and P (geophone).

| orientations seen | Z | N | E | |
|---|---|---|---|---|
| Z N E | Z | N | E | letters always mean themselves |
| Z 1 2 | Z | 1 | 2 | horizontals not aligned north and east |
| Z 2 3 | Z | 2 | 3 | |
| 1 2 3 | 1 | 2 | 3 | no Z: the first is taken as the vertical |
| Z 1 2 3 | Z | 1 | 2 | 3 has no component left |
| Z N E 1 2 | Z | N | E | 1 and 2 have no component left |
| 1 2 | - | 1 | 2 | no vertical |
| Z 1, Z 2, Z 3 | Z | 1 | 2 or 3 | the set is read as Z 1 2 until a 3 without a 1 says otherwise |

The components are turned to up, north and east where StationXML says how they point (``streamer.orientation``), else
they stay as they are: the picker was trained with horizontals of any direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from streamer.record import Nslc

COMPONENTS = "ZNE"
BANDS = {
    "F": "1000-5000 Hz, long period",
    "G": "1000-5000 Hz, short period",
    "D": "250-1000 Hz, short period",
    "C": "250-1000 Hz, long period",
    "E": "80-250 Hz, short period",
    "S": "10-80 Hz, short period",
    "H": "80-250 Hz, long period",
    "B": "10-80 Hz, long period",
}
INSTRUMENTS = {"H": "high-gain seismometer", "L": "low-gain seismometer", "N": "accelerometer", "P": "geophone"}
ORIENTATIONS = "ZNE123"
DEFAULT_PREFERENCE = ("HH", "BH", "EH", "?H", "?P", "?L", "HN", "?N")


def normalised(nslc: Nslc) -> Nslc:
    """Codes in capitals without padding; ``--`` is a blank location."""
    network, station, location, channel = (code.strip().upper() for code in nslc)
    return Nslc(network, station, "" if location == "--" else location, channel)


def refusal(channel: str) -> str | None:
    """Why ``channel`` (three letters) cannot be picked, or None where it can."""
    if len(channel) != 3:
        return "not_three_letters"
    band, instrument, orientation = channel[0], channel[1], channel[2]
    if instrument not in INSTRUMENTS:
        return "not_seismic"
    if band not in BANDS:
        return "band_not_picked"
    if orientation not in ORIENTATIONS:
        return "orientation_not_picked"
    return None


def components(orientations: Iterable[str]) -> dict[str, str]:
    """Component of each orientation letter of one instrument; letters without a component are left out."""
    seen = set(orientations)
    found = {letter: letter for letter in COMPONENTS if letter in seen}
    numbers = [number for number in "123" if number in seen]
    if len(numbers) == 1:
        wanted = "N" if numbers == ["1"] else "E"
    else:
        wanted = "ZNE" if len(numbers) == 3 and "Z" not in seen else "NE"
    for number, component in zip(numbers, wanted, strict=False):
        if component not in found:
            found[number] = component
    return found


def preference_rank(
    band_instrument: str, location: str, prefer: Sequence[str] = DEFAULT_PREFERENCE
) -> tuple[int, int, str, str]:
    """Sort key of one instrument of a station: the smallest is picked.

    The first pattern of ``prefer`` (``?`` is any letter) that fits decides; instruments that none fits come last,
    accelerometers after seismometers. Then the alphabet, then the location, blank before ``00`` before ``10``.
    """
    for index, pattern in enumerate(prefer):
        if fnmatchcase(band_instrument, pattern):
            return index, 0, band_instrument, location
    return len(prefer), int(band_instrument.endswith("N")), band_instrument, location
