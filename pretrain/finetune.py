"""``pretrain finetune``: ``pretrain train`` from pretrained weights, in two stages.

Stage one trains the head alone on the frozen backbone; stage two everything, at a low rate that falls from layer to
layer towards the encoder, until the fold tune gets no better. Every option of ``pretrain train`` can be given; only the
defaults are others.
"""

from __future__ import annotations

import argparse

from picker.errors import ConfigError
from pretrain import train

DEFAULTS = {
    "freeze_steps": 500,
    "head_rate": 1e-3,
    "rate": 1e-4,
    "layer_decay": 0.8,
    "patience": 8,
    "second_look_samples": 128,
}
DESCRIPTION = """\
Teach a pretrained backbone to pick, with few labels: first the head alone, then everything at a low rate that is lower
the further a layer lies from the head, until the fold tune has got no better for --patience validations. RUN is a
folder as that of `pretrain train`, whose options all work here; --help shows the defaults of fine-tuning."""
EXAMPLES = """\
examples:
  all labels of a pack:
    pretrain finetune train.npz runs/picker --preset small --initial runs/small/backbone.safetensors
  a tenth of the analysts' events, nothing else to learn from:
    pretrain finetune train.npz runs/tenth --preset small --initial runs/small/backbone.safetensors \\
      --label-fraction 0.1 --share pseudo=0 --share simulated=0
  the labels of your own stations on a shipped picker:
    pretrain finetune mine.npz runs/mine --preset small --initial models/checkpoints/small.safetensors"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``pretrain train`` with other defaults."""
    train.add_arguments(parser)
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.set_defaults(**DEFAULTS)


def run(arguments: argparse.Namespace) -> int:
    """Run ``pretrain finetune``; raises ConfigError without weights to start from."""
    if arguments.initial is None:
        raise ConfigError(
            "--initial is missing: name a pretrained backbone (backbone.safetensors of `pretrain run`) or a picker; to "
            "start from nothing there is `pretrain train`"
        )
    # A rehearsal, or a run shorter than the first stage, trains the head alone.
    arguments.freeze_steps = min(arguments.freeze_steps, arguments.steps)
    return train.run(arguments)
