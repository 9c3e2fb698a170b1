"""Passwords and tokens: from a file, from systemd's credentials, or from the environment. They are never logged."""

from __future__ import annotations

import os
from pathlib import Path

from picker.errors import ConfigError

LONGEST = 3900
"""Characters: what fits into a SeedLink command."""


def secret(file: Path | None, name: str | None, key: str) -> str | None:
    """The secret in ``file``, else the systemd credential ``name``, else the environment variable ``name``.

    It is read anew each time, so that a renewed token counts. None where nothing is given. Raises ConfigError, which
    names the settings key and never the secret.
    """
    if file is not None:
        return _checked(_read(file, key), key)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if name is None:
        return None
    credential = Path(folder, name) if folder else None
    if credential is not None and credential.is_file():
        return _checked(_read(credential, key), key)
    value = os.environ.get(name)
    return None if value is None else _checked(value, key)


def _read(file: Path, key: str) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); mend {key}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not text; mend {key}") from None


def _checked(value: str, key: str) -> str:
    usable = value.isascii() and value.isprintable() and " " not in value
    if not value or not usable or len(value) > LONGEST:
        raise ConfigError(
            f"what {key} leads to is empty, longer than {LONGEST} characters, or holds a blank or a character that is "
            "not printable ASCII: SeedLink cannot carry it"
        )
    return value
