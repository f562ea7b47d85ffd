"""Files as other projects write them become encoders with the features of the network that they come from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_layouts import (
    CASES,
    called,
    lightning,
    made,
    numbers_in,
    published,
    renamed,
    small_resnet,
    tempered,
    timm,
    torchvision,
    wide_resnet,
    without_head,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from barlow import cli
from barlow.encoders import find_encoder
from barlow.exits import UnusableData
from barlow.importing import Imported, import_weights
from barlow.limits import Entry, items_allowed
from barlow.nets.architectures import shown_by
from barlow.nets.layouts import LAYOUTS, NAMINGS, PLAIN
from barlow.runs.finishing import load_encoder

BATCH = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return small_resnet()


def features(network: Any, x: Tensor = BATCH) -> Tensor:
    """Of torchvision's or timm's network, without its classifier."""
    for name in ("fc", "head", "heads"):
        if isinstance(getattr(network, name, None), nn.Linear | nn.Sequential):
            setattr(network, name, nn.Identity())
    with torch.no_grad():
        return network.eval()(x)


def imported(content: Any, folder: Path, **asked: Any) -> tuple[Imported, Any]:
    """A file of this content as `barlow import` makes an encoder of it, read again."""
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / "weights.pth")
    done = import_weights(folder / "weights.pth", folder / "encoder", image_size=48, **asked)
    return done, load_encoder(folder / "encoder")


def same_features(encoder: nn.Module, network: Any, x: Tensor = BATCH) -> None:
    wanted = features(network, x)
    with torch.no_grad():
        got = encoder(x)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


# --- Every layout of the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_layout_gives_the_features_of_torchvisions_network(case: str, resnet: nn.Module, tmp_path: Path) -> None:
    state = without_head(resnet.state_dict())
    done, encoder = imported(CASES[case].content(state), tmp_path)
    assert done.report.recognised.startswith(CASES[case].recognised)
    assert set(CASES[case].dropped) <= done.report.dropped.keys()
    assert set(done.report.dropped) - set(CASES[case].dropped) <= {"other entries"}
    assert done.report.loaded + len(done.report.kept) == len(state)
    same_features(encoder, resnet)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("case", CASES)
def test_a_layout_gives_the_features_of_networks_of_full_size(case: str, name: str, tmp_path: Path) -> None:
    network = tempered(torchvision.models.get_model(name))
    content = CASES[case].content(without_head(network.state_dict()))
    if name == "resnet50":  # as it was released, with all that is beside it
        content = published(content)
    done, encoder = imported(content, tmp_path)
    assert set(CASES[case].dropped) <= done.report.dropped.keys()
    assert json.loads((done.folder / "config.json").read_text())["name"] == name
    same_features(encoder, network)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", ["torch.save", "safetensors"])
def test_the_largest_file_that_is_known_is_read_at_its_full_size(form: str, tmp_path: Path) -> None:
    """The limit of what a file may hold, over what it is for, lets through the largest that is known."""
    network = tempered(torchvision.models.get_model("resnet50"))
    state = without_head(network.state_dict())
    content = published(CASES["Barlow Twins, checkpoint.pth"].content(state))
    held = numbers_in(content["model"])
    assert held > 4 * numbers_in(state), "its projector is the larger part"

    def found(tensors: Any, rest: Any) -> Any:
        if form == "safetensors":
            plain = {name: value.contiguous() for name, value in tensors.items() if not name.startswith("module.bn.")}
            save_file(plain, tmp_path / "w.safetensors")
            return find_encoder(tmp_path / "w.safetensors", image_size=48)
        content = {"model": tensors, "optimizer": {"state": {0: {"mu": rest}}}, "epoch": 1000}
        torch.save(content, tmp_path / "w.pth")
        return find_encoder(tmp_path / "w.pth", image_size=48)

    read = found(content["model"], torch.zeros(held))  # LARS keeps a momentum of each number
    assert "the projector" in read.report.dropped
    assert held < items_allowed(numbers_in(state)) / 4, "there is room for one that is four times as large"
    same_features(read.network, network)


def test_a_safetensors_file_has_layouts_too(resnet: nn.Module, tmp_path: Path) -> None:
    state = called("module.backbone.", without_head(resnet.state_dict()))
    save_file(dict(state) | {"module.projector.0.weight": torch.ones(3, 3)}, tmp_path / "w.safetensors")
    found = find_encoder(tmp_path / "w.safetensors", image_size=48)
    assert found.report is not None
    assert found.report.dropped == {"the projector": ("module.projector.0.weight",)}
    same_features(found.network, resnet)


def test_auto_is_the_network_that_the_shapes_show(resnet: nn.Module, tmp_path: Path) -> None:
    """What an error advises, `--encoder auto`, can be given wherever a network can be named."""
    _, encoder = imported(without_head(resnet.state_dict()), tmp_path, encoder="auto")
    same_features(encoder, resnet)


# --- Other networks than ResNets of torchvision -------------------------------------------------------------------


def test_bottlenecks_wide_and_grouped_are_seen_in_their_shapes(tmp_path: Path) -> None:
    for i, options in enumerate(({"width_per_group": 16}, {"groups": 4, "width_per_group": 8})):
        network = small_resnet("bottleneck", **options)
        done, encoder = imported(network.state_dict(), tmp_path / str(i))
        same_features(encoder, network)
        config = json.loads((done.folder / "config.json").read_text())["options"]
        assert config["base_width"] == options["width_per_group"]
        assert config["cardinality"] == options.get("groups", 1)


def test_the_networks_of_doubled_width_have_a_stem_of_their_own(tmp_path: Path) -> None:
    network = wide_resnet()
    for case in ("VICReg, model.pth", "SwAV, released"):
        done, encoder = imported(CASES[case].content(without_head(network.state_dict())), tmp_path / case[:4])
        config = json.loads((done.folder / "config.json").read_text())
        assert config["stem"] == "plain"
        assert config["options"]["stem_width"] == 64
        assert done.report.kept == ()
        same_features(encoder, network)


@pytest.mark.nightly
def test_vicregs_resnet_200_of_doubled_width_is_built(tmp_path: Path) -> None:
    """Its own code has it with 200 layers, which is timm's resnet200, and twice the channels."""
    state = {"conv1.weight": (128, 3, 7, 7), "bn1.weight": (128,), "layer1.0.conv2.weight": (128, 128, 3, 3)}
    for stage, (blocks, planes) in enumerate(zip((3, 24, 36, 3), (128, 256, 512, 1024), strict=True), 1):
        for block in range(blocks):
            state[f"layer{stage}.{block}.conv1.weight"] = (planes, 128, 1, 1)
            state[f"layer{stage}.{block}.conv3.weight"] = (planes * 4, planes, 1, 1)
    shown = shown_by({name: Entry(shape, "F32") for name, shape in state.items()})
    assert shown.network is not None
    assert shown.network.name == "resnet200"
    assert shown.network.options["channels"] == [128, 256, 512, 1024]


