"""Features of a folder of generated JPEGs, beside the encoder alone on the same tensors in memory."""

import atexit
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import measure
import numpy as np
import pictures
import torch

from barlow.data.labelled import read_labelled
from barlow.nets.building import build_encoder
from barlow.nets.preprocessing import Preprocessing
from barlow.probes.features import embed

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 64


class Folder:
    """One encoder on one folder."""

    def __init__(self, folder: Path, count: int, name: str, size: int) -> None:
        self.encoder = build_encoder(name, in_channels=3, image_size=size, seed=0)
        labelled = read_labelled(folder, "train", Preprocessing(size, 1.0, "bilinear", MEAN, STD, 3), 0.0)
        chosen = np.linspace(0, len(labelled.ids) - 1, min(count, len(labelled.ids))).astype(int)
        assert labelled.held is not None
        self.held = replace(labelled, ids=labelled.ids[chosen], held=labelled.held[chosen])
        self.files = replace(self.held, held=None)
        self.count = len(chosen)
        with torch.no_grad():
            self.tensors = [x.contiguous(memory_format=torch.channels_last) for x in self.held.views(BATCH)]
        self.expected = torch.empty(0)

    def bare(self) -> float:
        self.encoder.eval()
        before = time.perf_counter()
        with torch.no_grad():
            features = [self.encoder(x) for x in self.tensors]
        took = time.perf_counter() - before
        self.expected = torch.cat(features)
        return took

    def from_memory(self) -> float:
        return self._embedded(True)

    def from_files(self) -> float:
        return self._embedded(False)

    def _embedded(self, held: bool) -> float:
        images = self.held if held else self.files
        before = time.perf_counter()
        features = embed(self.encoder, images.views(BATCH))
        took = time.perf_counter() - before
        if len(self.expected) and not torch.equal(features, self.expected):
            raise SystemExit("the features are not those of the encoder alone, bit for bit")
        return took


def rows(smoke: bool) -> Sequence[measure.Row]:
    """A quick look takes 64 images."""
    count = 64 if smoke else 256
    source = Path(tempfile.mkdtemp(prefix="barlow-embedding-"))
    atexit.register(shutil.rmtree, source)
    for name in ("one", "other"):
        pictures.write_folder(source / name, count // 2, 96, 96, different=32)
    small = Folder(source, count, "resnet18", 96)
    listed = [
        ("embedding_memory", "centre views held in memory", small.from_memory),
        ("embedding_files", "decoded ahead from JPEGs", small.from_files),
    ]
    return [
        measure.Row(
            f"{name}_resnet18_96",
            f"ResNet-18, 96 px, {small.count} images, batch {BATCH}, {torch.get_num_threads()} threads: {what}",
            ours,
            small.bare,
            "the encoder alone",
            at_least=0.95,
            rounds=1 if smoke else 5,
            work=(small.count, "images"),
        )
        for name, what, ours in listed
    ]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
