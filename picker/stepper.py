"""One call of the step graph: a chunk of every row in, probabilities and the next state out.

Shapes: B rows (stations), C = 3 components, L = 64 samples a chunk, P = 3 phases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from picker.bundle import Bundle
from picker.errors import BundleError
from picker.runtime import onnxruntime
from picker.spec import PickerSpec

State = tuple[NDArray[Any], ...]
"""The state tensors in the order of ``spec.state``, each (B, *shape)."""

INPUTS = ("chunk", "valid", "reset")
GRAPH_TYPES = {"float32": "tensor(float)", "float16": "tensor(float16)", "float64": "tensor(double)"}
"""ONNX Runtime's name of each dtype that a state tensor may have."""


def state_input(name: str) -> str:
    """Graph input of a state tensor."""
    return f"state.{name}"


def state_output(name: str) -> str:
    """Graph output of a state tensor."""
    return f"next.{name}"


class Stepper(Protocol):
    """Anything that runs the step graph."""

    spec: PickerSpec

    def fresh_state(self, rows: int) -> State:
        """The state of ``rows`` stations that have seen nothing."""
        ...

    def step(
        self, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """chunk (B, C, L), valid (B, C, L), reset (B,), state -> probabilities (B, P, L), next state."""
        ...


class OnnxStepper:
    """The step graph of a bundle on ONNX Runtime's CPU provider."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        runtime = onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = runtime.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BundleError(f"{bundle.model_path}: ONNX Runtime cannot open it ({error})") from error
        self.spec = bundle.spec
        check_graph(session, bundle.spec, bundle.model_path)
        self._session = session
        self._state_inputs = [state_input(t.name) for t in self.spec.state]
        self._outputs = ["probabilities", *(state_output(t.name) for t in self.spec.state)]

    def fresh_state(self, rows: int) -> State:
        """Zeros: the graph treats an all-zero state as fresh."""
        return tuple(np.zeros((rows, *t.shape), dtype=t.dtype) for t in self.spec.state)

    def step(
        self, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """See Stepper."""
        feed = {"chunk": chunk, "valid": valid, "reset": reset, **dict(zip(self._state_inputs, state, strict=True))}
        probabilities, *after = self._session.run(self._outputs, feed)
        return probabilities, tuple(after)


def check_graph(session: Any, spec: PickerSpec, path: Path) -> None:
    """Raise BundleError where the graph's inputs and outputs are not those that the specification names."""
    components, samples = len(spec.components), spec.chunk_samples
    wanted: dict[str, tuple[int, ...]] = {"chunk": (components, samples), "valid": (components, samples), "reset": ()}
    wanted |= {state_input(t.name): t.shape for t in spec.state}
    produced: dict[str, tuple[int, ...]] = {"probabilities": (len(spec.phases), samples)}
    produced |= {state_output(t.name): t.shape for t in spec.state}
    for kind, nodes, expected in (
        ("input", session.get_inputs(), wanted),
        ("output", session.get_outputs(), produced),
    ):
        found = {node.name: tuple(node.shape[1:]) for node in nodes}
        for name in sorted(expected.keys() | found.keys()):
            if found.get(name) != expected.get(name):
                raise BundleError(
                    f"{path}: {kind} {name!r} is {found.get(name, 'absent')} in the graph and "
                    f"{expected.get(name, 'absent')} in spec.json (batch axis left out); export the bundle again"
                )
    kinds = {node.name: node.type for node in (*session.get_inputs(), *session.get_outputs())}
    for tensor in spec.state:
        for name in (state_input(tensor.name), state_output(tensor.name)):
            if kinds[name] != GRAPH_TYPES.get(tensor.dtype):
                raise BundleError(
                    f"{path}: {name!r} is {kinds[name]} in the graph and {tensor.dtype} in spec.json; "
                    "export the bundle again"
                )
