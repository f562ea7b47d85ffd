import math

import pytest
import torch
from small_encoders import same, small_encoder
from torch import Tensor, nn

from barlow.nets.building import build_encoder, feature_width, list_encoders
from barlow.nets.stems import takes_small_stem
from barlow.size import height_width


@pytest.mark.parametrize(
    ("name", "size", "options", "features"),
    [
        ("resnet18", 32, {}, 512),
        ("resnet18", 96, {}, 512),
        ("resnet50", 32, {}, 2048),
        ("resnet50", 96, {}, 2048),
        ("regnetx_002", 32, {}, 368),
        ("regnetx_002", 96, {}, 368),
        ("convnext_atto", 32, {"patch_size": 2}, 320),
        ("convnext_atto", 96, {}, 320),
        ("vit_tiny_patch16_224", 32, {"patch_size": 4}, 192),
        ("vit_tiny_patch16_224", 96, {}, 192),
        ("resnet18", 28, {}, 512),
        ("resnet18", (24, 168), {}, 512),
        ("convnext_atto", (32, 128), {"patch_size": 2}, 320),
        ("vit_tiny_patch16_224", (32, 128), {}, 192),
        ("vit_tiny_patch16_224", (8, 20), {"patch_size": 4}, 192),
        ("swin_tiny_patch4_window7_224", (32, 128), {"window_size": 4}, 768),
    ],
)
def test_any_family_gives_pooled_features_and_finite_gradients(
    name: str, size: int | tuple[int, int], options: dict[str, object], features: int
) -> None:
    encoder = build_encoder(name, image_size=size, options=options)
    x = torch.randn(2, 3, *height_width(size), generator=torch.Generator().manual_seed(0))
    f = encoder(x)
    assert f.shape == (2, features)
    assert encoder.num_features == features
    f.square().mean().backward()
    gradients = [p.grad for p in encoder.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)
    assert any(bool(g.any()) for g in gradients if g is not None)


def test_width_is_that_of_the_output_where_timm_says_another() -> None:
    # MobileNetV3 widens once more behind its pooling: timm's own num_features is 288 here
    assert build_encoder("mobilenetv3_small_050", image_size=32).num_features == 1024


def test_resnet50_has_the_papers_number_of_parameters() -> None:
    encoder = build_encoder("resnet50", image_size=32)
    assert sum(p.numel() for p in encoder.parameters()) == 23_508_032  # recipes.md 1.2: 23.5 M


def test_resnet_convolutions_start_kaiming_normal_over_fan_out() -> None:
    encoder = build_encoder("resnet50", image_size=32, stem="small")
    for weight in (encoder.layer2[0].conv2.weight, encoder.layer3[0].conv1.weight):
        assert weight.std().item() == pytest.approx(math.sqrt(2 / (weight.shape[0] * weight[0, 0].numel())), rel=0.02)
    assert encoder.conv1.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("resnet50", 16), ("regnetx_002", 13)])
def test_last_scale_of_each_residual_branch_is_zero_unless_told_otherwise(name: str, blocks: int) -> None:
    def zeros(encoder: nn.Module) -> int:
        return sum(isinstance(m, nn.BatchNorm2d) and not m.weight.any() for m in encoder.modules())

    assert zeros(build_encoder(name, image_size=32)) == blocks
    ones = build_encoder(name, image_size=32, zero_init_last=False)
    assert zeros(ones) == 0
    assert all(bool((m.weight == 1).all()) for m in ones.modules() if isinstance(m, nn.BatchNorm2d))


def test_same_seed_gives_the_same_weights_whatever_was_drawn_before_and_leaves_the_generator_alone() -> None:
    first = small_encoder("small", seed=3)
    torch.rand(5)
    before = torch.get_rng_state()
    second = small_encoder("small", seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, second)
    assert not torch.equal(first.layer1[0].conv1.weight, small_encoder("small", seed=4).layer1[0].conv1.weight)
    assert not torch.equal(first.conv1.weight, small_encoder("small", seed=4).conv1.weight)


