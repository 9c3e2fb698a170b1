"""What a snapshot holds is pinned: whoever changes it is told to raise ``LAYOUT``."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
from station_data import KEY, by_time, noise, packets

from picker.spec import PickerSpec
from streamer.snapshot_file import LAYOUT
from streamer.snapshot_tree import CLASSES
from streamer.stations import Stations
from streamer.tracker import Tracker

PINNED = {1: "31740d13f9b6cfb3", 2: "cab8416f32ff2989", 3: "67ca94899fd07441"}
"""By layout, the digest of the names of all attributes that a snapshot keeps."""


def test_layout_is_raised_with_what_a_snapshot_holds() -> None:
    """An older snapshot that would be put back wrong must be refused by its number.

    If this fails: raise ``LAYOUT`` in streamer/snapshot_file.py and pin the digest that is printed here under it.
    """
    text = json.dumps(kept(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert PINNED.get(LAYOUT) == digest, f"layout {LAYOUT}: {digest}\n{text}"
    assert max(PINNED) == LAYOUT


def kept() -> dict[str, list[str]]:
    """Attributes of each class, from objects that have lived a little."""
    stations = Stations()
    for one in by_time([one for letter in "ZNE" for one in packets(letter, noise(1000), [70], rate_hz=125.0)]):
        stations.add(one, one.end_ns)
    spec = PickerSpec(name="test", lookahead_samples=64, state=())
    tracker = Tracker(spec)
    for chunk in stations.ready():
        tracker.feed(chunk, np.zeros((3, 64), np.float32))
    station = stations.sites[KEY.network, KEY.station].station
    assert station is not None
    component = station.components["Z"]
    live = [station, component, component.resampler, component.zero_fill, tracker, tracker.decider]
    names = {type(one).__name__: sorted(set(vars(one)) - getattr(one, "FIXED", set())) for one in live}
    for kind in CLASSES:
        if dataclasses.is_dataclass(kind):
            names[kind.__name__] = [field.name for field in dataclasses.fields(kind)]
        elif issubclass(kind, tuple):
            names[kind.__name__] = list(kind._fields)
    return names
