"""Validation while training: the tune fold through the model in one pass, decided and scored as in the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from picker.drive import of_samples
from picker.model.picker import Picker, specification
from pretrain.data.trace import Trace
from pretrain.evaluate import batches, decided
from pretrain.metric import PHASES, PhaseScore, Reference, TracePick, score

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


@torch.no_grad()
def validate(model: Picker, traces: Sequence[Trace], device: torch.device) -> dict[float, dict[str, PhaseScore]]:
    """Scores by threshold and phase on ``traces``, from the whole records at once (offline is streaming: see tests)."""
    spec, was_training = specification(model), model.training
    model.eval()
    picks: dict[float, list[TracePick]] = {threshold: [] for threshold in THRESHOLDS}
    lengths = [trace.samples for trace in traces]
    for batch in batches(lengths):
        longest = -(-(lengths[batch[0]] + spec.longest_lookahead_samples) // spec.chunk_samples) * spec.chunk_samples
        waveforms, valid = np.zeros((len(batch), 3, longest), np.float32), np.zeros((len(batch), 3, longest), np.bool_)
        for row, index in enumerate(batch):
            waveforms[row, :, : lengths[index]], valid[row, :, : lengths[index]] = (
                traces[index].waveform,
                traces[index].valid,
            )
        out, _ = model.probabilities(torch.from_numpy(waveforms).to(device), torch.from_numpy(valid).to(device))
        late = out.cpu().numpy()[..., spec.lookahead_samples :]
        for row, index in enumerate(batch):
            probabilities = of_samples(spec, late[row], lengths[index])
            for threshold, found in picks.items():
                named = decided(spec, probabilities, dict.fromkeys(PHASES, threshold))
                found += [
                    TracePick(trace_name=traces[index].name, phase=p.phase, sample=p.sample, probability=p.probability)
                    for p in named
                ]
    model.train(was_training)
    references = [Reference.of(trace) for trace in traces]
    return {threshold: score(references, found) for threshold, found in picks.items()}


def summary(scores: dict[float, dict[str, PhaseScore]]) -> dict[str, float]:
    """Best F1 over the thresholds by phase and tolerance, false picks on noise an hour there, and their mean `f1`."""
    out: dict[str, float] = {}
    for phase in PHASES:
        best = max(scores.values(), key=lambda by_phase: by_phase[phase].tallies[0.5].f1)[phase]
        out |= {f"{phase}_f1_{tolerance}s": tally.f1 for tolerance, tally in best.tallies.items()}
        out[f"{phase}_false_per_noise_hour"] = best.false_per_noise_hour
    out["f1"] = float(np.mean([value for key, value in out.items() if "_f1_" in key]))
    return out
