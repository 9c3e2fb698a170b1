"""``pretrain card``: weights to give away, and a card whose figures are those of the log."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from pretraining_run import TINY, Rows, settings, write_pack
from safetensors.torch import load_file

from picker.model.picker import Picker
from pretrain.cli import main
from pretrain.objectives.backbone import Backbone, transfer
from pretrain.objectives.backbone_file import load_backbone, save_backbone
from pretrain.selfsupervised import release as module
from pretrain.selfsupervised.checkpoint import Form
from pretrain.selfsupervised.launch import open_fabric
from pretrain.selfsupervised.monitor.evidence import read_evidence
from pretrain.selfsupervised.run import pretrain
from pretrain.selfsupervised.settings import load, plain

OBJECTIVE = {"diversity_weight": 0.5, "similarity": "dot"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps that was stopped at the fifth and taken up again."""
    place = tmp_path_factory.mktemp("card")
    pack = str(write_pack(place / "pack.npz"))
    asked = settings(pack, training={"steps": 8}, objective=OBJECTIVE)
    asked_to_stop = iter([False] * 4 + [True] * 10)
    pretrain(asked, place / "first", open_fabric(asked, "cpu"), lambda: next(asked_to_stop), Form())
    pretrain(asked, place / "first", open_fabric(asked, "cpu"), lambda: False, Form())
    return place / "first"


def card(*words: str) -> int:
    """The command; its exit status."""
    return main(["card", *words])


def rows_of(text: str) -> dict[str, list[str]]:
    """Cells of every table row by their first."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines}


def test_the_card_says_what_the_log_says(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Held-out figures, data sets, steps, where it was taken up, counted traces, and the texts that were given."""
    (tmp_path / "data.md").write_text("Ask the projects.\n")
    (tmp_path / "notes.md").write_text("- It is tiny.\n")
    more = ["--data-sources", str(tmp_path / "data.md"), "--notes", str(tmp_path / "notes.md")]
    assert card(str(run), "--out", str(tmp_path / "out"), *more) == 0
    assert "tiny.safetensors" in capsys.readouterr().out
    text = (tmp_path / "out" / "card.md").read_text()
    evidence, rows = read_evidence(run), rows_of(text.partition("## Data and licences")[0])
    for name in ("accuracy", "hard_perplexity", "soft_perplexity", "dead_codes", "mutual_information"):
        assert float(rows[name.replace("_", " ")][0]) == pytest.approx(evidence.validation(name), rel=0.01), name
    assert float(rows["set 1"][1]) == pytest.approx(evidence.validation("loss", "set 1"), rel=0.01)
    assert (evidence.validation("hard_perplexity_1") or 0) > 1
    assert (
        f"{evidence.validation('hard_perplexity_1'):.3g}" in rows["hard perplexity, and dead codes, of each group"][0]
    )
    assert rows["steps"] == ["8 of 4 windows"]
    assert rows["stopped and taken up again"] == ["at step 5"]
    assert f"torch {torch.__version__}, device cpu" in rows["made with"][0]
    assert "Ask the projects." in text
    assert "- It is tiny." in text
    # Both data sets: three traces of 15 s to learn from and one held out.
    assert re.findall(r"set \d \| 3 \(0\.01 h\) \| 1 \(0\.00 h\)", text)
    assert str(run.parent) not in text


def test_the_weights_are_the_runs_in_half_the_size(run: Path, tmp_path: Path) -> None:
    """They load as the run's do, nearly, with its provenance; the digest in the card is the file's."""
    assert card(str(run), "--out", str(tmp_path / "half")) == 0
    assert card(str(run), "--out", str(tmp_path / "whole"), "--bits", "tiny=32") == 0
    half, whole = (tmp_path / name / "tiny.safetensors" for name in ("half", "whole"))
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    assert {value.dtype for value in load_file(half).values() if value.is_floating_point()} == {torch.float16}
    assert module.hashlib.sha256(half.read_bytes()).hexdigest() in (tmp_path / "half" / "card.md").read_text()
    (mine, told), (theirs, _) = load_backbone(half), load_backbone(run / "backbone.safetensors")
    assert told["step"] == 8
    transfer(mine, Picker(TINY))
    batch = Rows(2, tape=False).batch(0)
    with torch.no_grad():
        found, expected = (one(batch.waveform, batch.valid) for one in (mine, theirs))
    assert 0 < (found - expected).square().mean().sqrt() < 0.01 * expected.square().mean().sqrt()


