"""A program of torch.export: needs torch alone, and holds all that the encoder hands out."""

import io
from dataclasses import dataclass

import torch

from barlow.exports._protocol import Material, Use

__all__ = ["TorchExport"]

MOST_ROWS = 65_536
"""Images in a batch at most. Some bound has to be named; nobody's memory holds so many."""

_PROGRAM = """\
import torch

network = torch.export.load(f"{folder}/model.pt2").module()


def features(images):
    return network(images)
"""


@dataclass(frozen=True)
class TorchExport:
    """`model.pt2`: the computation itself, for batches of any number of images of one size. It is not for training."""

    about: str = "torch.export.load, without timm or barlow"

    def refuses(self, material: Material) -> str | None:
        return None

    def files(self, material: Material) -> dict[str, bytes]:
        rows = torch.export.Dim("batch", min=1, max=MOST_ROWS)
        with torch.no_grad():
            # Two images: of a batch of one, torch may take the one for a constant.
            program = torch.export.export(
                material.encoder, (material.example(2),), dynamic_shapes=({0: rows},), strict=False
            )
        for module in program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
                node.meta.pop("stack_trace", None)  # paths of this machine, in a file that is given to others
        content = io.BytesIO()
        torch.export.save(program, content)
        return {"model.pt2": content.getvalue()}

    def uses(self, material: Material) -> list[Use]:
        return [Use("torch.export", _PROGRAM, True, "torch", beside="nothing")]

    def notes(self, material: Material) -> list[str]:
        return ["The number of images in a batch is free; their size is not.", "It is fixed in eval mode."]
