"""Two ONNX graphs that move rows of state on a device: some rows out of all slots, and back into them.

They depend on the specification alone, so they are written here, in the few fields of ONNX's protocol buffers that they
need: neither the bundle nor the ``onnx`` package has a part in it.

Shapes: S slots, B rows of a call.
"""

from __future__ import annotations

from collections.abc import Sequence

from picker.spec import PickerSpec

IR_VERSION, OPSET = 8, 16
_INT64 = 7
_TYPES = {"float32": 1, "float16": 10, "float64": 11}


def slot_tensor(name: str) -> str:
    """A state tensor of all slots, (S, *shape)."""
    return f"slots.{name}"


def row_tensor(name: str) -> str:
    """The same of the rows of a call, (B, *shape)."""
    return f"rows.{name}"


def kept_tensor(name: str) -> str:
    """All slots after rows were put back; bound to where the slots are, nothing else is written."""
    return f"kept.{name}"


def gather_graph(spec: PickerSpec) -> bytes:
    """``index`` (B,) int64 and ``slots.*`` to ``rows.*``."""
    nodes = [_node("Gather", [slot_tensor(t.name), "index"], [row_tensor(t.name)]) for t in spec.state]
    inputs = [_value("index", _INT64, ["B"])]
    inputs += [_value(slot_tensor(t.name), _TYPES[t.dtype], ["S", *t.shape]) for t in spec.state]
    outputs = [_value(row_tensor(t.name), _TYPES[t.dtype], ["B", *t.shape]) for t in spec.state]
    return _model("gather", nodes, inputs, outputs)


def scatter_graph(spec: PickerSpec) -> bytes:
    """``index`` (B, 1) int64, ``rows.*`` and ``slots.*`` to ``kept.*``."""
    nodes = [
        _node("ScatterND", [slot_tensor(t.name), "index", row_tensor(t.name)], [kept_tensor(t.name)])
        for t in spec.state
    ]
    inputs = [_value("index", _INT64, ["B", 1])]
    for tensor in spec.state:
        inputs.append(_value(slot_tensor(tensor.name), _TYPES[tensor.dtype], ["S", *tensor.shape]))
        inputs.append(_value(row_tensor(tensor.name), _TYPES[tensor.dtype], ["B", *tensor.shape]))
    outputs = [_value(kept_tensor(t.name), _TYPES[t.dtype], ["S", *t.shape]) for t in spec.state]
    return _model("scatter", nodes, inputs, outputs)


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
