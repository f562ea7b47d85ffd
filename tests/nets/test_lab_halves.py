"""Two networks as one encoder: what each half sees, and that it is built, kept and read as any other."""

from pathlib import Path

import pytest
import tiny
import torch

import barlow
from barlow.colour_spaces import grey_of_lightness, lab
from barlow.methods.halves import Halves
from barlow.nets.building import build_encoder, list_encoders, takes_one_size
from barlow.nets.heads import Head
from barlow.nets.lab_halves import LabHalves
from barlow.nets.stems import takes_small_stem
from barlow.recipe.messages import RecipeError
from barlow.types import Rows

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


def small(**options: object) -> LabHalves:
    encoder = build_encoder("lab_resnet26", image_size=32, options=SMALL, **options).eval()
    assert isinstance(encoder, LabHalves)
    return encoder


def rgb(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_one_half_sees_the_lightness_and_the_other_the_colour_as_cmc_normalises_them() -> None:
    encoder, x = small(), rgb()
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in ([50, 6.025, -6.690], [50, 92.208, 101.168]))
    seen = (lab(x) - mean) / deviation
    expected = torch.cat([encoder.lightness(seen[:, :1]), encoder.colour(seen[:, 1:])], dim=1)
    assert torch.allclose(encoder(x), expected, atol=1e-6)
    assert encoder.num_features == encoder(x).shape[1] == 64
    first = encoder.lightness.conv1.weight, encoder.colour.conv1.weight
    assert [weight.shape[1] for weight in first] == [1, 2]


def test_without_colour_the_first_half_of_the_features_stays_and_the_second_does_not() -> None:
    encoder, x = small(), rgb()
    with torch.no_grad():
        whole, grey = encoder(x), encoder(grey_of_lightness(x))
    assert torch.allclose(whole[:, :32], grey[:, :32], atol=1e-3)
    assert float((whole[:, 32:] - grey[:, 32:]).norm()) > 0.1 * float(whole[:, 32:].norm())


def test_the_layout_of_a_batch_in_memory_changes_no_bit() -> None:
    encoder, x = small(), rgb()
    assert encoder(x).equal(encoder(x.contiguous(memory_format=torch.channels_last)))


def test_it_is_a_network_by_name_with_half_of_the_channels() -> None:
    with torch.device("meta"):
        whole = build_encoder("lab_resnet50", image_size=32)
    assert whole.num_features == 2048
    for half, _ in whole.halves():
        assert half.layer4[2].conv3.weight.shape == (1024, 256, 1, 1)
    assert {"lab_resnet18", "lab_resnet50"} <= set(list_encoders("lab_"))
    assert takes_small_stem("lab_resnet50")
    assert not takes_one_size("lab_resnet50")


@pytest.mark.parametrize(("stem", "side"), [("as_is", 7), ("small", 3), ("strided", 3)])
def test_a_stem_is_that_of_both_halves(stem: str, side: int) -> None:
    encoder = small(stem=stem)
    assert [half.conv1.kernel_size for half, _ in encoder.halves()] == [(side, side)] * 2
    assert [half.conv1.in_channels for half, _ in encoder.halves()] == [1, 2]
    assert encoder(rgb()).shape == (3, 64)


def test_images_without_colour_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 channels: lab_resnet26 takes RGB images, set --data.channels 3"):
        build_encoder("lab_resnet26", image_size=32, in_channels=1, options=SMALL)


def test_each_half_has_a_head_of_its_own_and_what_is_compared_is_both() -> None:
    head = Head(widths=[4], hidden_bias=True, last_bias=True)
    section = Halves(projector=head)
    encoder = small()
    method = section.build(lambda *_, **__: (encoder, 64), seed=0).eval()
    x = rgb()
    outputs = method(Rows([x], {"ids": torch.arange(3)}))
    assert section.widths(1) == [(4, 4)]
    ((lightness, colour),) = outputs.groups
    f = encoder(x)
    first, second = method.projectors
    assert torch.allclose(lightness, first(f[:, :32]))
    assert torch.allclose(colour, second(f[:, 32:]))
    assert not torch.isclose(*(p[0].weight for p in (first, second))).any()
    assert outputs.features[0].equal(f), "the run keeps both halves"
    with pytest.raises(ValueError, match="5 features, which have no halves"):
        section.build(lambda *_, **__: (encoder, 5), seed=0)


def test_one_network_has_no_halves_that_see_different_things() -> None:
    section = Halves(projector=Head(widths=[4], hidden_bias=True, last_bias=True))
    plain = build_encoder("resnet18", image_size=32, stem="strided", options={"channels": [8, 8, 8, 8]})
    with pytest.raises(ValueError, match=r"resnet18 is one network, .* --encoder.name lab_resnet18"):
        section.build(lambda *_, **__: (plain, 8), seed=0)
    with pytest.raises(ValueError, match="Identity is one network"):
        section.build(lambda *_, **__: (torch.nn.Identity(), 8), seed=0)


def test_a_run_hands_out_both_halves_and_is_read_again(tmp_path: Path) -> None:
    data, out = tiny.images(tmp_path / "data", 40), tmp_path / "run"
    changes = tiny.of_recipe("small_cmc") | {"train.steps": 2}
    barlow.pretrain(data, out, recipe="small_cmc", overrides=changes, progress=False)
    encoder = barlow.load_encoder(out)
    x = encoder.preprocess([str(data / "000.png"), str(data / "001.png")])
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1, "RGB as it is"
    assert encoder(x).shape == (2, 64)
    with pytest.raises(ValueError, match=r"lab_resnet26 is a network of barlow's own"):
        barlow.export(out, to="timm", out=tmp_path / "exported")
    with pytest.raises(RecipeError, match=r"lab_resnet26 takes RGB from 0 to 1, .*data.mean .*\[0, 0, 0\]"):
        barlow.pretrain(
            data, tmp_path / "other", recipe="small_cmc", overrides=changes | {"data.mean": "auto"}, progress=False
        )
