"""The command ``pretrain codebook``: which waveforms the codes of a run stand for."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from picker.errors import ConfigError
from picker.model.config import STRIDE
from pretrain.data.trace import RATE_HZ
from pretrain.objectives.contrastive import Contrastive
from pretrain.selfsupervised.checkpoint import load_objective
from pretrain.selfsupervised.monitor.codebook_page import draw_codebook
from pretrain.selfsupervised.monitor.figures import FOLDER, perplexity_of
from pretrain.selfsupervised.monitor.journal import finite
from pretrain.selfsupervised.monitor.kinds import KINDS
from pretrain.selfsupervised.monitor.survey import Survey, survey
from pretrain.selfsupervised.source import open_held_out

DESCRIPTION = """\
Show what the codes of a pretraining run stand for, on the held-out windows of its data: for the most used codes of each
group the windows nearest to the mean of their tokens, how often and for how long each is used, its share of use in
noise, P and S, and which codes of the groups go together and follow each other."""

EXAMPLES = """\
examples:
  pretrain codebook runs/first
  on other data, more codes, and every figure as JSON:
    pretrain codebook runs/first --data other.npz --codes 24 --plot codes.png --json codes.json"""

PAGE = "codes.png"
PAIRS = 20
BATCH = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments, description and examples of ``pretrain codebook``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a pretraining run")
    parser.add_argument("--data", type=Path, metavar="PACK", help="a pack whose fold tune is used (the run's)")
    parser.add_argument("--codes", type=int, default=12, help="codes of each group that are shown (%(default)s)")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help=f"page to write (RUN/{FOLDER}/{PAGE})")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write every figure")


def run(options: argparse.Namespace) -> int:
    """Run ``pretrain codebook``; raises ConfigError where the run has no codebook or its data are missing."""
    if options.codes < 1:
        raise ConfigError(f"--codes is {options.codes}; it must be at least 1")
    objective, settings = load_objective(options.run_folder)
    if not isinstance(objective, Contrastive):
        raise ConfigError(f"{options.run_folder}: its objective has no codebook; name a run of `contrastive`")
    data = settings.data if options.data is None else settings.data.model_copy(update={"pack": str(options.data)})
    batches = open_held_out(data, batch=BATCH, seed=settings.training.seed, device=torch.device("cpu"))
    found = survey(objective, batches, options.codes)
    page = options.plot or options.run_folder / FOLDER / PAGE
    draw_codebook(found, page, options.run_folder.name, options.codes)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(as_dict(found, options.codes), indent=1, allow_nan=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    console = Console()
    console.print(usage_table(found, options.codes))
    console.print(f"groups share {found.shared_nats():.2f} nats; page: {page}", highlight=False, soft_wrap=True)
    return 0


def usage_table(found: Survey, most: int) -> Table:
    """The most used codes of each group."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for heading in ("group", "code", "of frames", "lasts, s", *KINDS, "nearest window"):
        table.add_column(heading, justify="left" if heading == "nearest window" else "right")
    for group in range(len(found.used)):
        for entry in _codes(found, group, most):
            nearest = entry["windows"][0]["trace"] if entry["windows"] else "–"
            shares = (f"{entry[kind]:.0%}" if entry[kind] is not None else "–" for kind in KINDS)
            lasts = "–" if entry["lasts_s"] is None else f"{entry['lasts_s']:.2f}"
            table.add_row(str(group), str(entry["code"]), f"{entry['share']:.2%}", lasts, *shares, nearest)
        table.add_section()
    return table


def as_dict(found: Survey, most: int) -> dict[str, Any]:
    """Every figure, of the ``most`` used codes of each group."""
    groups = []
    for group, counts in enumerate(found.used):
        shares = counts / max(found.frames, 1)
        summary = {"group": group, "hard_perplexity": perplexity_of(shares), "dead_codes": int((counts == 0).sum())}
        groups.append(summary | {"codes": _codes(found, group, most)})
    whole = {"frames": found.frames, "groups": groups}
    return whole | {"between_groups": {"shared_nats": found.shared_nats(), "pairs": _pairs(found)}}


def _codes(found: Survey, group: int, most: int) -> list[dict[str, Any]]:
    listed = []
    for code in found.ranked(group, most):
        windows = [
            {"trace": m.trace, "data_set": m.data_set, "sample": m.sample, "distance": m.distance}
            for m in found.medoids.get((group, code), [])
        ]
        following = found.followed[group, code]
        numbers = {
            "code": code,
            "share": float(found.used[group, code] / max(found.frames, 1)),
            "lasts_s": found.run_frames(group, code) * STRIDE / RATE_HZ,
            **found.balanced(group, code),
            "followed_by": int(following.argmax()) if following.any() else -1,
        }
        listed.append(finite(numbers) | {"windows": windows})
    return listed


def _pairs(found: Survey) -> list[dict[str, Any]]:
    """The pairs of codes of the first two groups that are used together most, and how much more than by chance."""
    if found.together is None:
        return []
    listed, total = [], max(int(found.together.sum()), 1)
    for flat in np.argsort(-found.together, axis=None, kind="stable")[:PAIRS]:
        first, second = (int(part) for part in np.unravel_index(flat, found.together.shape))
        share = float(found.together[first, second] / total)
        by_chance = float(found.used[0, first] / total * found.used[1, second] / total)
        if share:
            listed.append(
                {"codes": [first, second], "share": share, "times_chance": share / max(by_chance, math.ulp(0))}
            )
    return listed
