"""F1 of a training run on records that nothing of it has seen, as `label_efficiency.py` wants it.

    python benchmarks/label_judge.py RUN PACK DEV OUT.json

The averaged weights are exported and streamed chunk by chunk through ONNX Runtime. Thresholds are the best ones on the
fold tune of PACK; the figures are those of the analysts' labels among DEV (a SeisBench folder, or a pack) at these.
There is no proof of parity: it takes longer than the training, and what it proves, the tests of `export` do too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from export.build import read_checkpoint
from export.graph import write_onnx
from picker.bundle import MODEL, Bundle
from picker.model.picker import specification
from picker.stepper import OnnxStepper
from pretrain.data.trace import TUNE
from pretrain.evaluate import best_thresholds, evaluate, read_traces
from pretrain.metric import PHASES, TOLERANCES_S

DEV_SPLIT, STATUS, ROUGH = "dev", "manual", "manual_lowq"


def judge(run: Path, pack: Path, dev: Path) -> dict[str, Any]:
    """Thresholds from the fold tune, and F1 on ``dev`` by phase and tolerance."""
    model = read_checkpoint(run).model
    with TemporaryDirectory() as folder:
        write_onnx(model, Path(folder) / MODEL)
        stepper = OnnxStepper(Bundle(folder=Path(folder), spec=specification(model), digest="not proved"), threads=1)
        thresholds = best_thresholds(evaluate(stepper, read_traces(pack, fold=TUNE, without=[ROUGH])))
        scores = evaluate(stepper, read_traces(dev, split=DEV_SPLIT, status=STATUS), thresholds).scores()
    f1 = {f"{phase}_{t}s": scores[phase].tallies[t].f1 for phase in PHASES for t in TOLERANCES_S}
    return {"thresholds": thresholds, "f1": f1}


def main() -> int:
    """Judge and write; exit status 0."""
    run, pack, dev, out = map(Path, sys.argv[1:])
    part = out.with_suffix(".part")
    part.write_text(json.dumps(judge(run, pack, dev), indent=2) + "\n", encoding="utf-8")
    part.replace(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
