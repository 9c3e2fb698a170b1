"""Errors of live data, named by what the daemon does about them (ConfigError and BundleError are picker's)."""

from picker.errors import OnsetError


class RemoteError(OnsetError):
    """A server failed or misbehaved: reconnect with back-off."""


class BadRecord(OnsetError):
    """A packet or record cannot be used: drop it and count it by ``reason``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
