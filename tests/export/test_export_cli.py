"""``python -m export`` as its users run it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pymseed import MS3TraceList
from untrained import untrained

from export.cli import main
from picker.bundle import Bundle, load_bundle
from picker.model.checkpoint import save_picker

ROOT = Path(__file__).parents[2]


SHORT_PROOF = """\
import sys
from export import parity
from export.cli import main
parity.CASES = ((3, 60.0), (1, 30.0))
raise SystemExit(main(sys.argv[1:]))
"""


def export(*arguments: object, program: Sequence[str] = ("-m", "export")) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *program, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_build(run_folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    """Build writes the bundle and says how well it was proved; another process writes the same graph, byte for byte."""
    out = tmp_path / "bundle"
    built = export("build", run_folder, out, "--name", "mine", "--threshold-s", "0.25", program=("-c", SHORT_PROOF))
    assert (built.returncode, built.stderr) == (0, "")
    built_bundle = load_bundle(out)
    assert built_bundle.model_path.read_bytes() == bundle.model_path.read_bytes()
    assert built_bundle.spec.name == "mine"
    assert built_bundle.spec.thresholds == {"P": 0.3, "S": 0.25}
    lines = built.stdout.splitlines()
    assert "parity, 3 stations x 60 s: largest difference" in lines[1]
    summary = " ".join("\n".join(lines[3:-1]).split())
    for words in (
        "operators ",
        "parameters ",
        " a station-second",
        f"{built_bundle.spec.state_bytes:,} bytes a station",
    ):
        assert words in summary, built.stdout
    assert built_bundle.label in lines[-1]


@pytest.mark.usefixtures("short_proof")
def test_verify(bundle: Bundle, run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Verify proves a bundle again and prints the numbers."""
    assert main(["verify", str(bundle.folder), "--checkpoint", str(run_folder)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"Parity of {bundle.label}" in said.out
    assert "parity holds" in said.out


@pytest.mark.usefixtures("short_proof")
def test_verify_on_records_keeps_the_proof(
    bundle: Bundle, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recorded stream is compared as well; the proof names it and the bundle, which opens as before."""
    folder, file = shutil.copytree(bundle.folder, tmp_path / "copy"), tmp_path / "day.mseed"
    noise = np.random.default_rng(0).normal(0, 500, (3, 6000)).astype(np.int32)
    traces = MS3TraceList()
    for component, values in zip("ZNE", noise, strict=True):
        traces.add_data(f"FDSN:XX_ABC__H_H_{component}", values, "i", 100.0, starttime=10**18)
    traces.to_file(str(file))
    arguments = ["verify", str(folder), "--checkpoint", str(run_folder), "--records", str(file), "--seconds", "60"]
    assert main([*arguments, "--write"]) == 0
    assert "1 station x 60 s of day.mseed" in capsys.readouterr().out
    proof = json.loads((folder / "parity.json").read_text())
    assert [case["stream"] for case in proof["comparisons"]] == ["synthetic", "synthetic", "day.mseed"]
    assert proof["digest"] == bundle.digest == load_bundle(folder).digest
    assert main([*arguments, "--engine", "tensorrt"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_verify_with_another_checkpoint(bundle: Bundle, tmp_path: Path) -> None:
    """A bundle is not verified against a network that it was not built from."""
    save_picker(tmp_path / "other.safetensors", untrained(seed=1))
    answer = export("verify", bundle.folder, "--checkpoint", tmp_path / "other.safetensors")
    assert answer.returncode == 2
    assert "was exported from another checkpoint" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_describe(bundle: Bundle, model: torch.nn.Module) -> None:
    """Identity, sizes, tensors and operators."""
    answer = export("describe", bundle.folder)
    assert (answer.returncode, answer.stderr) == (0, "")
    count = sum(parameter.numel() for parameter in model.parameters())
    words = [bundle.digest, "P 0.4, S 0.35", f"{count:,}", f"{bundle.spec.state_bytes:,} bytes", "MatMul"]
    words += [f"state.{tensor.name}" for tensor in bundle.spec.state]
    for word in words:
        assert word in answer.stdout


@pytest.mark.parametrize("command", ["build", "verify", "describe", "plan"])
def test_help_teaches(command: str) -> None:
    """Each command's help has an example to copy."""
    answer = export(command, "--help")
    assert answer.returncode == 0
    assert f"python -m export {command} " in answer.stdout.split("example", 1)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "absent", "{tmp}/out"], "absent: no such checkpoint"),
        (["build", "{run}", "{tmp}/out", "--threshold-p", "1.5"], "threshold of P is 1.5"),
        (["describe", "{tmp}/none"], "no such bundle folder"),
    ],
)
def test_errors_are_one_line(arguments: list[str], words: str, run_folder: Path, tmp_path: Path) -> None:
    """What the user has to mend is said in one line on standard error, with exit status 2."""
    answer = export(*(argument.format(run=run_folder, tmp=tmp_path) for argument in arguments))
    assert answer.returncode == 2
    assert words in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert answer.stdout == ""


def test_without_the_extra_help_works_and_commands_name_it(tmp_path: Path) -> None:
    """Where PyTorch is not installed, a command says what to install."""
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'safetensors'): sys.modules[name] = None\n"
        "from export.cli import main\n"
        "raise SystemExit(main(sys.argv[1:]))\n"
    )

    def without(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert without("--help").returncode == 0
    assert "no such bundle folder" in without("plan", str(tmp_path / "none")).stderr
    answer = without("describe", str(tmp_path))
    assert answer.returncode == 2
    assert "pip install 'onset[export]'" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