def test_eight_bits_are_a_scale_a_row(run: Path, tmp_path: Path) -> None:
    """No weight is off by more than half a step of its row, and fine-tuning reads them."""
    assert card(str(run), "--out", str(tmp_path), "--bits", "tiny=8") == 0
    path = tmp_path / "tiny.safetensors"
    file, (mine, _), (theirs, _) = load_file(path), load_backbone(path), load_backbone(run / "backbone.safetensors")
    expected = theirs.state_dict()
    for name, value in mine.state_dict().items():
        if value.ndim < 2:
            assert file[name].dtype == torch.float16
            continue
        assert file[name].dtype == torch.int8
        rows = expected[name].flatten(1)
        step = rows.abs().amax(dim=1) / 127
        # The scale itself is rounded to 11 bits, which the largest weight of a row shows most.
        assert ((value.flatten(1) - rows).abs().amax(dim=1) <= 0.57 * step + 1e-7).all(), name
    transfer(mine, Picker(TINY))


def test_the_recipe_in_the_card_is_that_of_the_run(run: Path, tmp_path: Path) -> None:
    """Its command, with the pack put where it is, gives the settings of the run again."""
    assert card(str(run), "--out", str(tmp_path)) == 0
    text = (tmp_path / "card.md").read_text()
    command = text.partition("Reproduce:")[2].partition("```sh\n")[2].partition("```")[0].replace("\\\n", " ")
    words = subprocess.run(["sh", "-c", f'printf "%s\\n" {command}'], capture_output=True, text=True, check=True)
    changes = [word for word in words.stdout.splitlines() if re.match(r"[a-z_]+\.", word)]
    base = Path(__file__).parents[3] / "configs" / "pretrain" / "base.toml"
    found = plain(load(base, [change for change in changes if not change.startswith("data.pack")]))
    asked = json.loads((run / "settings.json").read_text())
    assert "objective.diversity_weight=0.5" in changes
    assert "data.pack=pack.npz" in changes
    found["data"]["pack"] = asked["data"]["pack"]
    assert found == asked


def test_what_cannot_be_released(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No run, two of one preset, a text that is missing, and weights that 16 bits would spoil: one line each."""
    out = ["--out", str(tmp_path / "out")]
    for words, said in (
        ([str(tmp_path / "none"), *out], "no log.jsonl in it"),
        ([str(run), str(run), *out], "runs of presets tiny, tiny: name one run of each"),
        ([str(run), *out, "--bits", "base=8"], "--bits base=8: write it as PRESET=BITS, with a preset of tiny and 8"),
        ([str(run), *out, "--bits", "tiny=4"], "--bits tiny=4: write it as"),
        ([str(run), *out, "--notes", str(tmp_path / "none.md")], "none.md: cannot be read"),
        ([str(run), *out, "--data", str(tmp_path / "none.npz")], "none.npz: no such pack"),
    ):
        assert card(*words) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "card.md").exists()


def test_sixteen_bits_that_do_harm_are_refused(tmp_path: Path) -> None:
    """Weights beyond the range of float16 are infinite there: the run's 32 bits must be kept."""
    backbone = Backbone(TINY)
    with torch.no_grad():
        backbone.late.weight[0, 0] = 1e6
    save_backbone(tmp_path / "backbone.safetensors", backbone, {})
    with pytest.raises(module.ConfigError, match="use --bits tiny=32"):
        module.release(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert module.release(tmp_path, tmp_path / "out", bits=32).difference == 0
