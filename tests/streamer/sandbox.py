"""Runs a command under what a unit of systemd forbids it, without systemd: ``sandbox.py UNIT COMMAND...``.

It covers SystemCallFilter=, RestrictAddressFamilies=, MemoryDenyWriteExecute=, CapabilityBoundingSet= (empty) and
NoNewPrivileges=, by the same means of the kernel; what concerns mounts is not covered.
"""

from __future__ import annotations

import configparser
import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path

ALLOW = 0x7FFF0000
REFUSE = 0x00050001  # SCMP_ACT_ERRNO(EPERM)
EQUAL = 4
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 24, 38, 65


class Unit(configparser.ConfigParser):
    """A unit file; keys keep their case, and a repeated key is a list of lines."""

    def __init__(self, path: Path) -> None:
        super().__init__(interpolation=None, comment_prefixes=("#",), delimiters=("=",), dict_type=dict, strict=False)
        self.optionxform = str  # type: ignore[assignment,method-assign]
        self.repeated: dict[str, list[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                self.repeated.setdefault(key, []).append(value)
        self.read(path)


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def expanded(name: str) -> set[str]:
    """System calls of a set such as ``@system-service``, the sets in it included."""
    if not name.startswith("@"):
        return {name}
    listing = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    members = [line.strip() for line in listing if line.strip() and not line.strip().startswith("#")]
    return {call for member in members for call in expanded(member)}


def allowed(unit: Unit) -> set[str]:
    """System calls that the unit leaves."""
    calls: set[str] = set()
    for line in unit.repeated["SystemCallFilter"]:
        named = {call for name in line.removeprefix("~").split() for call in expanded(name)}
        calls = calls - named if line.startswith("~") else calls | named
    return calls


def confine(unit: Unit) -> None:
    """Forbid this process, and what it becomes, all that the unit forbids."""
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(REFUSE))
    for call in sorted(allowed(unit) - {"socket"}):
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            assert seccomp.seccomp_rule_add_array(context, ALLOW, number, 0, None) == 0, call
    number = seccomp.seccomp_syscall_resolve_name(b"socket")
    for family in unit["Service"]["RestrictAddressFamilies"].split():
        compare = _Compare(0, EQUAL, int(getattr(socket, family)), 0)
        assert seccomp.seccomp_rule_add_array(context, ALLOW, number, 1, ctypes.byref(compare)) == 0
    assert unit["Service"]["CapabilityBoundingSet"] == ""
    if os.geteuid() == 0:
        for capability in range(41):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert unit["Service"]["MemoryDenyWriteExecute"] == "yes"
    if libc.prctl(PR_SET_MDWE, 1, 0, 0, 0) != 0:
        print('{"event": "no PR_SET_MDWE in this kernel"}', file=sys.stderr)
    assert seccomp.seccomp_load(context) == 0


if __name__ == "__main__":
    confine(Unit(Path(sys.argv[1])))
    os.execv(sys.argv[2], sys.argv[2:])
