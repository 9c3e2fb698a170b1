"""A pick as the decision code knows it: sample numbers and probabilities, no clock and no station."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Pick:
    """One decided phase arrival on the 100 Hz sample grid.

    Sample numbers count from the same origin as the probabilities that were fed (in the daemon: the station's grid
    counted from the Unix epoch). ``sample`` is refined below one sample; ``crossed_sample`` is the first sample whose
    probability reached the threshold and never changes for this pick; ``decided_sample`` is the last input sample that
    had been seen when the pick was decided, so ``decided_sample - sample`` is the latency in data time.
    ``probability`` is that of the pick being right and ``uncertainty_samples`` the standard deviation of ``sample``,
    as far as the bundle is calibrated (``picker.calibration``): otherwise the highest raw probability, and what the
    width of the peak speaks for (``picker.decision``). The latter is None where the peak was not yet over.
    """

    phase: str
    sample: float
    probability: float
    crossed_sample: int
    decided_sample: int
    uncertainty_samples: float | None = None


@dataclass(frozen=True, kw_only=True)
class PickEvent:
    """What happened to a candidate, and the pick as it stands.

    ``crossed``: it has reached its threshold and its peak is still followed; ``pick`` is its highest sample so far.
    ``decided``: it is a pick. ``dropped``: it is none, because a likelier one of another phase lies too close.
    """

    kind: Literal["crossed", "decided", "dropped"]
    pick: Pick
