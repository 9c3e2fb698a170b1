"""The command line: what it teaches, and how it says what is wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from daemon_kit import write_config
from onnx import numpy_helper

from picker.bundle import load_bundle
from picker.errors import BundleError
from streamer.cli import COMMANDS, main
from streamer.model_files import open_stepper
from streamer.picking import Picking

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, seedlink=[18000], mqtt=1883)


def test_help_names_every_command_without_importing_any() -> None:
    """``python -m streamer --help`` is quick because nothing heavy is loaded for it."""
    code = (
        "import sys; sys.argv = ['streamer', '--help']\nfrom streamer.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'numpy', 'pydantic', 'aiomqtt', 'pymseed', 'onnxruntime', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for name in COMMANDS:
        assert f"  {name} " in result.stdout
    assert "streamer replay --shift start" in result.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_teaches_by_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of each sub-command describes it and shows examples that begin with its name."""
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert f"streamer {name} " in text.split("examples:")[1]


def test_version_and_missing_command(capsys: pytest.CaptureFixture[str]) -> None:
    """--version says it; no command at all is an error with the usage."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("onset ")
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage: streamer" in capsys.readouterr().err


def test_check_prints_a_summary(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings and bundle are sound: what would run is shown, nothing is connected to, status 0."""
    assert main(["run", "--config", str(config), "--check"]) == 0
    text = capsys.readouterr().out
    for part in (
        "tiny-",
        "look-ahead 0.64 s",
        "P from 0.3",
        "127.0.0.1:18000",
        "XX_* HH?",
        "127.0.0.1:1883",
        "onset/v1",
    ):
        assert part in text
    assert text.endswith("settings and bundle are sound\n")


def test_unknown_key_is_one_line_and_status_2(config: Path) -> None:
    """As a process: one line on standard error that names file, key and nearest key; nothing on standard output."""
    config.write_text(config.read_text() + "[metrics]\nprot = 1\n")
    result = subprocess.run(
        [sys.executable, "-m", "streamer", "run", "--config", str(config)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == f"streamer: {config}: unknown key `metrics.prot`; did you mean `port`?\n"
    assert result.stdout == ""


def test_missing_bundle_and_missing_settings_are_status_2(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each is one line that says what to mend."""
    config.write_text(config.read_text().replace('path = "bundle"', 'path = "elsewhere"'))
    assert main(["run", "--config", str(config)]) == 2
    assert capsys.readouterr().err == (
        f"streamer: {tmp_path / 'elsewhere'}: no such bundle folder; set the key `bundle` to a folder that holds "
        "model.onnx\n"
    )
    assert main(["run", "--config", str(tmp_path / "none.toml")]) == 2
    assert "no such file" in capsys.readouterr().err


def change_spec(config: Path, old: str, new: str) -> None:
    path = config.parent / "bundle" / "spec.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('"name": "tail"', '"name": "head"', "input 'state.head' is absent in the graph"),
        ('"phases": [\n    "P"', '"phases": [\n    "Pn",\n    "P"', "output 'probabilities' is (3, 64) in the graph"),
        ('"sampling_rate_hz": 100.0', '"sampling_rate_hz": 50.0', "sampling_rate_hz is 50.0, this Onset needs 100.0"),
        ('"S": 0.3', '"S": 0.3, "X": 0.1', "thresholds names X, which phases lacks"),
        ('"version": 2', '"version": 3', "version is 3"),
    ],
)
def test_bundle_whose_spec_and_graph_disagree_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, part: str
) -> None:
    """The daemon does not start, and one line says where they differ."""
    change_spec(config, old, new)
    assert main(["run", "--config", str(config)]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1


def test_bundle_that_cannot_take_a_step_is_refused(config: Path) -> None:
    """A graph of the right shapes that yields no number on silence, and one that is no graph at all."""
    path = config.parent / "bundle" / "model.onnx"
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.name == "one":
            tensor.CopyFrom(numpy_helper.from_array(np.float32("nan"), "one"))
    onnx.save(model, str(path))
    with pytest.raises(BundleError, match="a first step on zeros is not finite"):
        open_stepper(load_bundle(path.parent), 1)
    path.write_bytes(b"no graph")
    with pytest.raises(BundleError, match="cannot open it"):
        open_stepper(load_bundle(path.parent), 1)


def test_metrics_port_in_use_is_status_2(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is started when the endpoint cannot be had."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config.write_text(config.read_text() + f"[metrics]\nenabled = true\nport = {port}\n")
        result = subprocess.run(
            [sys.executable, "-m", "streamer", "run", "--config", str(config)],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
    assert result.returncode == 2
    assert f"metrics cannot listen on 127.0.0.1:{port}" in result.stderr.splitlines()[-1]


def test_fault_of_a_part_ends_the_daemon_with_status_1(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception that nobody expected ends all tasks, is logged with its place, and the status is not 0."""

    async def fail(self: Picking) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Picking, "run", fail)
    assert main(["run", "--config", str(config)]) == 1
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert last["level"] == "critical"
    assert "RuntimeError: unforeseen" in last["exception"]
