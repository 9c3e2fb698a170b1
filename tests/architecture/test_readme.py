"""README.md and the documents say what is true: commands exist, settings are valid, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from streamer.settings import load_settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = {"streamer": "streamer", "pretrain": "pretrain", "python -m export": "export"}


def code(text: str) -> list[str]:
    """Lines of code blocks without a language or of the shell, and inline code, without comments."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for language, block in blocks if language in ("", "sh") for line in block.splitlines()]
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [" ".join(line.split("#")[0].split()) for line in lines + inline]


def commands() -> Iterator[tuple[str, str, list[str]]]:
    """(module, sub-command, what follows) of each command of ours that README names."""
    for line in code(README):
        for program, module in PROGRAMS.items():
            if line.startswith(f"{program} "):
                command, *rest = shlex.split(line.removeprefix(program))
                yield module, command, rest


@cache
def help_of(module: str, command: str) -> str:
    """What ``python -m module command --help`` prints."""
    arguments = [sys.executable, "-m", module, command, "--help"]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"python -m {module} {command}: {result.stderr}"
    return result.stdout


def make_targets() -> set[str]:
    """Targets of the Makefile that `make help` lists."""
    return set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_it_names_commands() -> None:
    """README shows the daemon, the trainer and the exporter at work."""
    assert {module for module, _, _ in commands()} == {"streamer", "pretrain", "export"}


@pytest.mark.parametrize(("module", "command", "words"), sorted(commands()))
def test_commands_exist(module: str, command: str, words: list[str]) -> None:
    """Each sub-command that README names exists and has the options shown; none that it demands is left out."""
    text = help_of(module, command)
    options = [word for word in words if word.startswith("--")]
    assert [option for option in options if not re.search(rf"(?<!\S){option}\b", text)] == []
    usage = re.sub(r"\[.*?\]", "", text.split("\n\n")[0], flags=re.DOTALL)
    demanded = re.findall(r"--[a-z-]+", usage) if words else []
    assert [option for option in demanded if option not in options] == []


def test_make_targets_exist() -> None:
    """Each `make X` in README is a target with a line of help, and each such target is in README."""
    lines = [line.split() for line in code(README) if line.startswith("make ")]
    named = {word for _, *words in lines for word in words if re.fullmatch("[a-z]+", word)}
    assert named == make_targets() - {"help"}


def test_settings_are_valid(tmp_path: Path) -> None:
    """The settings in README can be used as they stand."""
    (snippet,) = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "my.toml").write_text(snippet, encoding="utf-8")
    settings = load_settings(tmp_path / "my.toml")
    assert settings.bundle.path == tmp_path / "models/small"
    assert settings.seedlink[0].streams[0].network == "GR"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Each relative link of a document names a file or folder of the project."""
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    relative = [target for target in targets if "://" not in target]
    assert [target for target in relative if not (document.parent / target).exists()] == []


def test_decisions_are_numbered_without_a_gap() -> None:
    """Decision records are 0001, 0002, ..., each titled by its number and saying all that a record must."""
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [record.name[:4] for record in records] == [f"{number:04d}" for number in range(1, len(records) + 1)]
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert text.startswith(f"# {record.name[:4]}: ")
        for part in ("**Context.**", "**Choice.**", "**Rejected", "**Would change it.**"):
            assert part in text, f"{record.name}: {part}"