FULL_SIZE = """
    resnet18 resnet34 resnet50 resnet101 resnet152 wide_resnet50_2 wide_resnet101_2 vit_tiny_patch16_224
    vit_small_patch16_224 vit_base_patch8_224 vit_large_patch16_224 convnext_tiny convnext_small convnext_base
    convnextv2_tiny
"""


@pytest.mark.parametrize("name", FULL_SIZE.split())
def test_a_network_of_full_size_is_seen_in_its_shapes(name: str) -> None:
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    shown = shown_by({key: Entry(tuple(value.shape), "F32") for key, value in state.items()})
    assert shown.network is not None
    assert (shown.network.name, shown.network.options) == (name, {})
    assert (shown.channels, shown.image_size, shown.asks) == (3, 224, None)


def test_another_network_is_believed_to_be_what_the_file_calls_it(tmp_path: Path) -> None:
    network = tempered(timm.create_model("test_efficientnet", num_classes=0))
    state = called("module.", network.state_dict() | made({"classifier.weight": (9, 256), "classifier.bias": (9,)}))
    done, encoder = imported({"arch": "test_efficientnet", "state_dict": state, "epoch": 3}, tmp_path / "a")
    assert "test_efficientnet, as the file says" in done.report.recognised
    same_features(encoder, network)
    with pytest.raises(ValueError, match=r"do not fit resnet18"):
        imported({"arch": "resnet18", "state_dict": state}, tmp_path / "b")
    with pytest.raises(ValueError, match=r"no ResNet, ViT or ConvNeXt that is known: add encoder NAME"):
        imported({"arch": "os.system", "state_dict": state}, tmp_path / "c")


def small_vit(**options: Any) -> Any:
    torch.manual_seed(0)
    built = {"img_size": 48, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2, **options}
    return tempered(timm.models.vision_transformer.VisionTransformer(**built))


