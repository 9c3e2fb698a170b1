"""Pick identity: the same history on the same engine gives the same ID, before and after any restart."""

from __future__ import annotations

import uuid

from picker.decision import PhaseRule
from streamer.record import Nslc

NAMESPACE = uuid.UUID("6f1f0b3e-5d0a-5c52-9d55-0f7f2c1f6b6e")
"""Namespace of every pick ID. Changing it changes every ID, so it never changes."""


def threshold_text(rule: PhaseRule) -> str:
    """The threshold settings of one phase as the text that enters the pick ID."""
    return (
        f"threshold={rule.threshold!r},release={rule.release!r},"
        f"dead_time_s={rule.dead_time_s!r},longest_s={rule.longest_s!r}"
    )


def message_key(id: str, revision: int, status: str) -> str:
    """Identity of one message of a pick, by which its repetition is recognised: the id where it is the only one."""
    return id if (revision, status) == (1, "confirmed") else f"{id}/{revision}/{status}"


def pick_id(nslc: Nslc, phase: str, bundle_digest: str, thresholds: str, crossed_ns: int) -> str:
    """UUIDv5 (RFC 9562) of ``nslc|phase|bundle_digest|thresholds|crossed_ns`` in ``NAMESPACE``.

    ``nslc`` is written with dots, blank location empty; ``thresholds`` as ``threshold_text`` gives it; ``crossed_ns``,
    in decimal, is the instant of the sample at which the probability first reached the threshold, int ns UTC.
    """
    return str(uuid.uuid5(NAMESPACE, "|".join((str(nslc), phase, bundle_digest, thresholds, str(crossed_ns)))))
