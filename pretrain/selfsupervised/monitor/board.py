"""TensorBoard: the figures of the journal as scalars in groups, and the plots as images, below ``tensorboard/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from picker.errors import ConfigError
from pretrain.selfsupervised.monitor.journal import EVENT, TRAIN, Kind

FOLDER = "tensorboard"
GROUPS = {
    "codebook": (
        "soft_perplexity",
        "hard_perplexity",
        "dead_codes",
        "revived_codes",
        "diversity",
        "gumbel_temperature",
    ),
    "stability": ("gradient_norm", "skipped_steps", "feature_scale"),
    "speed": ("windows_per_s", "data_wait_share", "peak_memory"),
}
"""Group of a figure by how its name begins; the rest belong to the task itself."""
TASK = "task"


class Writer(Protocol):
    """Where figures and images of a run go besides its journal."""

    def write(self, step: int, kind: Kind, values: Mapping[str, Any]) -> None:
        """Figures of a step."""

    def image(self, name: str, path: Path, step: int) -> None:
        """A plot."""

    def close(self) -> None:
        """Nothing more comes."""


class NoBoard:
    """No TensorBoard is wanted, or this is not the first rank."""

    def write(self, step: int, kind: Kind, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def image(self, name: str, path: Path, step: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Board:
    """Event files below ``folder/tensorboard``. ``purge_step``: hide what an earlier part wrote from this step on."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{error.name} is not installed, and [monitoring] tensorboard needs it: pip install 'onset[train]', "
                "or set tensorboard = false"
            ) from error
        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=purge_step)

    def write(self, step: int, kind: Kind, values: Mapping[str, Any]) -> None:
        """One scalar a figure; events and their text are left to the journal."""
        if kind == EVENT:
            return
        for name, value in values.items():
            self._writer.add_scalar(tag(kind, name), float(value), step)
        self._writer.flush()

    def image(self, name: str, path: Path, step: int) -> None:
        """The picture of a PNG file."""
        from matplotlib.image import imread

        self._writer.add_image(name, imread(path)[..., :3], step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write what waits."""
        self._writer.close()


def tag(kind: Kind, name: str) -> str:
    """``group/name``; of a validation ``validation <data set>/name``; ``rate/...`` stays as it is."""
    if kind != TRAIN:
        data_set, _, rest = name.rpartition("/")
        return f"{kind} {data_set}/{rest}" if data_set else f"{kind}/{name}"
    if "/" in name:
        return name
    return f"{next((group for group, starts in GROUPS.items() if name.startswith(starts)), TASK)}/{name}"
