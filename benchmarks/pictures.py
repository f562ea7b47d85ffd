"""Pictures to measure with: real ones where they lie beside the checkout, and photographs' likeness everywhere else."""

import atexit
import os
import shutil
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

SHARED = Path(os.environ.get("BARLOW_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
"""Real sets, as tar files; see CONTRIBUTING.md."""


@cache
def home() -> Path:
    """A folder for this process's pictures, which goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="barlow-pictures-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def natural(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(h, w, 3) uint8 with the spectrum of photographs: amplitudes fall as 1 / frequency, colours mostly agree."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1.0
    planes = []
    for _ in range(4):
        noise = np.fft.rfft2(rng.standard_normal((height, width))) / frequency
        noise[0, 0] = 0
        plane = np.fft.irfft2(noise, s=(height, width))
        planes.append(plane / plane.std())
    pixels = [128 + 50 * planes[0] + 20 * plane for plane in planes[1:]]
    return np.clip(np.stack(pixels, axis=2), 0, 255).astype(np.uint8)


def write_folder(folder: Path, count: int, height: int, width: int, *, different: int = 64, seed: int = 0) -> Path:
    """Writes JPEGs of quality 90 (4:2:0). Only the first `different` are drawn; the others are copies of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        path = folder / f"{i:05}.jpg"
        if i < different:
            Image.fromarray(natural(height, width, rng)).save(path, quality=90)
        else:
            path.write_bytes((folder / f"{i % different:05}.jpg").read_bytes())
    return folder


def native_jpegs(folder: Path) -> tuple[Path, str]:
    """A folder of 200 JPEGs of about 500 × 375, and what they are: ImageNet's own where they lie, else generated."""
    tar = SHARED / "native-jpegs.tar"
    if tar.is_file():
        with tarfile.open(tar) as archive:
            archive.extractall(folder, filter="data")
        return folder / "native-jpegs", "200 ImageNet JPEGs (median 500×375)"
    return write_folder(folder / "generated", 200, 375, 500), "200 generated JPEGs of 500×375"
