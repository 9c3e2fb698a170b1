"""The bank: all traces on one device as flat tensors, from which windows are cut without leaving the device.

Reading and cutting on the host would limit training on a GPU: a small model takes thousands of windows a second.

Shapes: N traces, B windows, C components, W samples a window, K labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrain.data.trace import LABELLED, NOISE, PSEUDO, RATE_HZ, Trace

PHASES = ("P", "S")
DOUBT_S = 1.0
"""Neither an arrival nor its absence is learnt this close to a doubtful pick; a label's trust reaches as far."""
UNSEEN = -1e6
"""Position of a label that is not there."""


@dataclass(frozen=True)
class Windows:
    """A batch of windows.

    ``waveform`` (B, C, W) with the offset removed and zero where not ``valid`` (B, C, W); ``positions`` (B, K) samples
    from the start of the window (far outside it where there is no label); ``phases`` (B, K) 0 for P and 1 for S;
    ``trust`` (B, W) the weight of each sample's loss.
    """

    waveform: Tensor
    valid: Tensor
    positions: Tensor
    phases: Tensor
    trust: Tensor

    def but(self, **changes: Tensor) -> Windows:
        """A copy with some tensors replaced."""
        return replace(self, **changes)


LONELY_S = 0.5, 12.0
"""Where S must be after a P, and P before an S, in local records."""


def trust_of(trace: Trace, outside: float = 0.3, lonely: float = 0.3) -> NDArray[np.float32]:
    """How much each sample of a trace is worth learning from, (N,) between zero and one.

    The first rule that holds decides: zero within 1 s of a doubtful pick; a label's own trust within 1 s of it; zero
    where the other phase of a catalogue event must be but nobody read it (0.5 to 12 s after a lone P, before a lone S);
    ``outside`` beyond 5 s before the first and after the last label of a catalogue record, where unlabelled earthquakes
    may hide; ``lonely`` where the other phase of a pick of machines must be but they did not agree on one: they miss
    more than analysts do; one.
    """
    trust = np.ones(trace.samples, dtype=np.float32)

    def span(start_s: float, stop_s: float) -> slice:
        return slice(max(0, int(start_s * RATE_HZ)), max(0, int(stop_s * RATE_HZ)))

    times = [(label.phase, label.sample / RATE_HZ, label.weight) for label in trace.labels]
    if trace.kind == LABELLED and times:
        trust[span(0, times[0][1] - 5)] = outside
        trust[span(times[-1][1] + 5, trace.samples / RATE_HZ)] = outside
        phases = {phase for phase, _, _ in times}
        if "S" not in phases:
            trust[span(times[-1][1] + LONELY_S[0], times[-1][1] + LONELY_S[1])] = 0
        if "P" not in phases:
            trust[span(times[0][1] - LONELY_S[1], times[0][1] - LONELY_S[0])] = 0
    if trace.kind == PSEUDO:
        for phase, time_s in _lonely(trace):
            first, last = LONELY_S if phase == "P" else (-LONELY_S[1], -LONELY_S[0])
            trust[span(time_s + first, time_s + last)] = lonely
    for _, time_s, weight in times:
        trust[span(time_s - DOUBT_S, time_s + DOUBT_S)] = weight
    for label in trace.doubtful:
        trust[span(label.sample / RATE_HZ - DOUBT_S, label.sample / RATE_HZ + DOUBT_S)] = 0
    return trust


def _lonely(trace: Trace) -> Iterator[tuple[str, float]]:
    """Phase and time in s of each label without one of the other phase where it must be, doubtful ones included."""
    known = [(label.phase, label.sample / RATE_HZ) for label in (*trace.labels, *trace.doubtful)]
    for label in trace.labels:
        sign, time_s = (1 if label.phase == "P" else -1), label.sample / RATE_HZ
        if not any(
            phase != label.phase and LONELY_S[0] <= sign * (other - time_s) <= LONELY_S[1] for phase, other in known
        ):
            yield label.phase, time_s


