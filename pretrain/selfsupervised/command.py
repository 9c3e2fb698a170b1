"""The command ``pretrain run``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from pretrain.commands import size_bytes
from pretrain.selfsupervised.checkpoint import Form
from pretrain.selfsupervised.launch import open_fabric
from pretrain.selfsupervised.run import pretrain, rehearse
from pretrain.selfsupervised.settings import load
from pretrain.train import device_of, stopped_by_signal

DESCRIPTION = """\
Pretrain a backbone on waveforms without labels, as a settings file says (configs/pretrain/base.toml states and explains
every key). Needs PyTorch (pip install 'onset[train]'). RUN is a folder:

  settings.json         what was asked
  log.jsonl             figures of training and validation, one JSON object a line; tensorboard/ holds the same
  last/                 everything needed to go on
  backbone.safetensors  the weights that fine-tuning starts from
  figures/              codebook usage and context vectors

Ctrl-C or SIGTERM finishes the step, saves and exits; the same command then goes on as if nothing had happened (on a CPU
to the last bit). Several GPUs: start it by torchrun or srun, one process a GPU."""

EXAMPLES = """\
examples:
  does it all work? two steps and a validation, nothing is written:
    pretrain run configs/pretrain/small.toml runs/first --fast-dev-run
  one GPU:
    pretrain run configs/pretrain/base.toml runs/first --set data.pack=train.npz
  four GPUs of one machine:
    torchrun --standalone --nproc-per-node 4 -m pretrain run configs/pretrain/base.toml runs/first
  another setting, for this run alone:
    pretrain run configs/pretrain/base.toml runs/short --set training.steps=2000 --set objective.diversity_weight=0.5"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments, description and examples of ``pretrain run``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG.toml", help="settings of the run")
    add("run_folder", type=Path, metavar="RUN", help="folder of the run; an interrupted run in it goes on")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting: training.steps=100")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(here: %(default)s)")
    add("--fast-dev-run", action="store_true", help="two steps and a validation; nothing is written")
    add("--shard-size", type=size_bytes, default="1GiB", help="largest file of a checkpoint (1GiB)")
    add("--sixteen-bit", action="store_true", help="checkpoints half the size; going on from one is not exact")


def run(options: argparse.Namespace) -> int:
    """Run ``pretrain run``."""
    settings = load(options.config, options.set)
    device = str(device_of(options.device))
    with stopped_by_signal() as stop:
        fabric = open_fabric(settings, device)
        if options.fast_dev_run:
            rehearse(settings, fabric)
        else:
            form = Form(shard_bytes=options.shard_size, sixteen_bit=options.sixteen_bit)
            pretrain(settings, options.run_folder, fabric, stop, form)
    return 0
