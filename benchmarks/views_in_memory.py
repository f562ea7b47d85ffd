"""Two views of 32 pixels of images held in memory, on one core: ours against lightly's, or its operations."""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import numpy as np
import torch
from clock import counted
from PIL import Image

from barlow.views import ops
from barlow.views.pipeline import ViewPipeline

SIDE = 32
COLOUR = (0.4, 0.4, 0.4, 0.1)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pipeline() -> ViewPipeline:
    """SimCLR's views as usual for images of this size: as published, without blur."""
    view = [ops.RandomResizedCrop(SIDE), ops.HorizontalFlip(), ops.ColorJitter(0.8, *COLOUR), ops.Grayscale(0.2)]
    return ViewPipeline([view, view], MEAN, STD)


def reference() -> tuple[Callable[[Image.Image], object], str]:
    """The same of lightly, where it is installed; else the operations it consists of."""
    try:
        from lightly.transforms import SimCLRTransform

        made: Callable[[Image.Image], object] = SimCLRTransform(
            input_size=SIDE,
            cj_prob=0.8,
            cj_bright=COLOUR[0],
            cj_contrast=COLOUR[1],
            cj_sat=COLOUR[2],
            cj_hue=COLOUR[3],
            gaussian_blur=0.0,
        )
        return made, "lightly's SimCLRTransform"
    except ImportError:
        from torchvision import transforms

        view = transforms.Compose(
            [
                transforms.RandomResizedCrop(SIDE),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([transforms.ColorJitter(*COLOUR)], p=0.8),
                transforms.RandomGrayscale(0.2),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )
        return lambda image: [view(image), view(image)], "torchvision's transforms (lightly is not installed)"


def rows(smoke: bool) -> list[measure.Row]:
    torch.set_num_threads(1)
    batch, batches = 256, 1 if smoke else 4
    noise = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = (torch.nn.functional.interpolate(noise, (SIDE, SIDE), mode="bilinear") * 255).to(torch.uint8)
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    ours, (theirs, name) = pipeline(), reference()

    def views() -> None:
        for epoch in range(batches):
            ours.from_memory(pixels, None, np.arange(batch), 0, epoch)

    def views_of_the_reference() -> None:
        for _ in range(batches):
            for image in images:
                theirs(image)

    return [
        measure.Row(
            name="views_in_memory",
            what=f"two {SIDE}-px views (crop, flip, colours, grey) of each of {batch * batches:,} images, one thread",
            ours=counted(views),
            reference=counted(views_of_the_reference),
            reference_name=name,
            at_least=5.0,
            work=(batch * batches, "images"),
        )
    ]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
