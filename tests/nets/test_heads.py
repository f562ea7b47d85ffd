import hashlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from barlow.nets.heads import Head

HIDDEN = "linear0 Linear weight bias, norm0 BatchNorm1d weight bias, relu0 ReLU, "
HIDDEN_WITHOUT_BIAS = HIDDEN.replace("Linear weight bias", "Linear weight")


def layers(head: nn.Module) -> str:
    """The layers by name, kind, and which trained tensors they have: `linear0 Linear weight bias, relu0 ReLU`."""
    return ", ".join(
        " ".join([name, type(layer).__name__, *(n for n, _ in layer.named_parameters())])
        for name, layer in head.named_children()
    )


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
    head = Head(widths=widths, hidden_bias=hidden_bias, last_bias=last_bias)
    with torch.device("meta"):
        projector = head.build(in_features, 0, "projector")
    assert sum(p.numel() for p in projector.parameters()) == parameters


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (
            Head(widths=[4, 4, 2], hidden_bias=True, last_bias=False),
            HIDDEN + HIDDEN.replace("0", "1") + "linear2 Linear weight",
        ),
        # BYOL's projector and predictor
        (Head(widths=[4, 2], hidden_bias=True, last_bias=False), HIDDEN + "linear1 Linear weight"),
        # MoCo v2's
        (
            Head(widths=[4, 2], hidden_bias=True, last_bias=True, batch_norm=False),
            "linear0 Linear weight bias, relu0 ReLU, linear1 Linear weight bias",
        ),
        # SimCLR's
        (
            Head(widths=[4, 2], hidden_bias=False, last_bias=False, last_batch_norm="scale", init_std=0.01),
            HIDDEN_WITHOUT_BIAS + "linear1 Linear weight, norm1 BatchNorm1d weight",
        ),
        # SimSiam's projector, shortened
        (
            Head(widths=[4, 2], hidden_bias=False, last_bias=False, last_batch_norm="plain"),
            HIDDEN_WITHOUT_BIAS + "linear1 Linear weight, norm1 BatchNorm1d",
        ),
        (
            Head(widths=[2], hidden_bias=False, last_bias=True, last_batch_norm="affine"),
            "linear0 Linear weight bias, norm0 BatchNorm1d weight bias",
        ),
        # a linear classifier
        (Head(widths=[4], hidden_bias=False, last_bias=True), "linear0 Linear weight bias"),
    ],
)
def test_a_head_has_the_layers_it_describes(head: Head, expected: str) -> None:
    assert layers(head.build(8, 0, "projector")) == expected


def test_a_projector_keeps_the_names_and_the_numbers_of_older_checkpoints() -> None:
    """Written out: from which number torch's generator starts, and in which order the layers draw."""
    projector = Head(widths=[16, 12, 4], hidden_bias=True, last_bias=False).build(6, 1, "projector")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(b"projector:1").digest()[:8], "little") >> 1)
        expected = [nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 4, bias=False)]
    for i, linear in enumerate(expected):
        for name, value in linear.named_parameters():
            assert torch.equal(projector.get_parameter(f"linear{i}.{name}"), value)
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(projector.state_dict()) == [
        *(f"{layer}{i}.{n}" for i in (0, 1) for layer, ns in (("linear", norm[:2]), ("norm", norm)) for n in ns),
        "linear2.weight",
    ]


@pytest.mark.parametrize("last_batch_norm", ["plain", "scale", "affine"])
def test_a_last_batch_norm_normalises_over_the_batch_then_scales_then_shifts(last_batch_norm: Any) -> None:
    head = Head(widths=[3], hidden_bias=False, last_bias=False, last_batch_norm=last_batch_norm)
    built = head.build(5, 0, "projector").double()
    scale, shift = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        if last_batch_norm != "plain":
            built.norm0.weight.copy_(scale := torch.tensor([0.5, 1.0, 2.0]).double())
        if last_batch_norm == "affine":
            built.norm0.bias.copy_(shift := torch.tensor([1.0, 0.0, -1.0]).double())
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = built.linear0(x)
    expected = (made - made.mean(0)) / (made.var(0, correction=0) + 1e-5).sqrt() * scale + shift
    torch.testing.assert_close(built(x), expected)


def built(head: Head, seed: int, part: str) -> list[Tensor]:
    return list(head.build(8, seed, part).parameters())


def test_weights_are_a_function_of_seed_and_part_and_the_generator_is_left_alone() -> None:
    head = Head(widths=[4, 2], hidden_bias=True, last_bias=True)
    first = built(head, 3, "projector")
    torch.rand(3)
    before = torch.get_rng_state()
    second = built(head, 3, "projector")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], built(head, 4, "projector")[0])
    assert not torch.equal(first[0], built(head, 3, "predictor")[0])


def test_linear_layers_may_start_normal_with_biases_at_zero() -> None:
    head = Head(widths=[400, 100], hidden_bias=True, last_bias=True, init_std=0.01).build(300, 0, "projector")
    for linear in (head.linear0, head.linear1):
        assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert linear.weight.abs().max() > 0.03, "a uniform draw of this spread ends at 0.017"
        assert not linear.bias.any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"widths": []}, r"head with widths \[\]: give at least one width, all positive"),
        ({"widths": [4, 0]}, r"head with widths \[4, 0\]: give at least one width, all positive"),
        ({"last_batch_norm": "shift"}, "'shift' is unknown; allowed: none, plain, scale, affine"),
        ({"init_std": -0.01}, "init_std -0.01 is negative"),
    ],
)
def test_a_head_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Head(**{"widths": [4], "hidden_bias": True, "last_bias": True, **values})


def test_a_head_of_no_features_is_refused() -> None:
    with pytest.raises(ValueError, match="a predictor from 0 features: give a positive number"):
        Head(widths=[4], hidden_bias=True, last_bias=True).build(0, 0, "predictor")
