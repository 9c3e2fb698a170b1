"""The command ``pretrain card``: pretrained weights to give away, and the card that says what they are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from picker.errors import ConfigError
from pretrain.selfsupervised.card_page import CARD, Told, page
from pretrain.selfsupervised.monitor.evidence import read_evidence
from pretrain.selfsupervised.release import DTYPES, release

DESCRIPTION = """\
Write the backbones of finished runs to a folder as PRESET.safetensors (in 16 bits, or in --bits, where that is
harmless), and beside them card.md: how to use them, their figures on held-out recordings, how they were trained, data
and licences. All figures come from the runs' logs and settings; nothing is typed in by hand."""

EXAMPLES = """\
examples:
  pretrain card runs/onset-small runs/onset-base --out models/pretrained
  base in 8 bits, for half the size again:
    pretrain card runs/onset-small runs/onset-base --out models/pretrained --bits base=8
  with the texts that no log knows, and traces and hours counted in the pack where it now lies:
    pretrain card runs/onset-small runs/onset-base --out models/pretrained --data train.npz \\
      --data-sources models/pretrained.data_sources.md --notes models/pretrained.weaknesses.md"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments, description and examples of ``pretrain card``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folder of a pretraining run; one of each preset")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where weights and card go")
    add(
        "--data",
        type=Path,
        metavar="PACK",
        help="the pack of the runs, to count its traces (the runs', if it is there)",
    )
    add("--data-sources", type=Path, metavar="FILE.md", help="Markdown on data and licences")
    add("--notes", type=Path, metavar="FILE.md", help="Markdown on known weaknesses")
    add(
        "--bits",
        action="append",
        default=[],
        metavar="PRESET=BITS",
        help="8, 16 or 32 bits a weight (16); refused where they would change what is computed; may be given again",
    )


def run(options: argparse.Namespace) -> int:
    """Run ``pretrain card``; raises ConfigError for a folder that is no run, or two runs of one preset."""
    texts = {name: _text(path) for name, path in (("data", options.data_sources), ("notes", options.notes))}
    evidence = [read_evidence(folder) for folder in options.runs]
    presets = [str(each.setting("model.preset")) for each in evidence]
    if len(set(presets)) != len(presets):
        raise ConfigError(f"runs of presets {', '.join(presets)}: name one run of each")
    bits = _bits(options.bits, presets)
    released = [release(folder, options.out, bits[name]) for folder, name in zip(options.runs, presets, strict=True)]
    told = [
        Told(folder.name, weights, of_run)
        for folder, weights, of_run in zip(options.runs, released, evidence, strict=True)
    ]
    card = options.out / CARD
    card.write_text(page(told, options.data, **texts), encoding="utf-8")
    console = Console()
    for weights in released:
        size = f"{weights.size_bytes / 2**20:.2f} MiB, contexts within {weights.difference:.1g}"
        console.print(f"{weights.path}: {size}", highlight=False, soft_wrap=True)
    console.print(str(card), highlight=False, soft_wrap=True)
    return 0


def _bits(words: Sequence[str], presets: Sequence[str]) -> dict[str, int]:
    """Bits a weight of each preset; raises ConfigError that names the word which says none."""
    bits = dict.fromkeys(presets, 16)
    for word in words:
        name, _, number = word.partition("=")
        if name not in bits or not number.isdecimal() or int(number) not in DTYPES:
            raise ConfigError(
                f"--bits {word}: write it as PRESET=BITS, with a preset of {', '.join(presets)} and 8, 16 or 32"
            )
        bits[name] = int(number)
    return bits


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name a Markdown file") from error
