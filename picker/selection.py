"""An ONNX graph that keeps the old state of every row that had no data: new where ``ready``, old elsewhere.

It depends on the specification alone, so it is written here, in the few fields of ONNX's protocol buffers that it
needs: neither the bundle nor the ``onnx`` package has a part in it.

Shapes: B rows (slots).
"""

from __future__ import annotations

from collections.abc import Sequence

from picker.spec import PickerSpec

IR_VERSION, OPSET = 8, 16
_BOOL = 9
_TYPES = {"float32": 1, "float16": 10, "float64": 11}


def ready_tensor(axes: int) -> str:
    """The flags (B, 1, ...) for state tensors of so many axes: the same bytes, bound once for each number of axes."""
    return f"ready.{axes}"


def old_tensor(name: str) -> str:
    """A state tensor before the step, (B, *shape)."""
    return f"old.{name}"


def new_tensor(name: str) -> str:
    """The same after the step."""
    return f"new.{name}"


def kept_tensor(name: str) -> str:
    """What is kept of the two."""
    return f"kept.{name}"


def ready_shapes(spec: PickerSpec) -> dict[str, tuple[int, ...]]:
    """Each input of flags and its shape without the batch axis."""
    counts = sorted({1 + len(tensor.shape) for tensor in spec.state})
    return {ready_tensor(axes): (1,) * (axes - 1) for axes in counts}


def selection_graph(spec: PickerSpec) -> bytes:
    """``ready.*``, ``old.*`` and ``new.*`` to ``kept.*``: one Where for each state tensor."""
    inputs = [_value(name, _BOOL, ["B", *shape]) for name, shape in ready_shapes(spec).items()]
    nodes, outputs = [], []
    for tensor in spec.state:
        kind = _TYPES[tensor.dtype]
        shape: list[int | str] = ["B", *tensor.shape]
        names = [ready_tensor(len(shape)), new_tensor(tensor.name), old_tensor(tensor.name)]
        nodes.append(_node("Where", names, [kept_tensor(tensor.name)]))
        inputs += [_value(name, kind, shape) for name in names[1:]]
        outputs.append(_value(kept_tensor(tensor.name), kind, shape))
    return _model("selection", nodes, inputs, outputs)


def _model(name: str, nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes]) -> bytes:
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, name.encode())
    graph += b"".join(_field(11, value) for value in inputs) + b"".join(_field(12, value) for value in outputs)
    return _number(1, IR_VERSION) + _field(7, graph) + _field(8, _number(2, OPSET))


def _node(operator: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    names = b"".join(_field(1, name.encode()) for name in inputs) + b"".join(_field(2, n.encode()) for n in outputs)
    return names + _field(4, operator.encode())


def _value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    """A ValueInfoProto; a word in the shape is an axis of any length."""
    dims = (_field(2, size.encode()) if isinstance(size, str) else _number(1, size) for size in shape)
    tensor = _number(1, kind) + _field(2, b"".join(_field(1, dim) for dim in dims))
    return _field(1, name.encode()) + _field(2, _field(1, tensor))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes: its number and wire type, its length, itself."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
