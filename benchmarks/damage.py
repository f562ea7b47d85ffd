"""What looking for damage costs: processor seconds of the checks over those of an inventory that decodes all images.

Only what exists for the sake of damage and of cost is counted. That libjpeg's warnings are errors costs nothing, and
checksums that the decoders compute themselves cannot be told apart. Those of deflated TIFFs of 8 bits are among them:
zlib compares them while it inflates, so there is no row of TIFFs alone.
"""

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import measure
import pictures
from clock import Cost
from PIL import Image

from barlow.data.folder import FolderSource
from barlow.data.inventory import scan

CHECKS = (
    "barlow.data.damage:check_png",
    "barlow.data.damage:check_tiff",
    "barlow.data.jpeg:_check_cost",
    "barlow.data.jpeg:_has_all_scans",
)
"""Functions that are called with a file's bytes and refuse it, by where the decoders look them up."""

FORMS = {
    "jpeg": "JPEGs as they are",
    "png": "the same as PNGs",
    "mixed": "seven of ten as JPEGs, two as PNGs, one as a deflated TIFF",
}
"""By name: what the images are."""

AT_MOST = 0.03
"""The share that is promised."""

MIXED = ("jpg", "jpg", "png", "jpg", "jpg", "tif", "jpg", "jpg", "png", "jpg")


class Timed:
    """Processor seconds of some functions, added up. They stand in for the real ones in this process."""

    def __init__(self, names: Sequence[str]) -> None:
        self.seconds, self.calls = 0.0, 0
        for name in names:
            module, _, function = name.partition(":")
            home = importlib.import_module(module)
            setattr(home, function, self._timed(getattr(home, function)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            self.calls += 1
            began = time.thread_time()
            try:
                return function(*given)
            finally:
                self.seconds += time.thread_time() - began

        return timed


def written(folder: Path, photos: Sequence[Path], name: str) -> Path:
    """The photos in one of `FORMS`."""
    folder.mkdir()
    for number, photo in enumerate(photos):
        ending = {"jpeg": "jpg", "png": "png", "mixed": MIXED[number % len(MIXED)]}[name]
        if ending == "jpg":
            (folder / f"{number:04}.jpg").write_bytes(photo.read_bytes())
        else:
            options = {"compression": "tiff_adobe_deflate"} if ending == "tif" else {}
            Image.open(photo).convert("RGB").save(folder / f"{number:04}.{ending}", **options)
    return folder


def rows(smoke: bool) -> Sequence[measure.Part]:
    """A row for each form, on one thread."""
    home, timed = pictures.home(), Timed(CHECKS)
    native, what = pictures.native_jpegs(home)
    photos = sorted(path for path in native.iterdir() if path.is_file())[: 20 if smoke else 100]

    def row(name: str) -> measure.Part:
        source = FolderSource([written(home / name, photos, name)])

        def piece() -> tuple[Cost, Cost]:
            timed.seconds, timed.calls = 0.0, 0
            wall, processor = time.perf_counter(), time.process_time()
            scan(source, sample=None, workers=1)
            if not timed.calls:
                raise RuntimeError(f"{name}: none of CHECKS was called, so nothing was measured; where are they now?")
            own = timed.seconds
            whole = Cost(time.perf_counter() - wall, time.process_time() - processor)
            return Cost(own, own), whole

        return measure.Part(
            name=f"damage_{name}",
            what=f"looking for damage in {len(photos)} images: {FORMS[name]}; {what}",
            piece=piece,
            whole_name="the whole inventory",
            at_most=AT_MOST,
            warmups=1,
            seconds=30,
        )

    return [row(name) for name in FORMS]


if __name__ == "__main__":
    sys.exit(measure.main(__file__, rows))
