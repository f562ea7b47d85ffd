import pytest
import torch
from torch import nn

from barlow.nets.projectors import Projector


@pytest.mark.parametrize(
    ("in_features", "widths", "hidden_bias", "last_bias", "parameters"),
    [
        # Barlow Twins: 2048·8192 + 2·8192² weights, scale and shift of two batch norms
        (2048, [8192, 8192, 8192], False, False, 150_994_944 + 4 * 8192),
        # VICReg: and the biases of the two hidden layers
        (2048, [8192, 8192, 8192], True, False, 150_994_944 + 4 * 8192 + 2 * 8192),
        # W-MSE: 512·1024 + 1024, batch norm, 1024·64 + 64
        (512, [1024, 64], True, True, 525_312 + 2048 + 65_600),
    ],
)
def test_published_projectors_have_their_number_of_parameters(
    in_features: int, widths: list[int], hidden_bias: bool, last_bias: bool, parameters: int
) -> None:
    with torch.device("meta"):
        projector = Projector(in_features, widths, hidden_bias, last_bias)
    assert sum(p.numel() for p in projector.parameters()) == parameters
    assert projector.out_features == widths[-1]


def test_the_order_is_linear_norm_relu_and_the_last_layer_is_linear() -> None:
    kinds = [type(layer) for layer in Projector(8, [4, 4, 2], True, False)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    plain = [type(layer) for layer in Projector(8, [4, 2], True, False, batch_norm=False)]
    assert plain == [nn.Linear, nn.ReLU, nn.Linear]


def test_biases_are_where_they_were_asked_for() -> None:
    def biases(**kwargs: bool) -> list[bool]:
        return [layer.bias is not None for layer in Projector(8, [4, 2], **kwargs) if isinstance(layer, nn.Linear)]

    assert biases(hidden_bias=True, last_bias=False) == [True, False]
    assert biases(hidden_bias=False, last_bias=True) == [False, True]


def test_weights_are_a_function_of_the_seed_and_the_generator_is_left_alone() -> None:
    first = Projector(8, [4, 2], True, True, seed=3)
    torch.rand(3)
    before = torch.get_rng_state()
    second = Projector(8, [4, 2], True, True, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first[0].weight, Projector(8, [4, 2], True, True, seed=4)[0].weight)


def test_widths_that_cannot_be_are_refused() -> None:
    for widths in ([], [4, 0]):
        with pytest.raises(ValueError, match="at least one width"):
            Projector(8, widths, True, True)
