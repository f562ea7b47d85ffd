"""What a target gets, and what it has to say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from barlow.nets.building import timm_arguments
from barlow.nets.handed_out import HandedOut
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.stems import STEMS, Stem
from barlow.size import height_width

__all__ = ["Material", "Target", "Use"]


@dataclass(frozen=True)
class Material:
    """What there is to export.

    Args:
        encoder: as it is handed out, on the CPU and in eval mode.
        config: its description (`barlow.nets.weights.description_of`).
    """

    encoder: nn.Module
    config: dict[str, Any]

    @property
    def network(self) -> nn.Module:
        """The plain network, without pooled stages and whitening."""
        network: nn.Module = self.encoder.network if isinstance(self.encoder, HandedOut) else self.encoder
        return network

    @property
    def hands_out_more(self) -> bool:
        """Whether the encoder's features are not the plain network's."""
        return isinstance(self.encoder, HandedOut)

    @property
    def preprocessing(self) -> Preprocessing:
        """What it expects of an image."""
        return Preprocessing(**self.config["preprocessing"])

    @property
    def name(self) -> str:
        """timm's name of the network, or `custom:CLASS`."""
        return str(self.config["name"])

    @property
    def arguments(self) -> dict[str, Any]:
        """What timm's `create_model` takes beside the name, before a stem is replaced."""
        return timm_arguments(
            self.name, self.config["in_channels"], self.preprocessing.size, self.config.get("options") or {}
        )

    @property
    def is_custom(self) -> bool:
        """Whether it is a module that was given in Python."""
        return self.config["kind"] == "custom"

    @property
    def replaced_stem(self) -> str | None:
        """What stands in the place of the network's own stem, in words; None where it is its own."""
        if (stem := self.stem) is None:
            return None
        pool = "then a" if stem.pooled else "without a"
        of = " of the lightness of sRGB from 0 to 1" if stem.lightness else ""
        return f"a {stem.side}×{stem.side} convolution of stride {stem.stride}{of}, {pool} max-pool"

    @property
    def stem(self) -> Stem | None:
        """What stands in the place of the network's own stem; None where it is its own."""
        return None if self.is_custom else STEMS[self.config["stem"]]

    def tensors(self, handed_out: bool = True) -> dict[str, Tensor]:
        """Its weights, in memory of their own."""
        module = self.encoder if handed_out else self.network
        return {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}

    def example(self, rows: int = 2) -> Tensor:
        """A blank input of so many images."""
        seen = self.preprocessing
        return torch.zeros(rows, seen.channels, *height_width(seen.size))


@dataclass(frozen=True)
class Use:
    """How one library reads a target's folder.

    Args:
        library: what it is called, and what `import` calls it.
        program: Python. It finds `folder`, a path, and defines `features(images)`: from a float tensor, normalised as
            the card says, to features. The card shows it, and the proof runs it.
        whole: whether the features are those that the encoder hands out; else they are the plain network's.
        asks: more Python for the proof alone. It sets `says`, plain data.
        says: what that has to be.
        package: what pip calls it; "" where the library itself is not run.
        needs: modules that have to be there beside what barlow brings.
        extra: of pyproject.toml, which installs them.
        beside: what the proof gives the program beside its library. `torchvision`: that torchvision can be imported
            though its compiled part does not load; most libraries import it. `barlow`: barlow. In all other proofs
            importing barlow fails, as it does for whoever gets the folder.
    """

    library: str
    program: str
    whole: bool
    package: str
    asks: str = ""
    says: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    extra: str = "export"
    beside: Literal["nothing", "torchvision", "barlow"] = "torchvision"


class Target(Protocol):
    """A form that another library reads. Without arguments; a frozen dataclass, the one class of its file."""

    about: str
    """One line: what reads it."""

    def refuses(self, material: Material) -> str | None:
        """Why this encoder cannot have this form, and what to do; None if it can."""
        ...

    def files(self, material: Material) -> dict[str, bytes]:
        """The files by name. The card, the preprocessing and the record of the proof are written for all targets."""
        ...

    def uses(self, material: Material) -> list[Use]:
        """The libraries that read the folder; every one of them has to be there, and gives its proof."""
        ...

    def notes(self, material: Material) -> list[str]:
        """Sentences for the card: what is different there, and what one has to know."""
        ...
