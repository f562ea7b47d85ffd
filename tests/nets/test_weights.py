import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_encoders import SMALL, disturb, same, small_encoder
from torch import Tensor, nn

from barlow.nets.building import build_encoder
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.weights import initialise, packed, with_preprocessing
from barlow.runs.finishing import load_encoder

PREPROCESSING = Preprocessing(32, 1.0, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 3)


# --- Starting from given weights ----------------------------------------------------------------------------------


def test_every_tensor_of_a_file_is_loaded_and_the_classifier_is_named_as_unused(tmp_path: Path) -> None:
    donor = disturb(small_encoder(seed=1))
    extra = {"fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}
    save_file(donor.state_dict() | extra, tmp_path / "w.safetensors")
    encoder = small_encoder(seed=2)
    report = initialise(encoder, tmp_path / "w.safetensors")
    assert same(encoder, donor)
    assert report.loaded == len(donor.state_dict())
    assert report.kept == ()
    assert sorted(report.unused) == ["fc.bias", "fc.weight"]
    assert "not used: " in str(report)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("bn1.running_var"), r"bn1.running_var is missing"),
        (lambda w: w.update({"layer9.weight": torch.zeros(1)}), r"layer9.weight is unexpected"),
        (
            lambda w: w.update({"conv1.weight": torch.zeros(8, 3, 3, 3)}),
            r"conv1.weight is \[8, 3, 3, 3\] float32 there, \[64",
        ),
        (lambda w: w.update({"bn1.weight": torch.zeros(64, dtype=torch.int64)}), r"bn1.weight is \[64\] int64 there"),
        (lambda w: w["bn1.weight"].fill_(math.nan), r"not finite: bn1.weight"),
        (lambda w: [w.pop(k) for k in list(w) if k.startswith("layer")], r"is missing, .*, and \d+ more"),
        (lambda w: w.clear(), r"has no tensors where the weights of a network are looked for; it has: nothing"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_the_encoder_stays_as_it_was(
    tmp_path: Path, change: object, message: str
) -> None:
    weights = {name: value.clone() for name, value in small_encoder(seed=1).state_dict().items()}
    change(weights)  # type: ignore[operator]
    save_file(weights, tmp_path / "w.safetensors")
    encoder = small_encoder(seed=2)
    with pytest.raises(ValueError, match=message):
        initialise(encoder, tmp_path / "w.safetensors")
    assert same(encoder, small_encoder(seed=2))


def test_a_replaced_stem_is_kept_and_reported_and_nothing_else_is(tmp_path: Path) -> None:
    donor = disturb(small_encoder(seed=1))
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    encoder = small_encoder("small", seed=2)
    report = initialise(encoder, tmp_path / "w.safetensors")
    assert report.kept == ("conv1.weight",)
    assert report.unused == ("conv1.weight",)
    assert torch.equal(encoder.conv1.weight, small_encoder("small", seed=2).conv1.weight)
    assert torch.equal(encoder.bn1.weight, donor.bn1.weight)
    assert torch.equal(encoder.layer4[0].conv2.weight, donor.layer4[0].conv2.weight)


def test_a_deep_stem_that_was_replaced_is_reported_whole(tmp_path: Path) -> None:
    donor = build_encoder("resnet10t", image_size=32, seed=1)
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    report = initialise(build_encoder("resnet10t", image_size=32, stem="strided"), tmp_path / "w.safetensors")
    assert report.kept == ("conv1.weight",)
    assert len(report.unused) == 13  # three convolutions, two batch norms of five tensors
    assert all(name.startswith("conv1.") for name in report.unused)


@pytest.mark.parametrize("prefix", ["module.backbone.", "backbone.", "encoder.", "method/encoder."])
def test_a_full_checkpoint_gives_its_encoder_and_says_what_was_left(tmp_path: Path, prefix: str) -> None:
    donor = disturb(small_encoder(seed=1))
    weights = {prefix + name: value for name, value in donor.state_dict().items()}
    weights |= {"module.projector.0.weight": torch.zeros(4, 4), prefix + "fc.weight": torch.zeros(4, 64)}
    save_file(weights, tmp_path / "w.safetensors")
    encoder = small_encoder(seed=2)
    report = initialise(encoder, tmp_path / "w.safetensors")
    assert same(encoder, donor)
    assert prefix in report.recognised
    assert report.dropped == {"the projector": ("module.projector.0.weight",), "the classifier": ("fc.weight",)}
    assert sorted(report.unused) == sorted(["module.projector.0.weight", "fc.weight"])


def test_an_unlisted_prefix_is_not_guessed(tmp_path: Path) -> None:
    save_file({f"teacher.{k}": v for k, v in small_encoder().state_dict().items()}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"conv1\.weight is missing"):
        initialise(small_encoder(), tmp_path / "w.safetensors")


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights at"):
        initialise(small_encoder(), tmp_path / "nowhere")
    with pytest.raises(ValueError, match="give a run's folder"):
        initialise(small_encoder(), tmp_path)
    (tmp_path / "w.safetensors").write_bytes(b"not one")
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        initialise(small_encoder(), tmp_path / "w.safetensors")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What timm's weights of resnet18 are, instead of a download."""
    import timm  # behind barlow, which lets torchvision be imported beside a CPU build of torch

    weights = disturb(timm.create_model("resnet18")).state_dict()
    monkeypatch.setattr("barlow.nets.origin.check_reachable", lambda url: None)
    monkeypatch.setattr("barlow.nets.origin._cached", lambda name: None)
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf", lambda *a, **k: {n: v.clone() for n, v in weights.items()}
    )
    return weights


