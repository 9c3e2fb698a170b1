"""Probabilities to picks: the one place where a pick is decided, for the daemon, the evaluation and the parity proof.

A candidate opens where a phase's probability reaches its threshold, follows the highest probability seen, and is
decided as soon as the probability has fallen to ``release`` times that peak (or has stayed open for ``longest_s``
without a higher value). The pick stands in the middle of the top of the peak: at the mean place of the samples around
the highest one that reach ``TOP`` times its height (and the threshold), weighed by the square of what they have above
that. So a flat top has one middle, where its highest sample is anywhere on it, by rounding. After a pick the phase must
fall below its threshold and ``dead_time_s`` must pass before the next candidate opens. P and S are independent, except
that of two picks of different phases less than ``clash_s`` apart the less probable is dropped where it is not yet
decided.

The uncertainty of a pick is the standard deviation of the Gaussian that is as high as the peak and as wide: with w
samples from where the probability rises through ``threshold`` (level a) to where it falls to ``release`` times the peak
h (level b), it is w / (sqrt(2 ln(h / a)) + sqrt(2 ln(h / b))).

All of this is done with the probabilities of the network as they are. What is told of a pick, its probability and its
uncertainty, is then calibrated as the specification says (``picker.calibration``): the same picks, stated better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from picker.calibration import PhaseCalibration
from picker.pick import Pick, PickEvent
from picker.spec import PickerSpec

LEAST_UNCERTAINTY = 1 / math.sqrt(12)
"""Samples: the standard deviation of an instant of which only its sample is known."""


TOP, TOP_REACH = 0.8, 16
"""The top of a peak: samples this high, of its height, and no further from the highest one (samples)."""


@dataclass(frozen=True, kw_only=True)
class PhaseRule:
    """How picks of one phase are decided."""

    threshold: float = 0.3
    release: float = 0.5
    dead_time_s: float = 0.5
    longest_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, not {self.threshold}")
        if not 0 < self.release < 1:
            raise ValueError(f"release must lie between 0 and 1, not {self.release}")


@dataclass
class _Candidate:
    """A peak in the making. Sample numbers are absolute; at ``start``, between samples, it rose through ``level``.

    ``values`` end with that of sample ``last`` and begin TOP_REACH before the peak, or where it opened.
    """

    crossed: int
    start: float
    level: float
    peak: int
    height: float
    last: int
    values: list[float]

    def add(self, sample: int, value: float) -> bool:
        """One sample more; returns whether it is the highest."""
        highest = value > self.height
        if highest:
            self.peak, self.height = sample, value
        self.last = sample
        self.values.append(value)
        del self.values[: max(0, len(self.values) - 1 - (sample - self.peak) - TOP_REACH)]
        return highest

    def refined(self) -> float:
        """The middle of the top, see the top of this file; where it has not ended, as much before the peak as after."""
        low, since = max(TOP * self.height, self.level), self.last - self.peak
        middle = len(self.values) - 1 - since
        after = list(takewhile(lambda value: value > low, self.values[middle + 1 :][:TOP_REACH]))
        reach = TOP_REACH if len(after) < since else len(after)
        before = list(takewhile(lambda value: value > low, self.values[:middle][::-1][:reach]))
        weights = [(value - low) ** 2 for value in (*before[::-1], self.height, *after)]
        total = sum(weights)
        shift = sum(place * weight for place, weight in enumerate(weights, -len(before))) / total if total else 0.0
        return self.peak + shift

    def uncertainty(self, end: float, level: float) -> float:
        """Standard deviation in samples of a peak that fell through ``level`` at ``end``, see the top of this file."""
        spread = sum(math.sqrt(max(0.0, 2 * math.log(self.height / side))) for side in (self.level, level))
        # What was cut off while still high hardly falls: its own width is then the most that can be said.
        return max(LEAST_UNCERTAINTY, (end - self.start) / max(1.0, spread))


@dataclass
class _PhaseState:
    """What one phase remembers between samples."""

    previous: float = 0.0
    candidate: _Candidate | None = None
    armed: bool = True
    last: Pick | None = None


class Decider:
    """Decides the picks of one station from probabilities that arrive in pieces of any length."""

    FIXED = frozenset({"_spec", "_rules", "_rows", "_later", "_clash"})
    """Attributes that come from the settings; all others are what a snapshot keeps."""

    def __init__(self, spec: PickerSpec, rules: Mapping[str, PhaseRule] | None = None, clash_s: float = 0.2) -> None:
        self._spec = spec
        self._rules = {
            phase: (rules or {}).get(phase, PhaseRule(threshold=spec.thresholds[phase])) for phase in spec.thresholds
        }
        self._rows = {phase: spec.phases.index(phase) for phase in self._rules}
        self._later = {phase: spec.second_look_samples.get(phase, 0) for phase in self._rules}
        self._clash = clash_s * spec.sampling_rate_hz
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next sample may have any number."""
        self._phases = {phase: _PhaseState() for phase in self._rules}
        self._next: int | None = None
        self._begin = 0
        """The first sample that was fed; a second look speaks of samples before it, too, which nobody has seen."""

    def feed(self, first_sample: int, probabilities: NDArray[np.float32]) -> list[Pick]:
        """Picks decided by probabilities (P, n), whose column 0 speaks of sample ``first_sample``, as they are decided.

        A phase with a second look speaks of samples so much earlier.

        Raises ValueError where the samples do not follow on from the last call; call ``reset`` at a gap.
        """
        return _decided(self.follow(first_sample, probabilities))

    def flush(self) -> list[Pick]:
        """Decide the candidates still open, at the end of a record or before a reset."""
        return _decided(self.finish())

    def follow(self, first_sample: int, probabilities: NDArray[np.float32]) -> list[PickEvent]:
        """``feed``, with all that happened: what was decided or dropped, then what has crossed and is still open.

        A candidate that opens and closes within one call does not appear as ``crossed``, so that event alone depends
        on how the probabilities are cut into calls.
        """
        return [self._stated(event) for event in self._followed(first_sample, probabilities)]

    def _followed(self, first_sample: int, probabilities: NDArray[np.float32]) -> list[PickEvent]:
        if self._next is not None and first_sample != self._next:
            raise ValueError(f"sample {first_sample} does not follow {self._next - 1}: reset the decider at a gap")
        if self._next is None:
            self._begin = first_sample
        self._next = first_sample + probabilities.shape[1]
        values = {phase: probabilities[row].tolist() for phase, row in self._rows.items()}
        for phase, later in self._later.items():
            unseen = min(len(values[phase]), max(0, self._begin + later - first_sample))
            values[phase][:unseen] = [0.0] * unseen
        busy = [phase for phase in self._rules if not self._idle(phase, values[phase])]
        events = []
        # Sample by sample over all phases: what one phase decides may depend on where another stands at that sample.
        for offset in range(probabilities.shape[1] if busy else 0):
            for phase in busy:
                event = self._advance(phase, first_sample + offset - self._later[phase], values[phase][offset])
                if event is not None:
                    events.append(event)
        for phase in self._rules.keys() - set(busy):
            self._phases[phase].previous = values[phase][-1] if values[phase] else self._phases[phase].previous
        for phase in busy:
            candidate = self._phases[phase].candidate
            if candidate is not None and candidate.crossed >= first_sample - self._later[phase]:
                seen = self._next - 1 - self._later[phase]
                events.append(PickEvent(kind="crossed", pick=self._pick(phase, candidate, seen)))
        return events

    def finish(self) -> list[PickEvent]:
        """``flush``, with what was dropped."""
        still_open = [phase for phase, state in self._phases.items() if state.candidate is not None]
        ends = {phase: (self._next or 0) - 1 - self._later[phase] for phase in still_open}
        return [self._stated(self._close(phase, end, end, self._phases[phase].previous)) for phase, end in ends.items()]

    def _stated(self, event: PickEvent) -> PickEvent:
        """The event as it is told. What is remembered stays raw: phases are weighed by what the network says."""
        calibration: PhaseCalibration | None = self._spec.calibration.get(event.pick.phase)
        return event if calibration is None else replace(event, pick=calibration.stated(event.pick))

    def quiet(self, samples: float) -> bool:
        """Whether nothing is open or above its threshold, and no pick lies in the last ``samples`` decided upon."""
        return all(
            state.candidate is None
            and state.armed
            and (state.last is None or self._next is None or self._next - state.last.sample > samples)
            for state in self._phases.values()
        )

    def abandon(self) -> None:
        """Forget the candidates that are open; each phase must fall below its threshold before the next one opens."""
        for state in self._phases.values():
            if state.candidate is not None:
                state.candidate, state.armed = None, False

    def _idle(self, phase: str, values: list[float]) -> bool:
        """Whether these probabilities change nothing: no candidate is open, none can open, none is being waited out."""
        state = self._phases[phase]
        return state.candidate is None and state.armed and max(values, default=0.0) < self._rules[phase].threshold

    def _advance(self, phase: str, sample: int, value: float) -> PickEvent | None:
        state, rule = self._phases[phase], self._rules[phase]
        candidate, event = state.candidate, None
        if candidate is None:
            state.armed = state.armed or value < rule.threshold
            dead = state.last is not None and sample - state.last.sample < self._samples(rule.dead_time_s)
            if value >= rule.threshold and state.armed and not dead:
                state.candidate = _opened(sample, value, state.previous, rule.threshold)
        elif not candidate.add(sample, value):
            low = rule.release * candidate.height
            if value < low:
                event = self._close(phase, sample, sample - (low - value) / (state.previous - value), low)
            elif sample - candidate.peak > self._samples(rule.longest_s):
                event = self._close(phase, sample, sample, value)
            if event is not None:
                state.armed = value < rule.threshold
        state.previous = value
        return event

    def _close(self, phase: str, sample: int, end: float, level: float) -> PickEvent:
        """Decide what is open: ``sample`` is the last one seen, at ``end`` the probability fell through ``level``."""
        state = self._phases[phase]
        candidate = state.candidate
        assert candidate is not None
        state.candidate, state.armed = None, False
        pick = self._pick(phase, candidate, sample, candidate.uncertainty(end, level))
        if self._clashes(phase, pick):
            return PickEvent(kind="dropped", pick=pick)
        state.last = pick
        return PickEvent(kind="decided", pick=pick)

    def _pick(self, phase: str, candidate: _Candidate, sample: int, uncertainty: float | None = None) -> Pick:
        return Pick(
            phase=phase,
            sample=candidate.refined(),
            probability=candidate.height,
            crossed_sample=candidate.crossed,
            decided_sample=sample + self._spec.lookahead_of(phase),
            uncertainty_samples=uncertainty,
        )

    def _clashes(self, phase: str, pick: Pick) -> bool:
        """Whether another phase holds a more probable peak closer than ``clash_s``."""
        for other, state in self._phases.items():
            if other == phase:
                continue
            if state.last and abs(state.last.sample - pick.sample) < self._clash:
                return state.last.probability > pick.probability
            rival = state.candidate
            if rival and abs(rival.peak - pick.sample) < self._clash and rival.height > pick.probability:
                return True
        return False

    def _samples(self, seconds: float) -> float:
        return seconds * self._spec.sampling_rate_hz


def _opened(sample: int, value: float, before: float, threshold: float) -> _Candidate:
    """The candidate that opens at ``sample``; ``before`` is the probability of the sample before."""
    # Where a dead time ended above the threshold, nothing rises through it.
    start, level = (
        (sample, value) if before >= threshold else (sample - (value - threshold) / (value - before), threshold)
    )
    return _Candidate(crossed=sample, start=start, level=level, peak=sample, height=value, last=sample, values=[value])


def _decided(events: list[PickEvent]) -> list[Pick]:
    return [event.pick for event in events if event.kind == "decided"]


def decide(
    spec: PickerSpec, probabilities: NDArray[np.float32], rules: Mapping[str, PhaseRule] | None = None
) -> list[Pick]:
    """All picks of one record's probabilities (P, N); its first column speaks of sample 0 (see ``Decider.feed``)."""
    decider = Decider(spec, rules)
    return sorted([*decider.feed(0, probabilities), *decider.flush()], key=lambda pick: pick.sample)
