"""The torch half of the picker: one definition of the network, in which offline is streaming from a fresh state.

Every layer is a function of (input, state) to (output, next state); state is a NamedTuple of tensors that goes in and
comes out, never hidden on a module. A layer takes any number of chunks at once: one chunk is serving, a whole record
is training, and tests hold the two equal.

Shapes: B batch, C components (Z, N, E), T time (samples or tokens), F features, H heads.
"""
