"""The public peer of `pretrain_gpu.py`: Hugging Face's Wav2Vec2ForPreTraining at the size of SeisLM's base model.

SeisLM (arXiv 2410.15765) is this class with three input channels, two convolutions of stride 2 and 256 features, and a
small transformer. Masks and negatives are drawn on the GPU by functions without a loop (the library's own run in NumPy
on the host and would be most of the time), so that the peer is at its best.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pretrain.objectives.frames import pack
from pretrain.objectives.masking import MaskSettings, most_masked, span_mask
from pretrain.objectives.negatives import draw_others

MASK = MaskSettings(kind="fairseq", share=0.65, length=10)
NEGATIVES = 100


class ThreeChannels(nn.Module):
    """The library's convolutions, over (B, 3, N) in place of (B, N)."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        first = encoder.conv_layers[0].conv
        encoder.conv_layers[0].conv = nn.Conv1d(3, first.out_channels, first.kernel_size, first.stride, bias=False)
        self.conv_layers = encoder.conv_layers

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, 3, N) to features (B, F, T)."""
        for layer in self.conv_layers:
            waveform = layer(waveform)
        return waveform


class Peer(nn.Module):
    """The model and its step: the loss a masked frame of waveforms (B, 3, N)."""

    def __init__(self, quick: bool = False) -> None:
        from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

        super().__init__()
        config = Wav2Vec2Config(
            hidden_size=48 if quick else 240,
            num_hidden_layers=1 if quick else 6,
            num_attention_heads=12,
            intermediate_size=96 if quick else 3072,
            conv_dim=(256, 256),
            conv_kernel=(3, 3),
            conv_stride=(2, 2),
            codevector_dim=256,
            proj_codevector_dim=256,
            num_codevector_groups=2,
            num_codevectors_per_group=320,
            num_negatives=NEGATIVES,
            mask_time_prob=MASK.share,
            mask_time_length=MASK.length,
            attn_implementation="sdpa",
        )
        self.model = Wav2Vec2ForPreTraining(config)
        self.model.wav2vec2.feature_extractor = ThreeChannels(self.model.wav2vec2.feature_extractor)

    def forward(self, waveform: Tensor, generator: torch.Generator) -> Tensor:
        """Contrastive and diversity loss over the masked frames, divided by their number."""
        frames = ((waveform.shape[-1] - 1) // 2 - 1) // 2
        mask, negatives = draw(len(waveform), frames, generator, waveform)
        found = self.model(waveform, mask_time_indices=mask, sampled_negative_indices=negatives)
        loss: Tensor = found.loss / mask.sum()
        return loss


def draw(batch: int, frames: int, generator: torch.Generator, like: Tensor) -> tuple[Tensor, Tensor]:
    """The mask (B, T) and, for each frame, flat numbers (B, T, K) of other masked frames of its own recording."""
    everywhere = torch.ones(batch, frames, dtype=torch.bool, device=like.device)
    mask = span_mask(everywhere, MASK, generator)
    packed = pack(mask, most_masked(frames, MASK))
    # A frame's place among the masked ones of its row; a frame that is not masked counts nowhere.
    own = torch.where(mask, mask.long().cumsum(1) - 1, frames)
    place, _ = draw_others(mask.sum(1, keepdim=True), own, NEGATIVES, generator)
    drawn = packed.index.gather(1, place.flatten(1).clamp(max=packed.index.shape[1] - 1)).view(place.shape)
    return mask, drawn + frames * torch.arange(batch, device=like.device)[:, None, None]
