"""SeisBench's PhaseNet as an ONNX graph, and that graph on ONNX Runtime: the public peer of a benchmark.

    python benchmarks/phasenet.py phasenet.onnx

writes the graph; it needs seisbench, torch, onnx and onnxscript, and nothing of Onset, so it may run in an environment
of its own. The weights are random: speed does not depend on them, and nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

INPUT, OUTPUT = "waveform", "probabilities"
OPSET = 20


class PhaseNet:
    """The graph on one core: windows (B, C, N) to probabilities (B, 3, N)."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()  # as picker.stepper.OnnxStepper sets them
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.window_samples = int(self._session.get_inputs()[0].shape[-1])
        self.origin: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        """What the graph was made with: distribution to version, as ``write_graph`` noted it."""

    def __call__(self, windows: Any) -> Any:
        """One call of the graph."""
        return self._session.run([OUTPUT], {INPUT: windows})[0]


def build_apart(folder: Path) -> Path:
    """Write the graph into ``folder`` with this Python in a process of its own, so that torch stays out of this one.

    Raises RuntimeError with the last line of what that process had to say.
    """
    path = folder / "phasenet.onnx"
    command = [sys.executable, __file__, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not path.is_file():
        complaint = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(complaint)
    return path


def write_graph(path: Path) -> None:
    """Export PhaseNet (3 components, windows of 3001 samples) with a dynamic batch axis."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("SEISBENCH_CACHE_ROOT", cache)
        import seisbench
        import torch
        from seisbench.models import PhaseNet as Model

        model = Model().eval()
    batch = torch.export.Dim("batch", min=1, max=65536)
    program = torch.onnx.export(
        model,
        (torch.randn(2, 3, model.in_samples),),
        dynamo=True,
        dynamic_shapes=({0: batch},),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(seisbench=seisbench.__version__, torch=torch.__version__)
    program.save(str(path), external_data=False)


def main() -> int:
    """Write the graph to the path given."""
    parser = argparse.ArgumentParser(description="Export SeisBench's PhaseNet (random weights) to ONNX.")
    parser.add_argument("path", type=Path, help="file to write, for example phasenet.onnx")
    write_graph(parser.parse_args().path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