def mmselfsups(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return renamed(
        state,
        (r"patch_embed\.proj\.", "patch_embed.projection."),
        (r"norm\.", "ln1."),
        (r"blocks\.(\d+)\.norm([12])\.", r"layers.\1.ln\2."),
        (r"blocks\.(\d+)\.mlp\.fc1\.", r"layers.\1.ffn.layers.0.0."),
        (r"blocks\.(\d+)\.mlp\.fc2\.", r"layers.\1.ffn.layers.1."),
        (r"blocks\.", "layers."),
    )


VITS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "DINO, released": lambda s: s,
    "DINO, checkpoint.pth": lambda s: {
        "student": called("module.backbone.", {k: v * 0 for k, v in s.items()}),
        "teacher": called("backbone.", s) | made({"head.last_layer.weight_v": (4, 4)}),
    },
    "MoCo v3": lambda s: {
        "state_dict": called("module.base_encoder.", s | made({"head.0.weight": (4, 4)}))
        | called("module.momentum_encoder.", {k: v * 0 for k, v in s.items()})
    },
    "mmselfsup": lambda s: {"meta": {}, "state_dict": called("backbone.", mmselfsups(s))},
    "solo-learn": lambda s: lightning(called("backbone.", s) | made({"classifier.weight": (4, 4)})),
    "timm": lambda s: s | made({"head.weight": (9, 128), "head.bias": (9,)}),
}


@pytest.mark.parametrize("layout", VITS)
def test_a_vit_gives_the_features_of_timms_network(layout: str, tmp_path: Path) -> None:
    network = small_vit(num_classes=0)
    done, encoder = imported(VITS[layout](network.state_dict()), tmp_path)
    assert done.report.assumed == ("2 heads of 64 features in each block, which no shape shows",)
    same_features(encoder, network)


def test_torchvisions_vit_gives_its_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(48, 8, 2, 2, 128, 256, num_classes=5)
    nn.init.normal_(network.heads.head.weight)
    network = tempered(network)
    done, encoder = imported(network.state_dict(), tmp_path)
    assert "torchvision's ViT" in done.report.recognised
    assert done.report.dropped == {"the classifier": ("head.weight", "head.bias")}
    same_features(encoder, network)


def test_convnexts_of_torchvision_and_of_their_own_code_give_their_features(tmp_path: Path) -> None:
    config = torchvision.models.convnext.CNBlockConfig
    torch.manual_seed(0)
    settings = [config(8, 16, 1), config(16, 32, 2), config(32, 64, 1), config(64, None, 1)]
    network = tempered(torchvision.models.ConvNeXt(settings, layer_scale=0.5, num_classes=5))
    x = BATCH
    with torch.no_grad():
        wanted = network.classifier[:2](network.avgpool(network.features(x)))
    done, encoder = imported(network.state_dict(), tmp_path / "torchvision")
    assert "torchvision's ConvNeXt" in done.report.recognised
    torch.testing.assert_close(encoder(x).detach(), wanted, rtol=1e-5, atol=1e-5)
    own = renamed(
        encoder.state_dict(),
        (r"stem\.", "downsample_layers.0."),
        (r"stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"stages\.(\d)\.blocks\.(\d+)\.conv_dw\.", r"stages.\1.\2.dwconv."),
        (r"stages\.(\d)\.blocks\.(\d+)\.mlp\.fc", r"stages.\1.\2.pwconv"),
        (r"stages\.(\d)\.blocks\.(\d+)\.", r"stages.\1.\2."),
        (r"head\.norm\.", "norm."),
    )
    done, again = imported({"model": own | made({"head.weight": (9, 64), "head.bias": (9,)})}, tmp_path / "own")
    assert "ConvNeXt's own" in done.report.recognised
    assert torch.equal(again(x), encoder(x))


# --- What weights do not show -------------------------------------------------------------------------------------


def of_cifar(padding: int) -> Any:
    network: Any = small_resnet()
    torch.manual_seed(1)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, padding, bias=False)
    network.maxpool = nn.Identity()
    return network


def test_the_padding_of_a_small_stem_is_asked_for_and_changes_the_features(tmp_path: Path) -> None:
    network = of_cifar(padding=2)
    content = lightning(called("backbone.", without_head(network.state_dict())) | made({"classifier.bias": (9,)}))
    with pytest.raises(ValueError, match=r"do not show how its first convolution, of 3×3, .*small_padded \(padding 2"):
        imported(content, tmp_path / "asked")
    assert not (tmp_path / "asked" / "encoder").exists()
    x = BATCH[:, :, :32, :32]
    _, encoder = imported(content, tmp_path / "right", overrides={"encoder.stem": "small_padded"})
    same_features(encoder, network, x)
    _, wrong = imported(content, tmp_path / "wrong", overrides={"encoder.stem": "small"})
    assert not torch.allclose(wrong(x), encoder(x), rtol=1e-3, atol=1e-3)


