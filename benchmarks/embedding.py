"""Features of a folder of generated JPEGs, beside the encoder alone on the same tensors in memory.

The row `embedding_command` is all of `barlow embed`: listing, parts that are written and synced, and the file in the
end.
"""

import importlib.util
import sys
import tempfile
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


class Command:
    """`barlow.embed` on one folder, as its command calls it."""

    def __init__(self, folder: Path, size: int) -> None:
        from barlow.data.centre import centre_views
        from barlow.data.sources import open_source
        from barlow.encoders import find_encoder
        from barlow.features.embedding import embed as to_file

        found, source = find_encoder("random:resnet18", image_size=size), open_source(str(folder))
        ids = np.arange(len(source))
        self.encoder, self.folder, self.count, self.to_file = found.network, folder, len(source), to_file
        views = centre_views(source, ids, found.preprocessing, batch_size=BATCH, workers=1)
        self.tensors = [x.contiguous(memory_format=torch.channels_last) for x in views]
        self.home = tempfile.TemporaryDirectory(prefix="barlow-embedding-")

    def bare(self) -> Cost:
        watch = Stopwatch()
        with torch.no_grad():
            self.expected = torch.cat([self.encoder(x) for x in self.tensors])
        return watch.cost()

    def whole(self) -> Cost:
        out = Path(self.home.name) / "features.npy"
        watch = Stopwatch()
        self.to_file(self.encoder, self.folder, out, batch_size=BATCH, device="cpu", overwrite=True)
        took = watch.cost()
        if (made := np.load(out)).shape[0] != self.count:
            raise SystemExit(f"{made.shape[0]} of {self.count} images have features")
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
    parts = [
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
    if importlib.util.find_spec("barlow.features.embedding") is None:  # an older tree
        return parts
    command = Command(source, 96)
    whole = measure.Row(
        name="embedding_command_resnet18_96",
        what=f"ResNet-18, 96 px, {command.count} images, batch {BATCH}, {torch.get_num_threads()} threads: all of "
        "`barlow embed`, from the listing to the file",
        ours=command.whole,
        reference=command.bare,
        reference_name="the encoder alone",
        at_least=0.95,
        work=(command.count, "images"),
        close=command.home.cleanup,
        restart=measure.nothing,
    )
    return [*parts, whole]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
