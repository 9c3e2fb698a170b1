"""Settings of a replay: what is served, how fast, to whom."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from picker.errors import ConfigError


class Delay(BaseModel):
    """How late the records of some streams appear: a constant, or one value per station drawn from a range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str = Field("*", description="FDSN name NET_STA_LOC_B_S_SS that it is for, with * and ?")
    low_s: float = Field(0.0, ge=0.0, allow_inf_nan=False, description="least delay, data seconds")
    high_s: float = Field(0.0, ge=0.0, allow_inf_nan=False, description="greatest delay, data seconds")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high_s < self.low_s:
            raise ValueError("the greatest delay is below the least")
        return self

    @classmethod
    def parse(cls, text: str) -> Delay:
        """``SECONDS``, ``LOW:HIGH``, ``PATTERN=SECONDS`` or ``PATTERN=LOW:HIGH``; raises ConfigError."""
        pattern, equals, amount = text.rpartition("=")
        low, colon, high = amount.partition(":")
        try:
            return cls(pattern=pattern if equals else "*", low_s=float(low), high_s=float(high if colon else low))
        except ValueError as error:
            detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not a number of seconds"
            raise ConfigError(
                f"--delay-s {text!r}: {detail}; write SECONDS, LOW:HIGH or PATTERN=SECONDS, as in 'XX_*=0.5:3'"
            ) from None


class ReplaySettings(BaseModel):
    """Everything that makes one replay the same as another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: tuple[Path, ...] = Field(min_length=1, description="miniSEED files, and folders that are searched for them")
    capture: bool = Field(False, description="whether the paths are captures, to be served as they came")
    capture_server: str | None = Field(None, description="HOST:PORT of a capture: serve what came from it alone")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(18000, ge=0, le=65535, description="TCP port; 0 is any free one")
    speed: float = Field(1.0, gt=0.0, allow_inf_nan=False, description="data seconds per second")
    shift: Literal["none", "start", "end"] = Field(
        "none",
        description="whether the data are moved in time, by whole seconds, to start or to end at the replay's start",
    )
    virtual_stations: int | None = Field(
        None, ge=1, le=9999, description="serve that many stations V0001, V0002, ... in place of those in the files"
    )
    delays: tuple[Delay, ...] = Field((), description="delays by stream; the first that matches counts")
    jitter_s: float = Field(
        0.0, ge=0.0, allow_inf_nan=False, description="most that a record is late at random, data s"
    )
    reorder: bool = Field(False, description="let jitter change the order of arrival within a station")
    seed: int = Field(0, description="seed of delays and jitter")
    repack_s: float | None = Field(
        None, gt=0.0, allow_inf_nan=False, description="longest record, s; longer ones are encoded again as miniSEED 2"
    )
    record_length: int = Field(512, description="length of those records in bytes; SeedLink v3 carries 512 only")
    wait_for_client: bool = Field(False, description="start the replay when the first client has asked for data")
    linger_s: float | None = Field(
        None, ge=0.0, allow_inf_nan=False, description="end that long after the last record, s; None is never"
    )
    ring_packets: int = Field(4096, ge=1, description="packets kept for each station")
    first_sequence: int = Field(1, ge=0, lt=1 << 63, description="sequence number of each station's first packet")
    max_clients: int = Field(100, ge=1, description="clients served at once")
    stall_s: float = Field(60.0, gt=0.0, description="a client that takes no data for that long is dropped, s")
    status_every_s: float = Field(10.0, gt=0.0, description="time between status lines, s")
    tls_certificate: Path | None = Field(None, description="PEM file of the server's certificate: speak TLS alone")
    tls_key: Path | None = Field(None, description="PEM file of its key; None where the certificate's file holds it")
    logins: frozenset[str] = Field(
        frozenset(),
        description="what AUTH must say, such as 'USERPASS user password' or 'JWT token'; empty lets everybody in",
    )
    organization: str = Field("Onset replay", description="second line of HELLO")

    @field_validator("record_length")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if not (128 <= value <= 1 << 20 and math.log2(value).is_integer()):
            raise ValueError("a miniSEED 2 record has a power of two from 128 on, such as 512 or 4096")
        return value

    @field_validator("organization")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("must be one line of printable text")
        return value
