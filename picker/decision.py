"""Probabilities to picks: the one place where a pick is decided, for the daemon, the evaluation and the parity proof.

A candidate opens where a phase's probability reaches its threshold, follows the highest probability seen, and is
decided as soon as the probability has fallen to ``release`` times that peak (or has stayed open for ``longest_s``
without a higher value). The peak is refined below one sample by a parabola. After a pick the phase must fall below its
threshold and ``dead_time_s`` must pass before the next candidate opens. P and S are independent, except that of two
picks of different phases less than ``clash_s`` apart the less probable is dropped where it is not yet published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from picker.pick import Pick
from picker.spec import PickerSpec


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
    """A peak in the making. Sample numbers are absolute."""

    crossed: int
    peak: int
    before: float
    height: float
    after: float | None = None

    def refined(self) -> float:
        """Peak position from the parabola through the highest sample and its neighbours."""
        after = self.after if self.after is not None else self.before
        curvature = self.before - 2 * self.height + after
        shift = 0.5 * (self.before - after) / curvature if curvature < 0 else 0.0
        return self.peak + min(0.5, max(-0.5, shift))


@dataclass
class _PhaseState:
    """What one phase remembers between samples."""

    previous: float = 0.0
    candidate: _Candidate | None = None
    armed: bool = True
    last: Pick | None = None


class Decider:
    """Decides the picks of one station from probabilities that arrive in pieces of any length."""

    def __init__(self, spec: PickerSpec, rules: Mapping[str, PhaseRule] | None = None, clash_s: float = 0.2) -> None:
        self._spec = spec
        self._rules = {
            phase: (rules or {}).get(phase, PhaseRule(threshold=spec.thresholds[phase])) for phase in spec.thresholds
        }
        self._rows = {phase: spec.phases.index(phase) for phase in self._rules}
        self._clash = clash_s * spec.sampling_rate_hz
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next sample may have any number."""
        self._phases = {phase: _PhaseState() for phase in self._rules}
        self._next: int | None = None

    def feed(self, first_sample: int, probabilities: NDArray[np.float32]) -> list[Pick]:
        """Picks decided by probabilities (P, n), whose column 0 speaks of sample ``first_sample``, as they are decided.

        Raises ValueError where the samples do not follow on from the last call; call ``reset`` at a gap.
        """
        if self._next is not None and first_sample != self._next:
            raise ValueError(f"sample {first_sample} does not follow {self._next - 1}: reset the decider at a gap")
        self._next = first_sample + probabilities.shape[1]
        values = {phase: probabilities[row].tolist() for phase, row in self._rows.items()}
        busy = [phase for phase in self._rules if not self._idle(phase, values[phase])]
        picks = []
        # Sample by sample over all phases: what one phase decides may depend on where another stands at that sample.
        for offset in range(probabilities.shape[1] if busy else 0):
            for phase in busy:
                pick = self._advance(phase, first_sample + offset, values[phase][offset])
                if pick is not None:
                    picks.append(pick)
        for phase in self._rules.keys() - set(busy):
            self._phases[phase].previous = values[phase][-1] if values[phase] else self._phases[phase].previous
        return picks

    def flush(self) -> list[Pick]:
        """Decide the candidates still open, at the end of a record or before a reset."""
        end = (self._next or 0) - 1
        still_open = [phase for phase, state in self._phases.items() if state.candidate is not None]
        picks = (self._close(phase, end) for phase in still_open)
        return [pick for pick in picks if pick is not None]

    def _idle(self, phase: str, values: list[float]) -> bool:
        """Whether these probabilities change nothing: no candidate is open, none can open, none is being waited out."""
        state = self._phases[phase]
        return state.candidate is None and state.armed and max(values, default=0.0) < self._rules[phase].threshold

    def _advance(self, phase: str, sample: int, value: float) -> Pick | None:
        state, rule = self._phases[phase], self._rules[phase]
        candidate, pick = state.candidate, None
        if candidate is None:
            state.armed = state.armed or value < rule.threshold
            dead = state.last is not None and sample - state.last.sample < self._samples(rule.dead_time_s)
            if value >= rule.threshold and state.armed and not dead:
                state.candidate = _Candidate(crossed=sample, peak=sample, before=state.previous, height=value)
        elif value > candidate.height:
            candidate.peak, candidate.before, candidate.height, candidate.after = sample, state.previous, value, None
        else:
            if candidate.after is None:
                candidate.after = value
            if value < rule.release * candidate.height or sample - candidate.peak > self._samples(rule.longest_s):
                pick = self._close(phase, sample)
                state.armed = value < rule.threshold
        state.previous = value
        return pick

    def _close(self, phase: str, sample: int) -> Pick | None:
        state = self._phases[phase]
        candidate = state.candidate
        assert candidate is not None
        state.candidate, state.armed = None, False
        pick = Pick(
            phase=phase,
            sample=candidate.refined(),
            probability=candidate.height,
            crossed_sample=candidate.crossed,
            decided_sample=sample + self._spec.lookahead_samples,
        )
        if self._clashes(phase, pick):
            return None
        state.last = pick
        return pick

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


def decide(
    spec: PickerSpec, probabilities: NDArray[np.float32], rules: Mapping[str, PhaseRule] | None = None
) -> list[Pick]:
    """All picks of one record's probabilities (P, N); sample 0 is its first column."""
    decider = Decider(spec, rules)
    return sorted([*decider.feed(0, probabilities), *decider.flush()], key=lambda pick: pick.sample)
