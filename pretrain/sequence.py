"""Long stretches of a station's life, made of short records: for training with a state that is carried on.

Records of 34 to 120 s are laid on real noise and joined, about one a window. Left with nothing between them they would
teach that an arrival follows a gap; here a record begins at random before its first arrival (``start_late``), noise of
its own level leads up to it, and piece passes into piece wherever the windows happen to end: in quiet, in coda, or
between P and S. A seam foretells nothing.

Shapes: B sequences of M pieces, C components, W samples a piece, K labels a piece.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.bank import Windows
from pretrain.bridge import bridged, depth
from pretrain.mixing import forget
from pretrain.power import quiet

FADE = 128
"""Samples over which one waveform passes into another."""


def bedded(pieces: Windows, bed: Windows) -> Windows:
    """Pieces (B M, C, W) with noise of their own level where they have no data; a component without any stays so.

    At the edges of its data a piece passes into the noise within ``FADE`` samples. Where the noise lies alone it is
    trusted as noise is.
    """
    gain = (quiet(pieces) / quiet(bed).clamp(min=1e-30)).nan_to_num(1.0, 1.0, 1.0).clamp(max=1e12)
    own = (depth(pieces.valid) / FADE).clamp(max=1.0) * pieces.valid
    # What is not wholly the piece's own swings about a line that joins what is: offsets do not matter.
    line = bridged(pieces.waveform, own >= 1)
    noise = gain[:, None, None] * bed.waveform
    mixed = line + own * (pieces.waveform - line) + (1 - own) * noise
    laid = bed.valid & pieces.valid.any(-1, keepdim=True)
    valid = pieces.valid | laid
    waveform = torch.where(laid, mixed, pieces.waveform) * valid
    alone = ~pieces.valid.any(1) & laid.any(1)
    return pieces.but(waveform=waveform, valid=valid, trust=torch.where(alone, bed.trust, pieces.trust))


def joined(pieces: Windows, count: int) -> Windows:
    """Sequences (B, C, M (W - FADE)) of each ``count`` = M consecutive pieces (B M, C, W), cross-faded over ``FADE``.

    Pieces are brought to one quiet level, so that each row is one station's. Labels within a seam are forgotten.
    The first piece loses its first ``FADE`` samples. ``positions`` are (B, M K), piece by piece.
    """
    level = quiet(pieces)
    gain = torch.where(level > 0, 1 / level.clamp(min=1e-30), 0.0)[:, None, None]
    samples = pieces.waveform.shape[-1]
    first, last = slice(0, FADE), slice(samples - FADE, samples)
    inside = pieces.positions.clamp(0, samples - 1) == pieces.positions
    seam = inside & ((pieces.positions < FADE) | (pieces.positions >= samples - FADE))
    pieces = forget(pieces.but(waveform=pieces.waveform * gain), seam)
    waveform, valid, trust = (part.unflatten(0, (-1, count)) for part in (pieces.waveform, pieces.valid, pieces.trust))
    rise = torch.linspace(0, 1, FADE, device=waveform.device)
    come = valid[:, 1:, :, first] * rise
    go = valid[:, :-1, :, last] * (1 - rise)
    total = (come + go).clamp(min=1e-6)
    seams = (waveform[:, 1:, :, first] * come + waveform[:, :-1, :, last] * go) / total
    waveform, valid, trust = waveform.clone(), valid.clone(), trust.clone()
    waveform[:, :-1, :, last], valid[:, :-1, :, last] = seams, (come + go) > 0
    trust[:, :-1, last] = torch.minimum(trust[:, 1:, first], trust[:, :-1, last])
    start = torch.arange(count, device=waveform.device) * (samples - FADE) - FADE
    positions = pieces.positions.unflatten(0, (-1, count)) + start[None, :, None]
    return Windows(
        waveform=waveform[..., FADE:].transpose(1, 2).flatten(2),
        valid=valid[..., FADE:].transpose(1, 2).flatten(2),
        positions=positions.flatten(1),
        phases=pieces.phases.unflatten(0, (-1, count)).flatten(1),
        trust=trust[..., FADE:].flatten(1),
    )


def in_turn(windows: Windows, count: int) -> list[Windows]:
    """Sequences as ``count`` consecutive batches of windows; a window has the labels of its own piece.

    Raises ValueError where the sequences are no whole number of windows.
    """
    samples, rest = divmod(windows.waveform.shape[-1], count)
    if rest:
        raise ValueError(f"{windows.waveform.shape[-1]} samples are no {count} windows")
    labels = windows.positions.shape[1] // count

    def part(tensor: Tensor, number: int, length: int) -> Tensor:
        return tensor[..., number * length : (number + 1) * length]

    return [
        Windows(
            waveform=part(windows.waveform, number, samples),
            valid=part(windows.valid, number, samples),
            positions=part(windows.positions, number, labels) - number * samples,
            phases=part(windows.phases, number, labels),
            trust=part(windows.trust, number, samples),
        )
        for number in range(count)
    ]
