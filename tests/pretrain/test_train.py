"""``pretrain train``: the files of a run, going on after an interruption, what it refuses, and that it learns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from training_data import CPU, TINY, Bank, quake, quakes, trace, write_pack

from picker.model.checkpoint import load_picker
from picker.model.config import PRESETS
from pretrain import train as module
from pretrain import trainer as steps_module
from pretrain.cli import main
from pretrain.settings import SHARES, TrainSettings
from pretrain.train import forget_after, train
from pretrain.trainer import Trainer
from pretrain.validate import summary, validate

HERE = Path(__file__).parent
QUICK = ("--preset", "tiny", "--batch", "2", "--window-samples", "256", "--device", "cpu")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two quakes to learn from and one to judge by, and noise for both."""
    held = [quake(500, 800, 1200, name="t", fold="tune"), trace(1000, name="tn", fold="tune")]
    learn = [quake(300, 520, 1000, name="a"), quake(420, 700, 1200, name="b"), trace(1000, name="n")]
    return write_pack(tmp_path_factory.mktemp("pack") / "train.npz", [*learn, *held])


def strict(text: str) -> dict[str, Any]:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    values: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return values


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log."""
    return [strict(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(one: Any, other: Any) -> bool:
    """Whether two trees of tensors and plain values are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_the_command_makes_a_run(pack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings, log, the save to go on from, and a picker that loads and knows where it came from."""
    run = tmp_path / "run"
    assert main(["train", pack, str(run), *QUICK, "--steps", "5", "--validate-every", "3", "--seed", "7"]) == 0
    assert {path.name for path in run.iterdir()} == {"settings.json", "log.jsonl", "last.pt", "picker.safetensors"}
    asked = strict((run / "settings.json").read_text())
    assert (asked["pack"], asked["steps"], asked["seed"], asked["minutes"]) == (pack, 5, 7, None)
    lines = log_of(run)
    assert [line["step"] for line in lines] == [3, 5]
    assert lines[0].keys() >= {"seconds", "P_f1_0.1s", "S_f1_0.5s", "P_false_per_noise_hour", "f1"}
    model, provenance = load_picker(run / "picker.safetensors")
    assert model.config.name == "tiny"
    assert provenance["settings"]["pack"] == "train.npz", "no path of this machine"
    assert provenance["tune"]["f1"] == max(line["f1"] for line in lines)
    assert "step 5: P_f1_0.1s" in capsys.readouterr().out
    assert main(["train", pack, str(run), *QUICK, "--steps", "5", "--validate-every", "3", "--seed", "7"]) == 0
    assert "this run is over, at step 5; more --steps or --minutes continue it" in capsys.readouterr().out


def test_the_log_holds_loss_gradient_and_skipped_steps_as_json(
    pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is not a number is null, the step is counted, and the run goes on."""
    losses, count = steps_module.pick_loss, iter(range(100))
    factors = {2: float("nan")}
    monkeypatch.setattr(steps_module, "pick_loss", lambda *a: losses(*a) * factors.get(next(count), 1.0))
    settings = TrainSettings(pack=pack, preset="tiny", steps=4, batch=2, window_samples=256, log_every=1)
    train(settings, tmp_path, CPU)
    lines = log_of(tmp_path)
    assert [line["skipped_steps"] for line in lines] == [0, 0, 1, 1]
    assert [line["loss"] is None for line in lines] == [False, False, True, False]
    assert lines[0]["gradient_norm"] > 0
    assert "f1" in lines[3]


def test_a_run_that_diverges_ends_with_status_two(
    pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says so, and nothing that is broken was saved."""
    monkeypatch.setattr(steps_module, "pick_loss", lambda logits, *rest: logits.mean() * float("inf"))
    assert main(["train", pack, str(tmp_path / "run"), *QUICK, "--steps", "50"]) == 2
    assert "the gradient was not finite for 20 steps in a row" in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.pt").exists()


def test_four_steps_and_four_more_are_eight(pack: str, tmp_path: Path) -> None:
    """Weights, averages, optimizer, random streams and best validation of a run in two parts: equal to the last bit."""
    settings = TrainSettings(pack=pack, preset="tiny", steps=8, batch=2, window_samples=256, validate_every=3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    figures = train(settings, whole, CPU)
    asked = iter([False] * 4 + [True])
    train(settings, parts, CPU, stop=lambda: next(asked))
    assert torch.load(parts / "last.pt", weights_only=True)["counters"][0] == 4
    torch.rand(5)
    assert train(settings, parts, CPU) == pytest.approx(figures, nan_ok=True)
    one, other = (torch.load(folder / "last.pt", weights_only=True) for folder in (whole, parts))
    for key in one.keys() - {"counters"}:
        assert same(one[key], other[key]), key
    assert one["counters"][:2] == other["counters"][:2]
    (kept, made_by), (again, remade_by) = (load_picker(folder / "picker.safetensors") for folder in (whole, parts))
    assert same(kept.state_dict(), again.state_dict())
    assert made_by == remade_by
    assert [line["step"] for line in log_of(parts)] == [line["step"] for line in log_of(whole)] == [3, 6, 8]


def test_a_run_goes_on_with_more_steps_but_not_with_other_settings(
    pack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names each setting that differs, with both values, and touches nothing."""
    run = str(tmp_path)
    assert main(["train", pack, run, *QUICK, "--steps", "2"]) == 0
    before = (tmp_path / "settings.json").read_text()
    assert main(["train", pack, run, *QUICK, "--steps", "2", "--rate", "0.01", "--seed", "5"]) == 2
    error = capsys.readouterr().err
    assert "other settings: rate 0.002 (now 0.01), seed 0 (now 5); use another folder" in error
    assert (tmp_path / "settings.json").read_text() == before
    assert main(["train", pack, run, *QUICK, "--steps", "3", "--validate-every", "1", "--minutes", "9"]) == 0
    assert torch.load(tmp_path / "last.pt", weights_only=True)["counters"][0] == 3


def test_minutes_end_a_run_with_a_validation(pack: str, tmp_path: Path) -> None:
    """A run that is out of time validates and saves as one that is out of steps."""
    settings = TrainSettings(pack=pack, preset="tiny", steps=10**6, batch=2, window_samples=256, minutes=0.005)
    assert train(settings, tmp_path, CPU).keys() >= {"f1"}
    assert 1 <= log_of(tmp_path)[-1]["step"] < 10**4
    assert (tmp_path / "picker.safetensors").is_file()


def test_sigterm_finishes_the_step_saves_and_says_how_to_go_on(pack: str, tmp_path: Path) -> None:
    """A real process, stopped in the middle: status 0, and the saved step is the one it named."""
    program = (
        "import sys; from training_data import TINY; from picker.model.config import PRESETS; PRESETS['tiny'] = TINY\n"
        "from pretrain.cli import main; raise SystemExit(main(sys.argv[1:]))"
    )
    run = tmp_path / "run"
    command = [sys.executable, "-c", program, "train", pack, str(run), *QUICK, "--steps", "100000"]
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not ((run / "log.jsonl").is_file() and (run / "log.jsonl").stat().st_size):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        said, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    step = torch.load(run / "last.pt", weights_only=True)["counters"][0]
    assert step >= 50
    assert f"stopped at step {step} of 100000 and saved; the same command goes on" in said
    assert main(["train", pack, str(run), *QUICK, "--steps", str(step + 1)]) == 0
    assert torch.load(run / "last.pt", weights_only=True)["counters"][0] == step + 1


@pytest.mark.parametrize(("signals", "status"), [(1, 0), (2, 130)])
def test_ctrl_c_saves_and_a_second_one_does_not_wait(
    pack: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    signals: int,
    status: int,
) -> None:
    """The first SIGINT ends the run in order, the second at once; afterwards the signal does what it did before."""
    # A shell's background job starts with SIGINT ignored; the test speaks of a foreground one.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, inherited))
    before, step = signal.getsignal(signal.SIGINT), Trainer.train_step

    def interrupted(trainer: Trainer, of: Bank) -> Any:
        if trainer.step == 2:
            for _ in range(signals):
                signal.raise_signal(signal.SIGINT)
        return step(trainer, of)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    assert main(["train", pack, str(tmp_path / "run"), *QUICK, "--steps", "1000"]) == status
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "run" / "last.pt").exists() == (status == 0)
    if status == 0:
        assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["counters"][0] == 3


def test_a_log_is_cut_back_to_the_save_that_a_killed_run_goes_on_from(tmp_path: Path) -> None:
    """Lines after it, and a line that was cut off, are written again."""
    path = tmp_path / "log.jsonl"
    forget_after(path, 0)
    assert not path.exists()
    for text in ('{"step": 50}\n{"step": 100}\n{"step": 150}\n', '{"step": 50}\n{"step": 100}\n{"step": 1'):
        path.write_text(text)
        forget_after(path, 100)
        assert [line["step"] for line in log_of(tmp_path)] == [50, 100]


def test_a_dry_run_says_how_long_it_will_take_and_writes_nothing(
    pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parameters, steps a second, time of a validation and of the whole; the folder of the run is not made."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", pack, "run", *QUICK, "--steps", "1000", "--validate-every", "300", "--dry-run"]) == 0
    said = capsys.readouterr().out
    parameters = sum(p.numel() for p in steps_module.Picker(TINY).parameters())
    assert f"tiny: {parameters:,} parameters" in said
    assert "3 traces to learn from, 2 to judge by" in said
    assert "steps/s of 2 windows of 2.6 s on cpu" in said
    assert "1000 steps with 4 validations take about" in said
    assert "nothing was written" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folds", "missing"),
    [(("train", "train"), "tune"), (("tune", "tune"), "train"), (("train", "dev"), "tune")],
)
def test_a_pack_that_lacks_a_fold_is_refused(
    tmp_path: Path, folds: tuple[str, str], missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to learn from, or nothing to judge by: noise records or doubtful picks alone do not do."""
    traces = [quake(300, 500, 700, name=str(k), fold=fold) for k, fold in enumerate(folds)]
    traces += [trace(700, name=fold, fold=fold) for fold in ("train", "tune")]
    traces += [quake(300, 500, 700, name="doubtful", fold="tune", status="manual_lowq")]
    pack = write_pack(tmp_path / "p.npz", traces if missing == "tune" else traces[:-1])
    assert main(["train", pack, str(tmp_path / "run"), *QUICK]) == 2
    assert f"p.npz: no labelled trace in fold {missing}; pack more events" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["--window-samples", "250"], "--window-samples is 250; it must be a multiple of 64"),
        (["--lookahead-samples", "30"], "lookahead_samples is 30; it must be a multiple of 4"),
        (["--device", "abacus"], "--device abacus: not usable here"),
        (["--device", "meta"], "--device meta: not usable here"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    pack: str, tmp_path: Path, more: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, one line, and no folder is left behind."""
    assert main(["train", pack, str(tmp_path / "run"), *QUICK, *more]) == 2
    said = capsys.readouterr().err
    assert error in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_missing_pack_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the command that writes one."""
    assert main(["train", str(tmp_path / "none.npz"), str(tmp_path / "run"), *QUICK]) == 2
    assert "none.npz: no such pack; write one with `pretrain pack`" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """What a run is, how to go on, and examples for GPU and CPU; every example is a command that parses."""
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    for word in ("picker.safetensors", "Ctrl-C", "goes on", "--dry-run", "--device cpu", "--compile"):
        assert word in said
    examples = [line.split()[1:] for line in said.splitlines() if line.startswith("    pretrain train")]
    assert len(examples) == 4
    from pretrain.cli import parser

    for example in examples:
        assert parser("train").parse_args(example).run is module.run


def test_four_records_are_learnt_by_heart_and_their_picks_found(tmp_path: Path) -> None:
    """Sixty steps lower the loss to under half, and validation finds every P and S within 0.5 s."""
    records = quakes(4)
    settings = TrainSettings(
        pack="", preset="tiny", steps=60, batch=8, window_samples=768, rate=1e-2, dropout=0.0, average=0.9
    )
    run, of = Trainer(settings, tmp_path, CPU), Bank(records, SHARES, CPU)
    losses = [run.train_step(of)[0].item() for _ in range(settings.steps)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:5]) / 5 * 10
    with run.averaged.applied(run.model):
        scores = validate(run.model, records, CPU)
    assert run.model.training, "validation hands the model back as it was"
    figures = summary(scores)
    assert figures["P_f1_0.5s"] > 0.85
    assert figures["S_f1_0.5s"] > 0.85
