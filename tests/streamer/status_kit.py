"""What the tests of retained messages share: chunks and picks of a station that lives, and schemas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import aiomqtt
import jsonschema
import numpy as np
from status_docs import schema_file

from picker.pick import Pick
from streamer.chunk import Chunk, StationKey
from streamer.message import Status
from streamer.station_watch import StationWatch
from streamer.tracker import Crossing, TrackedPick

KEY = StationKey("XX", "ONE", "", "HH")
SLOT_NS = 10_000_000
FIRST = 1_700_000_000 * 100 - 1_700_000_000 * 100 % 64
DELAY_NS = 2_000_000_000

VALIDATORS = {
    name: jsonschema.Draft202012Validator(
        json.loads(schema_file(name).read_text(encoding="utf-8")),
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )
    for name in ("daemon", "station")
}


def a_chunk(
    number: int,
    *,
    components: str = "ZNE",
    flags: Sequence[str] = (),
    reset: bool = False,
    station: StationKey = KEY,
    arrived_ns: int | None = None,
) -> Chunk:
    """The ``number``-th chunk of a station, arrived 2 s after its last sample."""
    first = FIRST + 64 * number
    valid = np.repeat([[name in components] for name in "ZNE"], 64, axis=1)
    return Chunk(
        station=station, first_sample=first, time_shift_ns=0, samples=np.zeros((3, 64), np.float32), valid=valid,
        reset=reset, data_complete_ns=(first + 63) * SLOT_NS + DELAY_NS if arrived_ns is None else arrived_ns,
        flags=frozenset(flags),
    )  # fmt: skip


def a_pick(
    chunk: Chunk, phase: str = "P", status: Status = "confirmed", offset: int = 0, revision: int = 1
) -> TrackedPick:
    """A pick in ``chunk``."""
    sample = chunk.first_sample + offset
    return TrackedPick(
        pick=Pick(
            phase=phase, sample=float(sample), probability=0.9, crossed_sample=sample, decided_sample=sample,
            uncertainty_samples=1.0,
        ),
        status=status, revision=revision, chunk=chunk,
        crossing=Crossing(sample=sample, time_shift_ns=0, components="ZNE"),
        time_shift_ns=0, flags=frozenset(), reset_age_s=1.0, measures=None, timing_quality=None,
    )  # fmt: skip


def feed(watch: StationWatch, chunks: Sequence[Chunk], picks_in: Sequence[int] = ()) -> list[bool]:
    """Chunks, and a P in those of ``picks_in``; which picks may be published."""
    published = []
    for index, chunk in enumerate(chunks):
        watch.chunk(chunk)
        published += [watch.pick(a_pick(chunk)) for number in picks_in if number == index]
    return published


def read(message: aiomqtt.Message) -> dict[str, Any]:
    """A status message received, held against the published schema."""
    assert isinstance(message.payload, bytes)
    content: dict[str, Any] = json.loads(message.payload)
    name = "station" if "band_instrument" in content else "daemon"
    VALIDATORS[name].validate(content)
    return content
