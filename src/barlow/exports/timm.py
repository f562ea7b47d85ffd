"""A folder for `timm.create_model("local-dir:…", pretrained=True)`."""

from dataclasses import dataclass

from barlow.exports import _timm_folder
from barlow.exports._protocol import Material, Use

__all__ = ["Timm"]


@dataclass(frozen=True)
class Timm:
    """The plain network, with the size, mean and standard deviation of this encoder's images."""

    about: str = 'timm.create_model("local-dir:DIR", pretrained=True)'

    def refuses(self, material: Material) -> str | None:
        return _timm_folder.refuses(material)

    def files(self, material: Material) -> dict[str, bytes]:
        return _timm_folder.files(material)

    def uses(self, material: Material) -> list[Use]:
        return [_timm_folder.use(material)]

    def notes(self, material: Material) -> list[str]:
        return _timm_folder.notes(material)
