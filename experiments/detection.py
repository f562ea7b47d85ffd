"""What detectors reach on real cells in minutes of one core, from scratch and with an encoder: results/detection.jsonl.

    python experiments/detection.py scratch --data ../shared/data   # one detector from scratch: 200 processor seconds
    python experiments/detection.py gain --data ../shared/data      # an encoder against untrained weights, three seeds
    python experiments/detection.py gain --encoder runs/photos …    # the same of another encoder
    python experiments/detection.py masks                           # masks of generated objects: six minutes

The set is bccd-voc: trainval is learned, test is looked at once. Every line has both conventions of average precision,
named. What was measured before is found again, so that a stopped call goes on (`--out`).
"""

import argparse
import statistics
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import results_line
from generated import ROOT

from barlow.detection.compared import Row
from barlow.detection.evaluating import Detection, detect
from barlow.probes.intervals import over_draws

PROGRAM = "experiments/detection.py"
RESULTS = ROOT / "results" / "detection.jsonl"

SCRATCH_STEPS = 210
"""Less than 200 processor seconds with a ResNet-18, the test images included, also where other work is done."""
GAIN_STEPS = 100
MASK_STEPS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["scratch", "gain", "masks"])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="has bccd-voc.tar")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "detection")
    parser.add_argument("--encoder", default="packaged:efficientnet_lite0", help="for gain")
    parser.add_argument("--seeds", type=int, default=3, help="for gain")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"out": given.out, "device": "cpu", "tell": print}
    if given.part == "masks":
        found = detect(
            ["random:resnet18"], "shapes_boxes:train", "shapes_boxes:test", steps=MASK_STEPS, seeds=1, **about
        )
    else:
        sets = [f"{cells(given.data, given.out)}:{split}" for split in ("trainval", "test")]
        if given.part == "scratch":
            found = detect(["random:resnet18"], *sets, steps=SCRATCH_STEPS, seeds=1, **about)
        else:
            found = detect([given.encoder], *sets, steps=GAIN_STEPS, seeds=given.seeds, **about)
    print(found.table())
    for row in found.rows:
        results_line.append(line(given.part, found, row), RESULTS)


def cells(data: Path, out: Path) -> Path:
    """The folder of the set, taken out of its archive once."""
    home = out / "images"
    if not home.is_dir():
        with tarfile.open(data / "bccd-voc.tar") as archive:
            archive.extractall(home, filter="data")
    return home / "bccd-voc" / "BCCD"


def line(part: str, found: Detection, row: Row) -> dict[str, Any]:
    """What is published of an encoder: every convention by its name, mean and spread over the seeds."""
    question, first = found.question, row.results[0]
    measured: dict[str, Any] = {
        "encoder": row.name,
        "images": {
            name: {"name": Path(each.name).name, "images": len(each), "fingerprint": each.fingerprint}
            for name, each in (("train", question.train), ("test", question.test))
        },
        "design": question.design,
        "schedule": first["schedule"],
        "batch_norm": question.batch_norm,
        "seeds": len(row.results),
        "precision": over_seeds(row.results),
        "processor_seconds": [result["processor_seconds"] for result in row.results],
        "by_class": {name: table["by_class"] for name, table in first["precision"].items()},
    }
    if row.beside is not None:
        measured["untrained"] = over_seeds(row.beside)
        measured["gain"] = {}
        for convention in first["precision"]:
            gains = row.gains(convention, "AP50")
            if gains is not None and len(gains) > 1:
                mean, low, high = over_draws(np.array(gains))
                measured["gain"][f"{convention}.AP50"] = {
                    "mean": round(mean, 4),
                    "interval": [round(low, 4), round(high, 4)],
                    "values": [round(gain, 4) for gain in gains],
                }
    return results_line.assembled(f"detection, {part}: {row.name}", PROGRAM, measured)


def over_seeds(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, spread and values of every metric."""
    summary: dict[str, Any] = {}
    for convention, table in results[0]["precision"].items():
        for metric in (name for name in table if name != "by_class"):
            values = [result["precision"][convention].get(metric) for result in results]
            if None not in values:
                spread = round(statistics.stdev(values), 4) if len(values) > 1 else None
                summary[f"{convention}.{metric}"] = {
                    "mean": round(statistics.fmean(values), 4),
                    "spread": spread,
                    "values": [round(value, 4) for value in values],
                }
    return summary


if __name__ == "__main__":
    main()
