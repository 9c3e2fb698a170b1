"""The deployed picker and nothing else.

Two halves: the modules directly in this package are torch-free (specification, bundle, driving a step graph, pick
decision) and are all the daemon imports; ``picker.model`` is the torch half (causal layers, mLSTM, U-Net, pick head).
"""
