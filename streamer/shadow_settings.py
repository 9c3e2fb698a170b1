"""What the daemon is told about a second model."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from picker.errors import ConfigError
from streamer.pick_settings import PickSettings, Thresholds
from streamer.section import Section
from streamer.topic import checked_root

SHADOW_ROOT = "onset-shadow/v1"


class ShadowSettings(Section):
    """[shadow]: a second model beside the first, on the same data, that publishes elsewhere."""

    path: Path | None = Field(
        default=None, description="Folder of its bundle; a relative path counts from the settings file; unset: none."
    )
    topic_root: str = Field(default=SHADOW_ROOT, description="What every topic of its picks starts with.")
    thresholds: Thresholds = Field(
        default_factory=Thresholds, description="Its thresholds; a phase left unset has that of picks.thresholds."
    )

    @field_validator("topic_root")
    @classmethod
    def _root(cls, root: str) -> str:
        try:
            return checked_root(root)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def picks(self, picks: PickSettings) -> PickSettings:
        """``picks`` as they hold for the shadow."""
        given = self.thresholds.model_dump(exclude_none=True)
        return picks.model_copy(update={"thresholds": picks.thresholds.model_copy(update=given)})
