"""Continuous data held out of training by time: blocks of ten minutes, the same for every station.

An earthquake is recorded by many stations at once, so holding out windows of single stations would leave its twins in
training. A block is held out at all stations; a window that touches one is not trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

from pretrain.data.folds import order_key

BLOCK_S = 600
HELD_SHARE = 0.15
"""Share of the blocks, by a fixed hash of their time."""
_BLOCK_NS = BLOCK_S * 1_000_000_000


def is_held(time_ns: int, share: float = HELD_SHARE) -> bool:
    """Whether the block that holds this instant (int ns UTC) is held out."""
    return int(order_key("held", time_ns // _BLOCK_NS)[:8], 16) < share * 16**8


def touches_held(start_ns: int, end_ns: int, share: float = HELD_SHARE) -> bool:
    """Whether any of the time from ``start_ns`` to ``end_ns`` is held out."""
    return any(is_held(block * _BLOCK_NS, share) for block in range(start_ns // _BLOCK_NS, end_ns // _BLOCK_NS + 1))


def held_spans(start_ns: int, end_ns: int, share: float = HELD_SHARE) -> Iterator[tuple[int, int]]:
    """The held-out stretches (start, end) within ``start_ns`` to ``end_ns``; blocks side by side are one stretch."""
    begun: int | None = None
    for block in range(start_ns // _BLOCK_NS, -(-end_ns // _BLOCK_NS) + 1):
        held = block * _BLOCK_NS < end_ns and is_held(block * _BLOCK_NS, share)
        if held and begun is None:
            begun = max(start_ns, block * _BLOCK_NS)
        elif not held and begun is not None:
            yield begun, min(end_ns, block * _BLOCK_NS)
            begun = None