class Bank:
    """Traces on a device; ``draw`` cuts random windows, ``shares`` says how often each kind is drawn.

    Raises ValueError where ``shares`` leaves nothing to draw.
    """

    def __init__(self, traces: Sequence[Trace], shares: Mapping[str, float], device: torch.device) -> None:
        weights = draw_weights(traces, shares)
        noise_weights = weights * np.array([t.kind == NOISE for t in traces])
        self.device = device
        self.waveform = torch.from_numpy(np.concatenate([t.waveform for t in traces], axis=1)).to(device)
        self.valid = torch.from_numpy(np.concatenate([t.valid for t in traces], axis=1)).to(device)
        self.trust = torch.from_numpy(np.concatenate([trust_of(t) for t in traces])).to(device)
        lengths = np.array([t.samples for t in traces])
        self.lengths = torch.from_numpy(lengths).to(device)
        self.starts = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)
        most = max([1, *(len(t.labels) for t in traces)])
        positions, phases = np.full((len(traces), most), UNSEEN, np.float32), np.zeros((len(traces), most), np.int64)
        for row, trace in enumerate(traces):
            for column, label in enumerate(trace.labels):
                positions[row, column], phases[row, column] = label.sample, PHASES.index(label.phase)
        self.positions, self.phases = torch.from_numpy(positions).to(device), torch.from_numpy(phases).to(device)
        self.weights = torch.from_numpy(weights).to(device)
        self.noise_weights = torch.from_numpy(noise_weights).to(device)
        self.has_noise = bool(noise_weights.any())

    def draw(
        self,
        batch: int,
        samples: int,
        stretch: float,
        generator: torch.Generator,
        noise: bool = False,
        near: Tensor | None = None,
    ) -> Windows:
        """``batch`` random windows of ``samples``; half are stretched in time by up to ``stretch`` either way.

        ``noise`` draws from the noise records only, of which there must be some (``has_noise``). ``near`` (B,) is the
        sample of the window at which an arrival should lie, as far as the trace reaches; anywhere where it is NaN.
        """
        weights = self.noise_weights if noise else self.weights
        rows = torch.multinomial(weights, batch, replacement=True, generator=generator)
        uniform = torch.rand(3, batch, device=self.device, generator=generator)
        rate = torch.where(uniform[2] < 0.5, stretch ** (2 * uniform[0] - 1), torch.ones_like(uniform[0]))
        near = near if near is not None else torch.full_like(rate, torch.nan)
        within = torch.where(near.isnan(), (samples - 1) * (0.05 + 0.9 * uniform[1]), near)
        start = self._starts(rows, (samples - 1) * rate, within * rate, uniform[1], generator)
        return self.cut(rows, start, rate, samples)

    def _starts(
        self, rows: Tensor, span: Tensor, within: Tensor, uniform: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Starts (B,) of windows of ``span`` samples of a trace, one of whose arrivals lies ``within`` it (B,) there.

        Of a trace without arrivals any stretch is taken. A window stays inside a longer trace; a shorter trace lies
        wholly inside its window.
        """
        slack = self.lengths[rows] - 1 - span
        known = self.positions[rows] > UNSEEN / 2
        labelled = known.any(1)
        chosen = torch.multinomial((known | ~labelled[:, None]).float(), 1, generator=generator)
        around = self.positions[rows].gather(1, chosen)[:, 0] - within
        start = torch.where(labelled, around, slack * uniform).floor()
        return start.clamp(min=slack.ceil().clamp(max=0), max=slack.floor().clamp(min=0))

    def cut(self, rows: Tensor, start: Tensor, rate: Tensor, samples: int) -> Windows:
        """Windows of the traces ``rows`` (B,) from sample ``start`` (B,), read at ``rate`` samples a sample.

        Where ``rate`` is one the samples are exact; elsewhere they are interpolated linearly. What lies beyond the ends
        of a trace is not valid.
        """
        place = start[:, None] + torch.arange(samples, device=self.device) * rate[:, None]
        low = place.floor()
        share = (place - low)[:, None]
        end = self.lengths[rows, None] - 1
        inside = (place >= 0) & (place <= end)
        low = low.long().clamp(min=0).minimum(end)
        index = self.starts[rows, None] + low
        after = self.starts[rows, None] + (low + 1).minimum(end)
        left, right = self.waveform[:, index].transpose(0, 1), self.waveform[:, after].transpose(0, 1)
        # Where a sample is met exactly, its right neighbour has no say.
        right_valid = self.valid[:, after].transpose(0, 1) | (share == 0)
        valid = self.valid[:, index].transpose(0, 1) & right_valid & inside[:, None]
        return Windows(
            waveform=torch.lerp(left, right, share) * valid,
            valid=valid,
            positions=(self.positions[rows] - start[:, None]) / rate[:, None],
            phases=self.phases[rows],
            trust=self.trust[index] * inside,
        )


def draw_weights(traces: Sequence[Trace], shares: Mapping[str, float]) -> NDArray[np.float64]:
    """Probability of drawing each trace, (N,): shares by status, else kind; within one, sources by sqrt(count).

    Noise records count as ``noise`` whatever their status; catalogue records of a status that ``shares`` does not know
    count as ``manual``, as their labels do. Raises ValueError where nothing is left to draw.
    """
    keys = [_share_of(trace, shares) for trace in traces]
    sources = Counter(zip(keys, (t.source for t in traces), strict=True))
    raw = np.array([sources[key, t.source] ** -0.5 for key, t in zip(keys, traces, strict=True)])
    totals = {key: raw[[k == key for k in keys]].sum() for key in set(keys)}
    weights = np.array([shares.get(key, 0.0) * value / totals[key] for key, value in zip(keys, raw, strict=True)])
    if not weights.any():
        raise ValueError(f"none of {len(traces)} traces is of a kind to draw ({', '.join(shares)})")
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _share_of(trace: Trace, shares: Mapping[str, float]) -> str:
    if trace.kind == NOISE:
        return NOISE
    if trace.status in shares:
        return trace.status
    return trace.kind if trace.kind in shares or trace.kind != LABELLED else "manual"
