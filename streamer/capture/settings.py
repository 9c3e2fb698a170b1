"""What is told about a capture: where its files go, and how much of them is kept."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from picker.errors import ConfigError
from streamer.section import Section


class CaptureSettings(Section):
    """[capture]: whether the daemon keeps what servers send, to play it back later."""

    path: Path | None = Field(
        default=None, description="Folder of the capture, made where there is none; unset keeps nothing."
    )
    rotate_h: float = Field(default=1.0, gt=0, le=744, description="Begin a new file so often (h).")
    max_gb: float = Field(
        default=10.0, gt=0, description="Most that the folder holds (GB); beyond it the oldest files are deleted."
    )
    gzip: bool = Field(default=False, description="Whether a file is compressed when the next one begins.")

    def folder(self) -> Path | None:
        """The folder, None for no capture. Raises ConfigError where it is not to be had."""
        if self.path is not None and not (self.path if self.path.exists() else self.path.parent).is_dir():
            raise ConfigError(f"{self.path}: there is no folder to put the capture into; make it, or mend capture.path")
        return self.path