def test_timm_weights_are_loaded_without_their_classifier(hub: dict[str, Tensor]) -> None:
    encoder = build_encoder("resnet18", image_size=32)
    before = torch.get_rng_state()
    report = initialise(encoder, "timm:resnet18.a1_in1k")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, hub[name]) for name, value in encoder.state_dict().items())
    assert sorted(report.unused) == ["fc.bias", "fc.weight"]
    assert report.kept == ()


def test_timm_weights_are_adapted_to_grey_images_and_the_report_says_so(hub: dict[str, Tensor]) -> None:
    encoder = build_encoder("resnet18", in_channels=1, image_size=32)
    report = initialise(encoder, "timm:resnet18")
    torch.testing.assert_close(encoder.conv1.weight.detach(), hub["conv1.weight"].sum(1, keepdim=True))
    assert report.notes == ("conv1.weight adapted from 3 to 1 channels",)


def test_timm_weights_with_a_replaced_stem_keep_the_stem(hub: dict[str, Tensor]) -> None:
    encoder = build_encoder("resnet18", image_size=32, stem="small")
    assert initialise(encoder, "timm:resnet18").kept == ("conv1.weight",)
    assert torch.equal(encoder.layer1[0].conv1.weight, hub["layer1.0.conv1.weight"])


def test_timm_weights_with_a_tensor_missing_are_refused(hub: dict[str, Tensor]) -> None:
    del hub["layer1.0.conv1.weight"]
    with pytest.raises(ValueError, match="do not fit"):
        initialise(build_encoder("resnet18", image_size=32), "timm:resnet18")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet34", "has weights of resnet34; the encoder is resnet18"),
        ("resnet18.best", "no pretrained weights 'resnet18.best'; there are: resnet18.a1_in1k"),
        ("resnet10", "has no network 'resnet10'; nearest: "),
        ("nf_regnet_b0", "there are none for this network"),
    ],
)
def test_wrong_names_of_timm_weights_are_refused_without_asking_the_network(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initialise(build_encoder("resnet18", image_size=32), f"timm:{name}")


def test_without_a_network_one_line_says_where_timm_weights_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Name or service not known\n  and a second line")

    monkeypatch.setattr("barlow.nets.origin.check_reachable", lambda url: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(ValueError, match=r"could not get timm's weights resnet18 .*check the network") as caught:
        initialise(build_encoder("resnet18", image_size=32), "timm:resnet18")
    assert "\n" not in str(caught.value)


# --- Saving and loading -------------------------------------------------------------------------------------------


def write(folder: Path, encoder: nn.Module, name: str = "resnet18", stem: str = "small", **changes: object) -> Path:
    tensors, config = packed(
        encoder,
        name=name,
        stem=stem,
        zero_init_last=True,
        options=SMALL,
        seed=7,
        preprocessing=PREPROCESSING,
    )
    (folder / "encoder").mkdir(parents=True)
    save_file(tensors, folder / "encoder" / "model.safetensors")
    (folder / "encoder" / "config.json").write_text(json.dumps(config | changes))
    return folder


def test_a_saved_encoder_comes_back_with_the_same_features_and_preprocessing(tmp_path: Path) -> None:
    encoder = disturb(small_encoder("small")).eval()
    run = write(tmp_path / "run", encoder.to(memory_format=torch.channels_last))
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for folder in (run, run / "encoder", str(run)):
        loaded = load_encoder(folder)
        assert not any(module.training for module in loaded.modules())
        assert same(loaded, encoder)
        assert loaded.preprocessing == PREPROCESSING
        assert loaded.num_features == 64
        x = loaded.preprocess(picture)
        torch.testing.assert_close(loaded(x), encoder(x))
    report = initialise(small_encoder("small", seed=5), run)
    assert report.loaded == len(encoder.state_dict())


def test_an_encoder_from_a_newer_barlow_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    encoder = small_encoder("small")
    with pytest.raises(ValueError, match=r"written by barlow 9.9 in format 4.*upgrade"):
        load_encoder(write(tmp_path / "newer", encoder, format=4, barlow="9.9"))
    with pytest.raises(ValueError, match="no format number"):
        load_encoder(write(tmp_path / "other", encoder, format=None))
    with pytest.raises(ValueError, match="incomplete or damaged"):
        load_encoder(write(tmp_path / "damaged", encoder, preprocessing={"size": 3}))
    with pytest.raises(ValueError, match=r"do not fit resnet18: conv1.weight is \[64, 3, 3, 3\] there"):
        load_encoder(write(tmp_path / "stem", encoder, stem="as_is"))


def test_where_there_is_no_encoder_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no encoder in"):
        load_encoder(tmp_path)
    with pytest.raises(ValueError, match="has no checkpoint of step 3; there are: none"):
        load_encoder(f"{tmp_path}@3")


def test_a_module_of_ones_own_is_filled_and_never_rebuilt(tmp_path: Path) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    own = network()
    run = write(tmp_path / "run", own, name="custom:Sequential", stem="as_is")
    with pytest.raises(ValueError, match=r"holds a Sequential that was given in Python.*module="):
        load_encoder(run)
    other = network()
    loaded = load_encoder(run, module=other)
    assert loaded is other
    assert same(loaded, own)
    assert loaded.num_features == 5
    with pytest.raises(ValueError, match="leave out module"):
        load_encoder(write(tmp_path / "timm", small_encoder("small")), module=network())


def test_preprocessing_is_attached_without_touching_the_weights() -> None:
    encoder = small_encoder()
    names = list(encoder.state_dict())
    assert with_preprocessing(encoder, PREPROCESSING) is encoder
    assert list(encoder.state_dict()) == names
