"""A graph whose products see their operands as TF32 does, rounded to 11 bits: what a GPU would answer, without one."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from picker.bundle import MODEL, Bundle

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
SPLITTER = 2.0**13 + 1
"""Veltkamp's factor: of the 24 bits of a float32, x (2^13 + 1) - (x (2^13 + 1) - x) keeps the first 11, rounded."""


def rounded(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle with such a graph, in ``folder``; sums stay in float32, as they do on a GPU."""
    model = onnx.load(bundle.model_path)
    round_products(model)
    onnx.save(model, folder / MODEL)
    return Bundle(folder=folder, spec=bundle.spec, digest=bundle.digest)


def round_products(model: onnx.ModelProto) -> None:
    """Put the rounding before both operands of every product of ``model``."""
    graph, nodes = model.graph, list[onnx.NodeProto]()
    graph.initializer.append(helper.make_tensor("tf32.splitter", TensorProto.FLOAT, [], [SPLITTER]))
    for number, node in enumerate(graph.node):
        for place in range(2 if node.op_type in PRODUCTS else 0):
            given, stem = node.input[place], f"tf32.{number}.{place}"
            wide, low, high = (f"{stem}.{word}" for word in ("wide", "low", "high"))
            nodes.append(helper.make_node("Mul", [given, "tf32.splitter"], [wide]))
            nodes.append(helper.make_node("Sub", [wide, given], [low]))
            nodes.append(helper.make_node("Sub", [wide, low], [high]))
            node.input[place] = high
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)
