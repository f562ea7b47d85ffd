"""The two views of Barlow Twins' code, in its own libraries: Pillow and torchvision's transforms."""

import random
from collections.abc import Callable, Sequence

import torch
from PIL import Image, ImageFilter, ImageOps

Change = Callable[[Image.Image], Image.Image]
View = Callable[[Image.Image], torch.Tensor]


class Blur:
    """Pillow's blur, with probability p; its radius is the standard deviation."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        if random.random() >= self.p:
            return image
        return image.filter(ImageFilter.GaussianBlur(random.random() * 1.9 + 0.1))


class Solarize:
    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.solarize(image) if random.random() < self.p else image


def views(
    size: int,
    *,
    blurred_by: Callable[[float], Change] = Blur,
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
) -> list[View]:
    """Both views, of `size` pixels, as floats; `normalize` is mean and standard deviation by channel."""
    from torchvision import transforms  # beside a CPU build of torch it loads only once barlow has been imported

    def view(blur: float, solarize: float) -> View:
        ops = [
            transforms.RandomResizedCrop(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            transforms.RandomGrayscale(0.2),
            blurred_by(blur),
            Solarize(solarize),
            transforms.ToTensor(),
            *([transforms.Normalize(*normalize)] if normalize else []),
        ]
        return transforms.Compose(ops)

    return [view(1.0, 0.0), view(0.1, 0.2)]
