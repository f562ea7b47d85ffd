"""Features of a folder of generated JPEGs, beside the encoder alone on the same tensors in memory."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import numpy as np
import pictures
import torch
from clock import Cost, Stopwatch
from either import either

from barlow.nets.preprocessing import Preprocessing
from barlow.probes.features import embed

build_encoder = either("barlow.nets.building:build_encoder", "barlow.nets.encoders:build_encoder")
labelled_set = either("barlow.data.labelled:read_labelled", "barlow.evaluation:_labelled")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 64


class Folder:
    """One encoder on one folder."""

    def __init__(self, folder: Path, count: int, name: str, size: int) -> None:
        self.encoder = build_encoder(name, in_channels=3, image_size=size, seed=0)
        labelled = labelled_set(folder, "train", Preprocessing(size, 1.0, "bilinear", MEAN, STD, 3), 0.0)
        chosen = np.linspace(0, len(labelled.ids) - 1, min(count, len(labelled.ids))).astype(int)
        assert labelled.held is not None
        self.held = replace(labelled, ids=labelled.ids[chosen], held=labelled.held[chosen])
        self.files = replace(self.held, held=None)
        self.count = len(chosen)
        with torch.no_grad():
            self.tensors = [x.contiguous(memory_format=torch.channels_last) for x in self.held.views(BATCH)]
        self.expected = torch.empty(0)

    def bare(self) -> Cost:
        self.encoder.eval()
        watch = Stopwatch()
        with torch.no_grad():
            features = [self.encoder(x) for x in self.tensors]
        took = watch.cost()
        self.expected = torch.cat(features)
        return took

    def from_memory(self) -> Cost:
        return self._embedded(True)

    def from_files(self) -> Cost:
        return self._embedded(False)

    def _embedded(self, held: bool) -> Cost:
        images = self.held if held else self.files
        watch = Stopwatch()
        features = embed(self.encoder, images.views(BATCH))
        took = watch.cost()
        if len(self.expected) and not torch.equal(features, self.expected):
            raise SystemExit("the features are not those of the encoder alone, bit for bit")
        return took


def rows(smoke: bool) -> Sequence[measure.Row]:
    """A quick look takes 64 images."""
    count = 64 if smoke else 256
    source = pictures.home() / "labelled"
    for name in ("one", "other"):
        pictures.write_folder(source / name, count // 2, 96, 96, different=32)
    small = Folder(source, count, "resnet18", 96)
    listed = [
        ("embedding_memory", "centre views held in memory", small.from_memory),
        ("embedding_files", "decoded ahead from JPEGs", small.from_files),
    ]
    return [
        measure.Row(
            name=f"{name}_resnet18_96",
            what=f"ResNet-18, 96 px, {small.count} images, batch {BATCH}, {torch.get_num_threads()} threads: {what}",
            ours=ours,
            reference=small.bare,
            reference_name="the encoder alone",
            at_least=0.95,
            work=(small.count, "images"),
        )
        for name, what, ours in listed
    ]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
