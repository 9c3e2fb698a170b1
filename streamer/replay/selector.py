"""Selectors: which streams of a station a client wants, in the pattern languages of SeedLink v3 and v4.

Patterns know ``*`` and ``?`` only and are anchored at both ends. They are matched by regular expressions from
``fnmatch``, whose translation of many stars does not backtrack exponentially on a hostile pattern.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from streamer.replay.stream import StreamName

_PATTERN = re.compile(r"[A-Za-z0-9_?*-]*", re.ASCII)
_V3_PATTERN = re.compile(r"[A-Za-z0-9?*-]*", re.ASCII)
_TYPES = "DECOTL"


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Anchored matcher of a pattern with ``*`` and ``?``; raises ValueError for characters that no code has."""
    if not pattern or _PATTERN.fullmatch(pattern) is None:
        raise ValueError(f"{pattern!r} may hold only letters, digits, '_', '-', '?' and '*'")
    return re.compile(fnmatch.translate(pattern))


def has_wildcard(pattern: str) -> bool:
    """Whether a pattern can match more than one name."""
    return "*" in pattern or "?" in pattern


@dataclass(frozen=True, slots=True)
class Selector:
    """One pattern: ``key`` against the stream's v3 key or v4 ID, ``kind`` against format + subformat (such as 2D)."""

    syntax: Literal[3, 4]
    negative: bool
    key: re.Pattern[str]
    kind: re.Pattern[str]

    def matches(self, name: StreamName, format_subformat: str) -> bool:
        """Whether packets of this stream and format are meant, leaving aside ``negative``."""
        key = name.v3_key if self.syntax == 3 else name.stream_id
        return key is not None and self.key.match(key) is not None and self.kind.match(format_subformat) is not None


def parse_v3(text: str) -> Selector:
    """``[!][LL]CCC[.T]`` of SeedLink v3; raises ValueError.

    ``LL``, ``.T`` and ``LLCCC.`` can be left out, ``-`` is a blank, ``?`` one character,
    ``*`` any number of them.
    """
    negative = text.startswith("!")
    body, dot, kind = text.removeprefix("!").partition(".")
    if not dot and len(body) == 1 and body in _TYPES:
        body, kind = "", body
    if (dot or not body) and (len(kind) != 1 or kind not in _TYPES + "?*"):
        raise ValueError(f"{text!r} has type {kind!r}, not one of {', '.join(_TYPES)}")
    if _V3_PATTERN.fullmatch(body) is None:
        raise ValueError(f"{text!r} is not a SeedLink v3 selector such as BHZ, 00BH? or 00BHZ.D")
    if body == "":
        key = "*"
    elif "*" in body:
        key = body if len(body) > 3 or body == "*" else f"*{body}"
    elif len(body) in (3, 5):
        key = f"{body:?>5}"
    elif len(body) == 4:
        key = f"{body[0]}-{body[1:]}"
    else:
        raise ValueError(f"{text!r} is not a SeedLink v3 selector such as BHZ, 00BH? or 00BHZ.D")
    return Selector(3, negative, compile_glob(key), compile_glob(f"?{kind}" if kind else "*"))


def parse_v4(text: str) -> Selector:
    """``[!]stream_pattern[.format_subformat_pattern][:filter]`` of SeedLink v4; raises ValueError.

    Data are served as they are, so the only filter is ``native``.
    """
    negative = text.startswith("!")
    body, colon, conversion = text.removeprefix("!").partition(":")
    if colon and negative:
        raise ValueError(f"{text!r}: a filter cannot follow a pattern with '!'")
    if colon and conversion != "native":
        raise ValueError(f"{text!r}: filter {conversion!r} is not offered, only native")
    key, dot, kind = body.partition(".")
    if dot and not kind:
        raise ValueError(f"{text!r}: nothing follows the '.'")
    # The pattern of format and subformat is anchored at its beginning only (SeedLink 4.0, Pattern matching).
    return Selector(4, negative, compile_glob(key), compile_glob(f"{kind}*"))


def selects(selectors: Iterable[Selector], name: StreamName, format_subformat: str) -> bool:
    """Whether a stream is wanted: any positive selector (or none given at all) and no negative one."""
    wanted, any_positive = False, False
    for selector in selectors:
        hit = selector.matches(name, format_subformat)
        if selector.negative and hit:
            return False
        if not selector.negative:
            any_positive = True
            wanted = wanted or hit
    return wanted or not any_positive
