"""A SeedLink server (v3 and v4) that plays miniSEED files back as if they were arriving now."""

from streamer.replay.server import ReplayServer
from streamer.replay.settings import Delay, ReplaySettings

__all__ = ["Delay", "ReplayServer", "ReplaySettings"]
