"""The second graph that a bundle may hold: fused for a GPU, with the proof that it is the same network.

``fused.onnx`` has the inputs and outputs of ``model.onnx``, in ONNX Runtime's own operators. ``fused.json`` says of
which bundle it is and what was proved. Neither is part of the bundle's digest: the model that picks is the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from picker.bundle import Bundle
from picker.errors import BundleError

FUSED, FUSED_PROOF = "fused.onnx", "fused.json"


def fused_graph(bundle: Bundle) -> Path | None:
    """The fused graph, None where the bundle has none.

    Raises BundleError where it was cut short or changed after its proof, belongs to another graph, or was never proved.
    """
    path, proof = bundle.folder / FUSED, bundle.folder / FUSED_PROOF
    mend = "write it again with `python -m export fuse`, or remove it"
    if not path.is_file():
        return None
    try:
        said = json.loads(proof.read_text(encoding="utf-8"))
        digest, sha256, passed = said["digest"], said["sha256"], said["passed"]
    except FileNotFoundError as error:
        raise BundleError(f"{proof}: missing, so that nothing proves {FUSED}; {mend}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{proof}: not a proof of parity ({error}); {mend}") from error
    if digest != bundle.digest:
        raise BundleError(f"{path}: is of the bundle {str(digest)[:8]}, and this one is {bundle.digest[:8]}; {mend}")
    if not passed:
        raise BundleError(f"{proof}: says that the graph is not the network; {mend}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise BundleError(f"{path}: was cut short or changed after its proof; {mend}")
    return path
