"""An ONNX file, for onnxruntime and what else reads ONNX: holds all that the encoder hands out."""

import warnings
from dataclasses import dataclass

import torch

from barlow.exports._protocol import Material, Use

__all__ = ["ONNX"]

_PROGRAM = """\
import onnxruntime

session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])


def features(images):
    return session.run(["features"], {"images": images.numpy()})[0]
"""


@dataclass(frozen=True)
class ONNX:
    """`model.onnx`: one input `images`, one output `features`, and a free batch."""

    about: str = "onnxruntime, and whatever reads ONNX"

    def refuses(self, material: Material) -> str | None:
        return None

    def files(self, material: Material) -> dict[str, bytes]:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own code
            program = torch.onnx.export(
                material.encoder,
                (material.example(2),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65_536)},),
                input_names=["images"],
                output_names=["features"],
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        for node in [node for graph in (model.graph, *model.functions) for node in graph.node]:
            del node.metadata_props[:]  # among them stack traces: paths of this machine, in a file for others
        return {"model.onnx": model.SerializeToString()}

    def uses(self, material: Material) -> list[Use]:
        needs = ("onnx", "onnxscript", "onnxruntime")
        return [Use("onnxruntime", _PROGRAM, True, "onnxruntime", needs=needs, beside="nothing")]

    def notes(self, material: Material) -> list[str]:
        return ["The number of images in a batch is free; their size is not.", "Input and output are float32."]
