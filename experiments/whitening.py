"""How much features are best shrunk before they are whitened, by how many images there are for it.

    python experiments/whitening.py --data ../shared/data --work runs/whitening

The encoder is the packaged EfficientNet, as it is, at 96 pixels, with the features of all stages side by side: 1,472 of
them, which is more than a small folder has images. A part of the training images is what whitening is measured on and
what kNN (cosine, k = 20, temperature 0.07) votes with; 600 others of the training images are asked about. No test image
is read. Of Imagenette the encoder has seen the photos, with their labels. A line for each set goes to
results/whitening.jsonl; one that is there is not made again.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import results_line
import torch
from own_folder import SETS, lines_of, unpacked
from torch import Tensor

import barlow
from barlow.nets.handed_out import HandedOut, enough_shrinkage, whitening
from barlow.probes.features import FeatureSet
from barlow.protocols.knn import WeightedKNN

PROGRAM = "experiments/whitening.py"
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "whitening.jsonl"
COUNTS, ASKED, SHRINKAGES = (300, 600, 1200, 2400), 600, (0.1, 0.3, 0.6, 1.0)
SOURCE = "packaged:efficientnet_lite0"


def features_of(folder: Path) -> tuple[list[Tensor], np.ndarray]:
    """The features of each stage, of about as many images of each class, and the classes."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    most = max(COUNTS) + ASKED
    each = -(-most // len(classes))
    chosen = [(path, k) for k, home in enumerate(classes) for path in sorted(home.iterdir())[:each]]
    order = np.random.default_rng(0).permutation(len(chosen))[:most]
    encoder: Any = barlow.find_encoder(SOURCE, image_size=96).network
    pooled, parts = HandedOut(encoder, "all", whitened=False).eval(), []
    with torch.no_grad():
        for start in range(0, len(order), 64):
            parts.append(pooled.parts(encoder.preprocess([chosen[i][0] for i in order[start : start + 64]])))
    stages = [torch.cat(of_stage).double() for of_stage in zip(*parts, strict=True)]
    return stages, np.array([chosen[i][1] for i in order], np.int64)


def top1(train: Tensor, test: Tensor, labels: np.ndarray, count: int) -> float:
    """Per cent of the images that are asked about."""
    known = FeatureSet(train.float(), labels[ASKED : ASKED + count], np.arange(count))
    asked = FeatureSet(test.float(), labels[:ASKED], np.arange(ASKED))
    return round(100 * WeightedKNN()(known, asked)["top1"].value, 2)


def measured(folder: Path) -> list[dict[str, Any]]:
    """kNN by the number of images, without whitening and with several shrinkages."""
    stages, labels = features_of(folder)
    whole, widths = torch.cat(stages, 1), [each.shape[1] for each in stages]
    rows = []
    for count in COUNTS:
        if ASKED + count > len(whole):
            continue
        asked, known = whole[:ASKED], whole[ASKED : ASKED + count]
        row: dict[str, Any] = {"images": count, "features": sum(widths)}
        row["last stage"] = top1(stages[-1][ASKED : ASKED + count], stages[-1][:ASKED], labels, count)
        row["all stages"] = top1(known, asked, labels, count)
        mean, covariance = known.mean(0), torch.cov(known.T, correction=0)
        rule = enough_shrinkage(0.1, sum(widths), count)
        for name, shrinkage in [*((f"{each:g}", each) for each in SHRINKAGES), ("d / (d + n)", rule)]:
            weight, bias = whitening(mean, covariance, shrinkage, widths)
            row[f"whitened, {name}"] = top1(known @ weight.T + bias, asked @ weight.T + bias, labels, count)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the tars")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "whitening", help="where images are unpacked")
    arguments = parser.parse_args()
    for name in SETS:
        if any(line["images"] == name for line in lines_of(RESULTS)):
            continue
        rows = measured(unpacked(name, arguments.data, arguments.work)["train"])
        line = results_line.assembled(
            f"whitening of {name}", PROGRAM, {"images": name, "encoder": SOURCE, "rows": rows}
        )
        results_line.append(line, RESULTS)
        for row in rows:
            print(name, row, flush=True)


if __name__ == "__main__":
    main()