def test_pytorch_cifars_resnet_is_read(tmp_path: Path) -> None:
    network = of_cifar(padding=1)
    state = renamed(network.state_dict(), (r"(layer\d\.\d+)\.downsample\.", r"\1.shortcut."))
    state |= made({"linear.weight": (9, 128), "linear.bias": (9,)})
    done, encoder = imported({"net": 1, "state_dict": state}, tmp_path, overrides={"encoder.stem": "small"})
    assert "pytorch-cifar's ResNet" in done.report.recognised
    same_features(encoder, network, BATCH[:, :, :32, :32])


def test_the_number_of_heads_can_be_said(tmp_path: Path) -> None:
    network = small_vit(num_heads=4, num_classes=0)
    _, encoder = imported(network.state_dict(), tmp_path, overrides={"encoder.options": {"num_heads": 4}})
    same_features(encoder, network)


def test_the_normalisation_is_imagenets_if_nothing_else_is_said_and_that_is_told(
    resnet: nn.Module, tmp_path: Path
) -> None:
    done, encoder = imported(resnet.state_dict(), tmp_path / "a")
    assert encoder.preprocessing.mean == (0.485, 0.456, 0.406)
    assert [line for line in done.advice if "does not say how images were normalised: ImageNet's" in line]
    done, encoder = imported(resnet.state_dict(), tmp_path / "b", mean=[0.5] * 3, std=[0.25] * 3)
    assert (encoder.preprocessing.mean, encoder.preprocessing.std) == ((0.5,) * 3, (0.25,) * 3)
    assert not [line for line in done.advice if "normalised" in line]


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([float("nan")] * 3, [0.2] * 3),
        ([0.5] * 3, [float("nan")] * 3),
        ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4]),
        ([-0.1, 0.5, 0.5], [0.2] * 3),
        ([0.5] * 3, [0.0, 0.2, 0.2]),
        ([0.5] * 3, [float("inf")] * 3),
    ],
)
def test_a_mean_or_a_deviation_that_pixels_cannot_have_is_refused(
    mean: list[float], std: list[float], tmp_path: Path
) -> None:
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"--mean .* --std .*means are from 0 to 1, and deviations above 0") as caught:
        find_encoder(tmp_path / "weights.pth", mean=mean, std=std)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("asked", [{"overrides": {"encoder.stem": "small"}}, {"overrides": {"encoder.stem": "plain"}}])
def test_a_stem_that_the_weights_do_not_have_is_refused_and_not_dropped(
    asked: dict[str, Any], resnet: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"and encoder\.stem.* is .*: leave that out, or name the network too"):
        imported(resnet.state_dict(), tmp_path, **asked)
    assert not (tmp_path / "encoder").exists()


# --- Other sizes, channels and types ------------------------------------------------------------------------------


def test_position_embeddings_are_resampled_and_that_is_told(tmp_path: Path) -> None:
    network = small_vit(img_size=32, num_classes=0)
    done, encoder = imported(network.state_dict(), tmp_path)
    assert done.report.notes == ("pos_embed resampled from 4 x 4 to 6 x 6 patches",)
    larger = small_vit(img_size=48, num_classes=0)
    state = timm.models.vision_transformer.checkpoint_filter_fn(dict(network.state_dict()), larger)
    larger.load_state_dict(state)
    same_features(encoder, larger)


