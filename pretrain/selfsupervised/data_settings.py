"""The table ``[data]`` of a run: which windows are learnt from, and where they are held."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class DataSettings(BaseModel):
    """Where the windows come from. Every ``_share`` is a probability a window."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pack: str = Field(
        description="a pack to learn from: a file .npz or a folder of shards, both written by `pretrain pack`"
    )
    window_samples: int = Field(
        default=4096, ge=64, multiple_of=64, description="samples a window, at 100 Hz; a multiple of 64"
    )
    on_device: bool | Literal["auto"] = Field(
        default="auto",
        description="hold all data on the device (fastest), or read windows from disk by worker processes (any size); "
        "auto: on the device where the data take at most device_limit_gib there",
    )
    device_limit_gib: float = Field(default=16.0, gt=0, description="largest size of data held on the device, in GiB")
    hold: Literal["float32", "int16", "float16"] = Field(
        default="float32",
        description="how an .npz pack is held on the device: int16 and float16 take half the memory; a folder of "
        "shards is held in the form in which it was packed",
    )
    workers: int = Field(default=4, ge=0, description="processes that read from disk; 0 reads in the trainer itself")
    prefetch: int = Field(default=4, ge=1, description="micro-batches that each worker reads ahead")
    shares: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={},
        description="how often traces are drawn, by data set, status or kind (labelled, pseudo, noise), the first that "
        "is named; traces that no key names are not drawn. Empty: all alike. Within a key, data sets are drawn in "
        "proportion to the square root of their hours",
    )
    arrival_share: Share = Field(
        default=0.5,
        description="share of the windows of labelled traces that surely hold an arrival; the rest anywhere",
    )
    missing_component_share: Share = Field(
        default=0.2, description="windows of which one or two of the components that they have are taken away"
    )
    flip_share: Share = Field(default=0.5, description="windows whose polarity is turned round")
    gain_share: Share = Field(
        default=0.0,
        description="windows multiplied by a gain of 1e-3 to 1e3, and up to 2 either way for each component",
    )
    late_share: Share = Field(
        default=0.0, description="windows whose data begin somewhere in their first half, as of a station just started"
    )
    held_out_windows: int = Field(
        default=256, ge=1, description="most windows of each data set in the validation, from the fold tune"
    )
