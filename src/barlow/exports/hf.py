"""A folder for transformers' `AutoModel.from_pretrained`, which is timm's folder, too."""

from dataclasses import dataclass

from barlow.exports import _timm_folder
from barlow.exports._protocol import Material, Use

__all__ = ["HF"]

_TRANSFORMERS = """\
from transformers import AutoImageProcessor, AutoModel

network = AutoModel.from_pretrained(folder).eval()
processor = AutoImageProcessor.from_pretrained(folder)


def features(images):
    return network(images).pooler_output
"""

_ASKS = """\
says = {key: processor.data_config[key] for key in ("input_size", "mean", "std", "crop_pct", "interpolation")}
"""


@dataclass(frozen=True)
class HF:
    """The plain network as transformers' TimmWrapperModel: its `pooler_output` are the features."""

    about: str = "transformers' AutoModel.from_pretrained(DIR), and timm"

    def refuses(self, material: Material) -> str | None:
        return _timm_folder.refuses(material)

    def files(self, material: Material) -> dict[str, bytes]:
        return _timm_folder.files(material)

    def uses(self, material: Material) -> list[Use]:
        whole = not material.hands_out_more
        says = _timm_folder.says(material)
        return [
            Use("transformers", _TRANSFORMERS, whole, "transformers", asks=_ASKS, says=says, needs=("transformers",)),
            _timm_folder.use(material),
        ]

    def notes(self, material: Material) -> list[str]:
        return _timm_folder.notes(material)
