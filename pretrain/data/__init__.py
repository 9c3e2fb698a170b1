"""Waveforms and labels: SeisBench folders, continuous miniSEED, and packs of both: one file or a folder of shards."""

from pretrain.data.pack import load_pack
from pretrain.data.trace import Label, Trace

__all__ = ["Label", "Trace", "load_pack"]
