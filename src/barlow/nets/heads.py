"""Heads: what training puts behind the encoder, and the run does not keep. Projectors, predictors, classifiers."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import nn

from barlow.nets.seeding import seeded

WIDEST, PARAMETERS = 131_072, 2_000_000_000
"""Eight times the widest head in a paper (Barlow Twins' ablations), and more numbers than 8192-8192-8192 has by far."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A multi-layer perceptron: Linear, batch norm and ReLU for every width but the last, then a last Linear.

    Batch norm may follow the last Linear as well; a ReLU never does. A single width is a linear classifier.

    Source: the published heads, by their `widths` (f is the encoder's number of features):

    - Barlow Twins (arXiv 2103.03230, §2.2, and its released code): 8192, 8192, 8192, without biases.
    - VICReg (arXiv 2105.04906, released code): 8192, 8192, 8192, biases in the hidden layers and none in the last.
    - W-MSE (arXiv 2007.06346, released code): 1024, 64, with all biases.
    - SimCLR (arXiv 2002.05709, released code): f, 128, without biases, `last_batch_norm="scale"`, `init_std=0.01`.
    - MoCo v2 (arXiv 2003.04297): f, 128, with all biases and without batch norm.
    - BYOL (arXiv 2006.07733), projector and predictor: 4096, 256, biases in the hidden layer and none in the last.
    - SimSiam (arXiv 2011.10566, released code), projector: 2048, 2048, 2048, without biases, `last_batch_norm="plain"`;
      predictor: 512, 2048, a bias in the last layer alone.

    Convention: Linear weights and biases start as torch starts them, uniform in ±1/√fan-in, unless `init_std` is given.
    That is how Barlow Twins, VICReg and W-MSE start.

    Args:
        widths: output width of each Linear. The last is the width of the embedding.
        hidden_bias: whether the Linear layers but the last have biases. Batch norm takes a bias out again.
        last_bias: whether the last Linear has one.
        batch_norm: whether batch norm follows the Linear layers but the last.
        last_batch_norm: what follows the last Linear. `none`: nothing. `plain`: batch norm that only normalises.
            `scale`: with a trained scale. `affine`: with a trained scale and shift.
        init_std: the weights of the Linear layers start normal with this standard deviation, and biases at zero.

    Raises:
        ValueError: no widths, or one that is not positive; an unknown `last_batch_norm`; a negative `init_std`.
    """

    widths: list[int]
    hidden_bias: bool
    last_bias: bool
    batch_norm: bool = True
    last_batch_norm: Literal["none", "plain", "scale", "affine"] = "none"
    init_std: float | None = None

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise ValueError(
                f"head with widths {list(self.widths)}: give at least one width, all positive, for example [1024, 1024]"
            )
        if sum(a * b for a, b in pairwise(self.widths)) > PARAMETERS or max(self.widths) > WIDEST:
            raise ValueError(
                f"head with widths {list(self.widths)}: at most {WIDEST:,} wide, and {PARAMETERS:,} parameters, are "
                "allowed"
            )
        if self.last_batch_norm not in ("none", "plain", "scale", "affine"):
            raise ValueError(
                f"last_batch_norm {self.last_batch_norm!r} is unknown; allowed: none, plain, scale, affine"
            )
        if self.init_std is not None and self.init_std < 0:
            raise ValueError(f"init_std {self.init_std} is negative; give a standard deviation, or leave it out")

    def build(self, in_features: int, seed: int, part: str) -> nn.Sequential:
        """The head's layers, called linear0, norm0, relu0, linear1 and so on.

        Args:
            in_features: width of what the head is given.
            seed: the same head, width, seed and part give the same weights.
            part: what the head is in its method, for example `projector` or `predictor`. Two heads of one method would
                start from the same numbers without it.

        Raises:
            ValueError: `in_features` is not positive.
        """
        if in_features < 1:
            raise ValueError(f"a {part} from {in_features} features: give a positive number")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        last = len(self.widths) - 1
        with seeded(seed, part):
            width = in_features
            for i, next_width in enumerate(self.widths):
                layers[f"linear{i}"] = self._linear(width, next_width, self.hidden_bias if i < last else self.last_bias)
                if i < last:
                    if self.batch_norm:
                        layers[f"norm{i}"] = nn.BatchNorm1d(next_width)
                    layers[f"relu{i}"] = nn.ReLU(inplace=True)
                width = next_width
        if self.last_batch_norm != "none":
            layers[f"norm{last}"] = _last_norm(width, self.last_batch_norm)
        return nn.Sequential(layers)

    def _linear(self, in_features: int, out_features: int, bias: bool) -> nn.Linear:
        linear = nn.Linear(in_features, out_features, bias=bias)
        if self.init_std is not None:
            nn.init.normal_(linear.weight, std=self.init_std)
            if bias:
                nn.init.zeros_(linear.bias)
        return linear


def _last_norm(width: int, kind: str) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width, affine=kind != "plain")
    if kind == "scale":
        norm.register_parameter("bias", None)
    return norm
