"""Lets torchvision be imported beside a CPU build of torch that its compiled part was not made for.

torchvision's Python part declares meta kernels for two compiled operators, so its import fails when the shared library
does not load (a CUDA-built torchvision wheel next to a CPU build of torch). A finder waits for the first import of
torchvision; when the library does not load, it declares the schemas of the two operators, and the import succeeds.
Nothing compiled is then available. Only detection needs any of it, and registers its own
(`barlow.detection.operators`). On a matching pair nothing changes.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_libraries: list[Any] = []  # a torch.library.Library undoes its declarations when it is collected


class _TorchvisionFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            _declare_missing_operators(Path(spec.origin).parent)
        return spec


def _declare_missing_operators(folder: Path) -> None:
    import torch

    for compiled in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd")):
        try:
            torch.ops.load_library(str(compiled))
        except OSError:
            continue
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)


def install() -> None:
    """Puts the finder in front, once, unless torchvision is already imported."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _TorchvisionFinder) for f in sys.meta_path):
        sys.meta_path.insert(0, _TorchvisionFinder())
