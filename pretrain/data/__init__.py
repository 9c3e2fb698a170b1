"""Waveforms and labels: SeisBench folders, continuous miniSEED with machine picks, and the training pack of both."""

from pretrain.data.pack import load_pack
from pretrain.data.trace import Label, Trace

__all__ = ["Label", "Trace", "load_pack"]