@pytest.mark.parametrize(
    ("stem", "side_in_first_stage"),
    [("as_is", 8), ("small", 32), ("small_padded", 34), ("small_pooled", 16), ("strided", 16), ("plain", 8)],
)
@pytest.mark.parametrize("name", ["resnet18", "resnet10t"])
def test_stems_shrink_the_image_as_they_say(name: str, stem: str, side_in_first_stage: int) -> None:
    encoder = build_encoder(name, in_channels=4, image_size=32, stem=stem)
    sides: list[int] = []
    encoder.layer1.register_forward_hook(lambda module, inputs, output: sides.append(inputs[0].shape[-1]))
    encoder.eval()(torch.zeros(1, 4, 32, 32))
    assert sides == [side_in_first_stage]
    if stem not in ("as_is", "plain"):
        conv = encoder.conv1
        padding = (2, 2) if stem == "small_padded" else (1, 1)
        assert (conv.kernel_size, conv.padding, conv.bias, conv.in_channels) == ((3, 3), padding, None, 4)


def test_stem_of_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stem 'small' is for ResNets; regnetx_002 is a RegNet, which has as_is only"):
        build_encoder("regnetx_002", image_size=32, stem="small")
    with pytest.raises(
        ValueError, match=r"unknown stem 'tiny'; allowed: as_is, small, small_padded, small_pooled, strided"
    ):
        build_encoder("resnet18", image_size=32, stem="tiny")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet181", {}, r"unknown encoder 'resnet181'; nearest: resnet18"),
        ("resnet50.a1_in1k", {}, r"names pretrained weights; give encoder 'resnet50' and init timm:resnet50.a1_in1k"),
        ("hf-hub:somebody/something", {}, r"unknown encoder"),
        ("resnet18", {"colour": 1}, r"timm cannot build resnet18 .*unexpected keyword argument 'colour'"),
        ("resnet18", {"pretrained": True}, r"option 'pretrained' is not for options: weights come from init"),
        ("resnet18", {"checkpoint_path": "a.pth"}, r"option 'checkpoint_path' is not for options"),
        ("vit_tiny_patch16_224", {}, r"patches of 16 pixels, which do not fill 40"),
        ("resnet18", {"global_pool": ""}, r"must return \(n, features\)"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build_encoder(name, image_size=40, options=options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "patch", "message"),
    [
        ((32, 100), 16, "patches of 16 pixels, which do not fill 32x100: .* size of 32x96, or another patch_size"),
        ((30, 128), 16, "patches of 16 pixels, which do not fill 30x128: .* size of 32x128"),
        (28, 16, "patches of 16 pixels, which do not fill 28: .* size of 32,"),
        (10, 16, "do not fill 10: .* size of 16,"),
        ((32, 100), (8, 16), "patches of 8x16 pixels, which do not fill 32x100: .* size of 32x96"),
    ],
)
def test_patches_that_do_not_fill_one_of_the_sides_are_refused_with_a_size_that_they_fill(
    size: int | tuple[int, int], patch: int | tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder("vit_tiny_patch16_224", image_size=size, options={"patch_size": patch})


@pytest.mark.parametrize("size", [0, "32x", (32, 0), (8, 8, 8), 32.0])
def test_what_is_no_size_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"^image_size is .*; give the side of a square, or height x width"):
        build_encoder("resnet18", image_size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "takes"),
    [("resnet18", True), ("seresnet50", True), ("skresnet18", True), ("resnetv2_50", False), ("regnetx_002", False)],
)
def test_whether_the_stem_can_be_replaced_is_known_before_building(name: str, takes: bool) -> None:
    assert takes_small_stem(name) is takes
    if takes:
        build_encoder(name, image_size=32, stem="small")
    else:
        with pytest.raises(ValueError, match="is for ResNets"):
            build_encoder(name, image_size=32, stem="small")


def test_unknown_and_custom_encoders_take_no_stem() -> None:
    assert not takes_small_stem("custom:Net")
    assert not takes_small_stem("resnet181")


def test_encoders_are_listed_by_part_or_pattern() -> None:
    assert "resnet50" in list_encoders("net50")
    assert "resnet18" in list_encoders("resnet1?")
    assert "resnet50" not in list_encoders("resnet1?")
    assert len(list_encoders()) > 1000


def test_measuring_the_width_changes_nothing() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.frozen = nn.BatchNorm2d(3).eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.frozen(self.norm(x)).mean(dim=3).flatten(1)

    net = Net()
    assert feature_width(net, 3, 16) == 48
    assert (net.training, net.norm.training, net.frozen.training) == (True, True, False)
    assert net.norm.num_batches_tracked == 0
    with pytest.raises(ValueError, match=r"the encoder made shape \(1, 3, 16, 16\)"):
        feature_width(nn.BatchNorm2d(3), 3, 16)
