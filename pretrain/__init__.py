"""Waveforms to checkpoint: data, training and evaluation."""
