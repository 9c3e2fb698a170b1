"""Word to systemd's service manager (sd_notify(3)), without its library."""

from __future__ import annotations

import os
import socket

SEND_S = 0.5


def notify(state: str) -> bool:
    """Send ``state``, for example ``READY=1``, to the socket in NOTIFY_SOCKET; False where there is none to hear it.

    A service manager that does not listen costs no more than SEND_S: this is called on the event loop.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):  # a name in Linux' abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(SEND_S)
            channel.connect(address)
            channel.sendall(state.encode())
    except OSError:
        return False
    return True
