"""Every settings file that is shipped can be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.selfsupervised.settings import load as load_run
from streamer.settings import load_settings

FOLDER = Path(__file__).parents[2] / "configs"
LOADERS: dict[str, Callable[[Path], object]] = {"streamer": load_settings, "pretrain": load_run}
"""Which program reads a file, by its folder below configs/, or else by the first word of its name."""


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.toml")), ids=lambda path: path.name)
def test_it_loads(path: Path) -> None:
    """A file in configs/ is one that a program reads, and is valid."""
    program = path.stem.split("-")[0] if path.parent == FOLDER else path.parent.name
    assert program in LOADERS, f"{path.name}: say in LOADERS which program reads it"
    LOADERS[program](path)


def test_there_is_one_for_each_program() -> None:
    """configs/ holds the daemon's settings, and those of a pretraining run."""
    assert (FOLDER / "streamer.toml").is_file()
    assert (FOLDER / "pretrain" / "base.toml").is_file()
