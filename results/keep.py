"""Keep runs beside the tables: their logs and reports, and with --weights their models as well.

    python results/keep.py runs/gcd-base30 --weights

A model is kept in half precision, and without what only --resume needs: a tenth of the checkpoint.
train.py reads it where no run was made (--ask, --eval-only).
"""

import argparse
import shutil
from pathlib import Path

import torch

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
parser.add_argument("--weights", action="store_true")
args = parser.parse_args()

for path in (run / name for run in args.runs for name in ("checkpoint.pt", "report.txt")):
    if not path.exists():
        parser.error(f"there is no {path}: is the run finished?")
for run in args.runs:
    checkpoint = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    folder = Path(__file__).parent / run.name
    folder.mkdir(exist_ok=True)
    (folder / "model.pt").unlink(missing_ok=True)  # that of an earlier run
    for name in ("log.jsonl", "report.txt"):
        shutil.copy(run / name, folder)
    if args.weights:
        model = {name: weights.half() for name, weights in checkpoint["model"].items()}
        torch.save(checkpoint | {"model": model, "optimizers": []}, folder / "model.pt")
    print(folder)