@pytest.mark.parametrize("channels", [1, 12])
def test_stems_are_adapted_to_other_channels_and_that_is_told(channels: int, resnet: Any, tmp_path: Path) -> None:
    done, encoder = imported(resnet.state_dict(), tmp_path, mean=[0.5] * channels, std=[0.2] * channels)
    assert done.report.notes == (f"conv1.weight adapted from 3 to {channels} channels",)
    grey = BATCH[:, :1]
    got = encoder(grey.expand(-1, channels, -1, -1)).detach()
    torch.testing.assert_close(got, features(resnet, grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_weights_of_twelve_channels_ask_for_their_normalisation(tmp_path: Path) -> None:
    network: Any = small_resnet()
    network.conv1 = nn.Conv2d(12, 64, 7, 2, 3, bias=False)
    with pytest.raises(ValueError, match=r"is of images of 12 channels.*by mean and std with 12 numbers each"):
        imported(network.state_dict(), tmp_path / "a")
    done, encoder = imported(network.state_dict(), tmp_path / "b", mean=[0.5] * 12, std=[0.2] * 12)
    assert done.report.notes == ()
    same_features(encoder, network, torch.randn(2, 12, 48, 48, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_another_type_become_float32_and_that_is_told(dtype: torch.dtype, tmp_path: Path) -> None:
    network = small_resnet()
    state = {n: v.to(dtype) if v.is_floating_point() else v for n, v in network.state_dict().items()}
    done, encoder = imported(state, tmp_path)
    assert done.report.notes == (f"{str(dtype).removeprefix('torch.')} numbers, held as float32 here",)
    network.load_state_dict(state)
    same_features(encoder, network)
    assert {value.dtype for value in encoder.parameters()} == {torch.float32}


def test_a_prefix_is_cut_off_at_the_start_of_a_name_only(tmp_path: Path) -> None:
    """`momentum_backbone.` holds `backbone.`, and a replacement anywhere would let it win: it comes last here."""
    network = small_resnet()
    state = without_head(network.state_dict())
    content = lightning(
        called("backbone.", state)
        | called("momentum_backbone.", {n: v * 0 for n, v in state.items()})
        | made({"classifier.bias": (9,)})
    )
    _, encoder = imported(content, tmp_path)
    same_features(encoder, network)


def test_a_network_of_ones_own_keeps_its_names(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.projector = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.projector(self.backbone(x.mean((2, 3))))

    from barlow.nets.weights import initialise

    own = tempered(Own())
    torch.save({"state_dict": own.state_dict(), "epoch": 1}, tmp_path / "w.pth")
    report = initialise(fresh := Own(), tmp_path / "w.pth")
    assert (report.loaded, report.dropped) == (4, {"other entries": ("epoch",)})
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), own.parameters(), strict=True))


def test_the_page_has_every_layout_and_every_naming() -> None:
    page = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    for layout in (*LAYOUTS, PLAIN):
        name = "names after a prefix" if layout.name.startswith("names after") else layout.name
        assert any(row == name or row.startswith(f"{name}, ") or row.startswith(f"{name} v1,") for row in rows), name
        assert name == "names after a prefix" or all(at.split(".")[0] in page for at in layout.at)
    for naming in NAMINGS:
        assert naming.name in " ".join(page.split()), naming.name


# --- The verb -----------------------------------------------------------------------------------------------------


def test_the_verb_says_what_became_of_the_file(
    resnet: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "moco.pth.tar", tmp_path / "encoder"
    count = len(without_head(resnet.state_dict()))
    torch.save(CASES["MoCo v2"].content(without_head(resnet.state_dict())), file)
    words = ["import", str(file), "--out", str(out), "--mean", "0.5", "0.4", "0.3", "--std", "0.2", "0.2", "0.2"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    for part in (
        "MoCo: names after module.encoder_q., in",
        "network  resnet18 with {'layers': [1, 1, 1, 1], 'channels': [16, 32, 64,",
        f"used     {count} tensors",
        f"dropped  the key encoder: {count + 4}",
        "dropped  the queue: 2 (module.queue, module.queue_ptr)",
        "assumed",
        f"encoder  {out}",
    ):
        assert part in said
    assert "normalised" not in said
    config = json.loads((out / "config.json").read_text())
    assert config["imported"]["source"] == "moco.pth.tar"
    assert config["imported"]["dropped"]["the key encoder"] == count + 4
    assert cli.main(words) == 73, "a folder that is there is not written into"
    assert "exists: name a folder that does not, or remove it first" in capsys.readouterr().err
    assert cli.main(["import", str(out), "--out", str(tmp_path / "again")]) == 2
    assert "is an encoder of barlow's already" in capsys.readouterr().err
    assert cli.main(["import", str(file), "--out", str(tmp_path / "x"), "--optim.lr_per_256", "1"]) == 2
    assert "no key of a network" in capsys.readouterr().err


def test_what_is_evaluated_is_the_encoder_in_the_file(resnet: nn.Module, tmp_path: Path) -> None:
    import tiny

    from barlow.evaluation import evaluate

    data = tiny.images(tmp_path / "images", 24, classes=2)
    torch.save(CASES["SimSiam"].content(without_head(resnet.state_dict())), tmp_path / "w.pth.tar")
    said: list[str] = []
    found = evaluate(
        tmp_path / "w.pth.tar",
        data,
        data,
        protocols=["knn"],
        baselines=False,
        image_size=32,
        out=tmp_path / "out",
        tell=said.append,
    )
    assert "encoder" in found.scores
    assert [line for line in said if "SimSiam: names after module.encoder." in line and "the predictor" in line]


def test_nothing_is_loaded_by_halves(resnet: nn.Module, tmp_path: Path) -> None:
    state = without_head(resnet.state_dict())
    del state["layer3.0.bn2.weight"]
    with pytest.raises(
        UnusableData, match=r"do not fit resnet18: layer3\.0\.bn2\.weight is missing; the file is not whole"
    ):
        imported(state, tmp_path)
    assert not (tmp_path / "encoder").exists()
