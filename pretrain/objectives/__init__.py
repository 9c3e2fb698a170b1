"""What a network is pretrained for: contrastive with a quantizer (the default), and others by name.

An objective is a module that takes a batch of waveforms and gives a sum, a count and statistics; adding one is adding
a file to this folder (see ``objective.py``). All of it is thrown away after training but the backbone.

Shapes: B batch, C components (Z, N, E), N samples, T frames (tokens of the finest level), M packed masked frames,
F features, D size of what is compared, K negatives, S candidates, G codebook groups, V codes a group.
"""
