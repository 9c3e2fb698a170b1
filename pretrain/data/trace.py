"""A trace: three components of one station with what is known of the arrivals in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 100.0
COMPONENTS = "ZNE"

LABELLED, PSEUDO, NOISE, UNLABELLED = "labelled", "pseudo", "noise", "unlabelled"
"""Kinds of trace: picks of a catalogue; picks of other machines; a stretch in which no machine picked anything; a
stretch of which nothing is known, for learning without labels only."""

SIMULATED = "simulated"
"""Status of a labelled trace that `pretrain simulate` made."""

TRAIN, TUNE, DEV = "train", "tune", "dev"
"""Folds: trained on; held out of training for thresholds and early stopping; the development split."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """An arrival: ``sample`` counts from the first sample of its trace, ``weight`` (0 to 1) is the trust in it."""

    phase: str
    sample: float
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Three components of one station at 100 Hz.

    ``waveform`` (3, N) float32, components Z, N, E, in any amplitude unit, with the first valid sample of each
    component subtracted and zero where not ``valid`` (3, N). ``labels`` are in order of time. ``doubtful`` are picks on
    which the machines did not agree: neither an arrival nor its absence should be learnt near them. ``group`` names the
    event (or the stretch of a continuous record): traces of one group belong to one fold. ``channel`` tells the
    instrument where it is known, by channel codes (HHZ) or their first two letters (HH).
    """

    name: str
    waveform: NDArray[np.float32]
    valid: NDArray[np.bool_]
    labels: tuple[Label, ...] = ()
    doubtful: tuple[Label, ...] = ()
    kind: str = LABELLED
    fold: str = TRAIN
    status: str = ""
    split: str = ""
    source: str = ""
    group: str = ""
    channel: str = ""

    @property
    def samples(self) -> int:
        """Length N."""
        return len(self.waveform[0])

    @property
    def p_sample(self) -> float | None:
        """The first P label, or None."""
        return self.first("P")

    @property
    def s_sample(self) -> float | None:
        """The first S label, or None."""
        return self.first("S")

    def first(self, phase: str) -> float | None:
        """The first label of ``phase``, or None."""
        return next((label.sample for label in self.labels if label.phase == phase), None)
