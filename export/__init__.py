"""Checkpoint to bundle: the step graph as ONNX, with proof of parity."""
