"""Images that look like photographs (smooth parts, edges, grain), and real ones where there are any."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import barlow  # noqa: F401 (first: its guard lets torchvision be imported beside a CPU build of torch)

Pictures = Callable[..., Tensor]


def _pictures(n: int, height: int, width: int | None = None, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth colour, a few filled boxes with hard edges, a little noise: (n, c, h, w) uint8."""
    width = width or height
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 5, 5, generator=generator)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").numpy()
    for image in x:
        for _ in range(4):
            top, left = rng.integers(0, height), rng.integers(0, width)
            bottom, right = top + rng.integers(1, height), left + rng.integers(1, width)
            image[:, top:bottom, left:right] = rng.random((channels, 1, 1))
    x += rng.normal(0, 0.03, x.shape).astype(np.float32)
    return torch.from_numpy((x.clip(0, 1) * 255).round().astype(np.uint8))


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    return _pictures


@pytest.fixture(scope="session")
def photos(shared_data: Path) -> Tensor:
    """The first 24 photographs of Imagenette, squared to 96 pixels."""
    images: list[np.ndarray] = []
    with tarfile.open(shared_data / "imagenette-96.tar") as tar:
        for member in tar:
            if member.isfile() and member.name.lower().endswith((".jpg", ".jpeg")) and len(images) < 24:
                stream = tar.extractfile(member)
                assert stream is not None
                image = Image.open(io.BytesIO(stream.read())).convert("RGB").resize((96, 96))
                images.append(np.array(image))
            if len(images) == 24:
                break
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
