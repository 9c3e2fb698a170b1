"""Carry files to a machine that no registry can be reached from, in parts with checksums.

    python carry.py split FOLDER PARTS [--mb 50]       # where the wheels are
    python3 carry.py join PARTS FOLDER                 # where they are wanted

``split`` cuts every file of FOLDER into parts of so many megabytes and writes PARTS/manifest.json with the SHA-256 of
each part and file; ``join`` puts the files together again, whole or not at all, and names each part that is missing or
damaged. Parts that arrived whole need not be sent again. It needs the standard library alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

MANIFEST = "manifest.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Split or join; exit status 1, with one line for each fault, where something is missing or damaged."""
    parser = argparse.ArgumentParser(description="Carry files in parts with checksums.")
    parser.add_argument("action", choices=("split", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--mb", type=float, default=50.0, help="megabytes of a part (50)")
    options = parser.parse_args(arguments)
    if options.action == "split":
        files = split(options.source, options.target, max(1, int(options.mb * 1e6)))
        print(f"{options.target}: {files} files in {len(list(options.target.iterdir())) - 1} parts")
        return 0
    faults = join(options.source, options.target)
    for fault in faults:
        print(fault, file=sys.stderr)
    return int(bool(faults))


def split(source: Path, target: Path, part_bytes: int) -> int:
    """Cut the files of the folder ``source`` into ``target``; returns how many there were."""
    target.mkdir(parents=True, exist_ok=True)
    manifest = {}
    for file in sorted(path for path in source.iterdir() if path.is_file()):
        content = file.read_bytes()
        parts = []
        for number, first in enumerate(range(0, max(len(content), 1), part_bytes)):
            piece = content[first : first + part_bytes]
            name = f"{file.name}.{number:03d}"
            (target / name).write_bytes(piece)
            parts.append({"name": name, "sha256": _digest(piece)})
        manifest[file.name] = {"sha256": _digest(content), "parts": parts}
    (target / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return len(manifest)


def join(source: Path, target: Path) -> list[str]:
    """Put together what the manifest in ``source`` names; returns what is wrong, a line each."""
    try:
        manifest = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [f"{source / MANIFEST}: cannot be read ({error})"]
    target.mkdir(parents=True, exist_ok=True)
    faults = []
    for name, known in manifest.items():
        content, wrong = b"", []
        for part in known["parts"]:
            path = source / part["name"]
            piece = path.read_bytes() if path.is_file() else None
            if piece is None:
                wrong.append(f"{path}: missing; send it again")
            elif _digest(piece) != part["sha256"]:
                wrong.append(f"{path}: damaged; send it again")
            else:
                content += piece
        if not wrong and _digest(content) != known["sha256"]:
            wrong.append(f"{name}: its parts do not make the file; split it again")
        faults += wrong
        if not wrong:
            part_file = target / f".{name}.part"
            part_file.write_bytes(content)
            part_file.replace(target / name)
    return faults


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
