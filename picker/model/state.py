"""State as a tree of NamedTuples: clearing rows, flattening for a graph, names and shapes for a specification."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from torch import Tensor

from picker.spec import StateTensor

Tree = TypeVar("Tree")


def _rebuild(node: tuple[Any, ...], children: list[Any]) -> Any:
    return type(node)(*children) if hasattr(node, "_fields") else tuple(children)


def _map(node: Any, leaves: Iterator[Tensor]) -> Any:
    if isinstance(node, Tensor):
        return next(leaves)
    return _rebuild(node, [_map(child, leaves) for child in node])


def named(node: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    """Each tensor with its dotted path, for example ``unet.blocks.0.memory``, in a fixed order; empty ones left out."""
    if isinstance(node, Tensor):
        return [(prefix, node)] if node.numel() else []
    names = getattr(node, "_fields", [str(i) for i in range(len(node))])
    pairs = zip(names, node, strict=True)
    return [leaf for name, child in pairs for leaf in named(child, f"{prefix}.{name}" if prefix else name)]


def replace(state: Tree, tensors: list[Tensor]) -> Tree:
    """The same tree with the tensors of ``named`` replaced, in that order."""
    given = iter(tensors)

    def leaves(node: Any) -> Iterator[Tensor]:
        if isinstance(node, Tensor):
            yield next(given) if node.numel() else node
        else:
            for child in node:
                yield from leaves(child)

    return cast(Tree, _map(state, leaves(state)))


def clear(state: Tree, reset: Tensor) -> Tree:
    """Rows whose ``reset`` (B,) is true become fresh (zero), whatever they held, NaN included."""
    cleared = [t.masked_fill(reset.view(-1, *[1] * (t.ndim - 1)), 0.0) for _, t in named(state)]
    return replace(state, cleared)


def detach(state: Tree) -> Tree:
    """The same values without their history, for truncated backpropagation."""
    return replace(state, [t.detach() for _, t in named(state)])


def describe(state: Any) -> tuple[StateTensor, ...]:
    """Names, shapes (without the batch axis) and dtypes for PickerSpec."""
    return tuple(
        StateTensor(name=name, shape=tuple(t.shape[1:]), dtype=str(t.dtype).removeprefix("torch."))
        for name, t in named(state)
    )
