"""Learning from unlabelled waveforms: data, trainer, checkpoints and what a run says about itself.

Every random number is a pure function of (seed, rank, micro-batch), so a checkpoint holds no random state and a run
that goes on is, on a CPU to the last bit, the run that never stopped.
"""
