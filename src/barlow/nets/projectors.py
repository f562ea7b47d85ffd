"""The head that training compares and the result does not keep."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from barlow.nets.seeds import seeded


class Projector(nn.Sequential):
    """Linear, batch norm, ReLU for every width but the last; then a Linear, and nothing after it.

    Source: Barlow Twins (arXiv 2103.03230, §2.2, and its released code): 8192, 8192, 8192, no biases. VICReg (arXiv
    2105.04906, released code): 8192, 8192, 8192, biases in the hidden layers, none in the last. W-MSE (arXiv
    2007.06346, released code): 1024, 64, biases in both.
    Weights start as torch's Linear does (uniform in ±1/√fan-in) in all three.

    Args:
        in_features: width of the encoder's output.
        widths: output width of each Linear; the last is the width of the embedding.
        hidden_bias: whether the Linear layers before a batch norm have biases (batch norm takes them out again).
        last_bias: whether the last Linear has one.
        batch_norm: whether the hidden layers are normalised.
        seed: the weights are a function of it.

    Raises:
        ValueError: no widths, or one that is not positive.
    """

    def __init__(
        self,
        in_features: int,
        widths: Sequence[int],
        hidden_bias: bool,
        last_bias: bool,
        batch_norm: bool = True,
        seed: int = 0,
    ) -> None:
        if not widths or min(in_features, *widths) < 1:
            raise ValueError(
                f"projector from {in_features} to widths {list(widths)}: give at least one width, all positive, "
                "for example [1024, 1024]"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        with seeded(seed, "projector"):
            width = in_features
            for i, next_width in enumerate(widths[:-1]):
                layers[f"linear{i}"] = nn.Linear(width, next_width, bias=hidden_bias)
                if batch_norm:
                    layers[f"norm{i}"] = nn.BatchNorm1d(next_width)
                layers[f"relu{i}"] = nn.ReLU(inplace=True)
                width = next_width
            layers[f"linear{len(widths) - 1}"] = nn.Linear(width, widths[-1], bias=last_bias)
        super().__init__(layers)
        self.in_features = in_features
        self.out_features = widths[-1]
