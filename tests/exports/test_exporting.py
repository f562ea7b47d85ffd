"""An export is proved by the library that it is for, says what differs, and appears whole or not at all."""

import copy
import dataclasses
import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from encoder_folders import SMALL, written
from torch import nn

import barlow
from barlow import exports, storage
from barlow.encoders import find_encoder
from barlow.exporting import Export, export, generated
from barlow.exports import _proof
from barlow.exports._proof import MOST, NotTheSame, Proof, difference
from barlow.exports._protocol import Material, Use
from barlow.exports.detectron2 import renamed
from barlow.nets.weights import description_of
from barlow.printable import printable

NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "hf": ("transformers",)}


def needs(target: str) -> None:
    """Skips where the library of a target is not installed."""
    for library in NEEDS.get(target, ()):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed (extra `export`)")


def exported(encoder: Path, target: str, out: Path) -> tuple[Export, list[str]]:
    needs(target)
    lines: list[str] = []
    return export(encoder, target, out, tell=lines.append), lines


WHITE = {"options": SMALL, "stages": "all", "whiten": 0.1}
"""What the default small encoder hands out."""

LARGE = [
    *((f"{name} of {c}", name, {"channels": c, "size": 64}) for name in ("resnet18", "resnet50") for c in (1, 3, 12)),
    *((f"vit of {c}", "vit_small_patch16_224", {"channels": c, "size": 64}) for c in (1, 3, 12)),
    *((f"convnext of {c}", "convnext_tiny", {"channels": c, "size": 64}) for c in (1, 3, 12)),
    *(
        (
            f"default small of {c}",
            "resnet18",
            {"channels": c, "stem": "strided", "options": SMALL, "stages": "all", "whiten": 0.1},
        )
        for c in (1, 3, 12)
    ),
    ("resnet50, all stages, whitened", "resnet50", {"size": 64, "stages": "all", "whiten": 0.1}),
    ("vit, all stages, whitened", "vit_small_patch16_224", {"size": 64, "stages": "all", "whiten": 0.1}),
    ("vit with patches of 8", "vit_small_patch16_224", {"size": 64, "options": {"patch_size": 8}}),
]


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "options"), [case[1:] for case in LARGE], ids=[case[0] for case in LARGE])
def test_every_form_of_every_family_gives_the_features_of_the_encoder(
    name: str, options: dict[str, object], tmp_path: Path
) -> None:
    encoder = written(tmp_path / "encoder", name, **options)  # type: ignore[arg-type]
    network = find_encoder(encoder).network
    material = Material(network, description_of(network))
    missing = {library for target in NEEDS for library in NEEDS[target] if importlib.util.find_spec(library) is None}
    possible = [target for target in exports.found(material) if not missing & set(NEEDS.get(target, ()))]
    for target in possible:
        done = export(encoder, target, tmp_path / target)
        assert done.proofs, target
        assert all(proof.relative <= MOST for proof in done.proofs), target
    assert len(possible) >= 2
    if missing:
        pytest.skip(f"{', '.join(sorted(missing))} is not installed (extra `export`); the other forms were tried")
    assert possible == exports.found(material)


def test_what_is_handed_out_is_in_the_forms_that_can_hold_it(tmp_path: Path) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", stem="strided", **WHITE)  # type: ignore[arg-type]
    done, lines = exported(encoder, "safetensors", tmp_path / "out")
    assert [(proof.library, proof.whole, proof.relative) for proof in done.proofs] == [
        ("torch.hub", True, 0.0),
        ("barlow", True, 0.0),
    ]
    assert all(proof.line() in lines for proof in done.proofs)


def test_a_program_of_torch_export_holds_twelve_bands_and_all_stages(tmp_path: Path) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", channels=12, stem="small", options=SMALL, stages="all")
    done, _ = exported(encoder, "torch-export", tmp_path / "out")
    assert [(proof.whole, proof.relative) for proof in done.proofs] == [(True, 0.0)]


def test_an_onnx_file_has_a_free_batch_and_all_that_is_handed_out(tmp_path: Path) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", stem="strided", options=SMALL, stages="all", whiten=0.1)
    done, _ = exported(encoder, "onnx", tmp_path / "out")
    assert done.proofs[0].whole
    assert 0 < done.proofs[0].relative <= MOST
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, 32, 32]
    assert session.get_outputs()[0].shape == ["batch", 544]


def test_a_folder_for_transformers_opens_in_timm_too_with_our_size_mean_and_deviation(tmp_path: Path) -> None:
    encoder = written(tmp_path / "encoder", "convnext_atto", channels=12)
    done, _ = exported(encoder, "hf", tmp_path / "out")
    assert [(proof.library, proof.relative) for proof in done.proofs] == [("transformers", 0.0), ("timm", 0.0)]
    config = storage.read_json(tmp_path / "out" / "config.json")
    assert "num_classes" not in config["model_args"], "transformers would be given it twice"
    assert config["pretrained_cfg"]["input_size"] == [12, 32, 32]
    assert config["pretrained_cfg"]["mean"][:2] == pytest.approx([0.4, 0.41])
    assert config["pretrained_cfg"]["crop_pct"] == 0.9
    assert config["pretrained_cfg"]["interpolation"] == "bilinear"


def test_torchvision_has_the_plain_network_and_the_card_says_what_is_missing(tmp_path: Path) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", channels=12, stages="all", whiten=0.1)
    done, lines = exported(encoder, "torchvision", tmp_path / "out")
    assert [(proof.relative, proof.whole) for proof in done.proofs] == [(0.0, False)]
    assert any("the plain network's features" in line for line in lines)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "holds the plain network: its 512 features, not the 1024 that the run hands out" in card
    assert storage.read_sealed(tmp_path / "out" / "export.json")["whole"] is False


def test_detectron2_gets_its_own_names_shapes_and_configuration(tmp_path: Path) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", size=64)
    done, _ = exported(encoder, "detectron2", tmp_path / "out")
    assert done.proofs[0].relative <= MOST
    content = pickle.loads((tmp_path / "out" / "model.pkl").read_bytes())
    names = content["model"]
    assert content["matching_heuristics"] is True
    assert names["stem.conv1.weight"].shape == (64, 3, 7, 7)
    assert names["stem.conv1.norm.weight"].shape == (64,)
    assert names["res3.0.shortcut.weight"].shape == (128, 64, 1, 1)
    assert names["res5.1.conv2.norm.running_var"].shape == (512,)
    assert len(names) == 100  # 20 convolutions, each with a weight and four vectors of its norm
    assert all(type(array) is np.ndarray and array.dtype == np.float32 for array in names.values())
    told = yaml.safe_load((tmp_path / "out" / "detectron2.yaml").read_text())
    assert told["MODEL"]["RESNETS"] == {
        "NUM_GROUPS": 1,
        "DEPTH": 18,
        "RES2_OUT_CHANNELS": 64,
        "STRIDE_IN_1X1": False,
    }
    assert told["MODEL"]["PIXEL_MEAN"] == pytest.approx([0.4 * 255, 0.41 * 255, 0.42 * 255])
    assert told["INPUT"]["FORMAT"] == "RGB"


def test_detectron2_names_are_those_of_its_own_converter() -> None:
    """The loop of `tools/convert-torchvision-to-d2.py`, on every tensor of a ResNet-50."""
    import timm

    for name in timm.create_model("resnet50", num_classes=0).state_dict():
        k = name if "layer" in name else "stem." + name
        for t in (1, 2, 3, 4):
            k = k.replace(f"layer{t}", f"res{t + 1}")
        for t in (1, 2, 3):
            k = k.replace(f"bn{t}", f"conv{t}.norm")
        assert renamed(name) == k.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


@pytest.mark.parametrize("stem", ["small", "small_pooled", "strided"])
@pytest.mark.parametrize("target", ["timm", "hf", "detectron2"])
def test_a_small_stem_is_refused_under_the_plain_name(stem: str, target: str, tmp_path: Path) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", stem=stem, options={"layers": [1, 1, 1, 1]})
    with pytest.raises(ValueError, match="cannot be exported to ") as error:
        export(encoder, target, tmp_path / "out")
    assert str(error.value).endswith("It can go to onnx, safetensors, torch-export")
    assert not (tmp_path / "out").exists()


@pytest.mark.nightly
def test_a_small_stem_goes_to_torchvision_as_what_it_is(tmp_path: Path) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", stem="strided")
    done, _ = exported(encoder, "torchvision", tmp_path / "out")
    assert done.proofs[0].relative == 0.0
    assert "kernel_size=3, stride=2" in (tmp_path / "out" / "README.md").read_text()


def spoiled(change: Callable[[dict[str, torch.Tensor]], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of weights is written with a fault."""
    right = storage.tensors_bytes

    def wrong(tensors: dict[str, torch.Tensor], *rest: object) -> bytes:
        if "images" in tensors:
            return right(tensors)
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        change(copies)
        return right(copies)

    monkeypatch.setattr(storage, "tensors_bytes", wrong)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["layer1.0.bn1.running_var"].mul_(1.001), "makes other features of the export"),
        pytest.param(lambda t: t.pop("layer1.0.bn1.weight"), "cannot read the export", marks=pytest.mark.nightly),
    ],
    ids=["a slightly wrong tensor", "a missing tensor"],
)
def test_an_export_that_is_not_the_encoder_is_removed_and_refused(
    change: Callable[[dict[str, torch.Tensor]], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", options=SMALL)
    spoiled(change, monkeypatch)
    with pytest.raises(NotTheSame, match=said):
        export(encoder, "timm", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder"]


def test_a_library_that_would_prepare_images_otherwise_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", options=SMALL)
    right = storage.json_bytes

    def wrong(content: object) -> bytes:
        if isinstance(content, dict) and "pretrained_cfg" in content:
            content["pretrained_cfg"]["mean"] = [0.485, 0.456, 0.406]
        return right(content)

    monkeypatch.setattr(storage, "json_bytes", wrong)
    with pytest.raises(NotTheSame, match="would prepare images otherwise: mean is"):
        export(encoder, "timm", tmp_path / "out")
    assert not (tmp_path / "out").exists()


EXACT = """\
import barlow

encoder = barlow.load_encoder(folder).double()


def features(images):
    return encoder(images.double()).float()
"""
"""A library that rounds less than the encoder itself."""


def test_rounding_that_whitening_enlarged_is_judged_by_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", options=SMALL, stages="all", whiten=0.0)
    network = find_encoder(encoder).network
    material, x = Material(network, description_of(network)), generated(network.preprocessing)  # type: ignore[arg-type]
    with torch.no_grad():
        single, exact = network(x), copy.deepcopy(network).double()(x.double())
    rounding, last_digit = difference(exact.float(), single)[1], difference(exact.float(), exact)[1]
    assert last_digit < rounding / 3, "whitening has enlarged what the encoder rounds"
    use = Use("exact", EXACT, True, "torch", beside="barlow")
    monkeypatch.setattr(_proof, "MOST", rounding / 2)
    proof = _proof.prove(encoder, use, material, x)
    assert proof.exact
    assert proof.relative < rounding / 2
    assert "differ by" in proof.line()
    assert "to float64's" in proof.line()
    assert next(network.parameters()).dtype == torch.float32, "the encoder is as it was"


@pytest.mark.nightly
def test_float64_excuses_no_more_than_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", options=SMALL, stages="all", whiten=0.0)
    network = find_encoder(encoder).network
    material, x = Material(network, description_of(network)), generated(network.preprocessing)  # type: ignore[arg-type]
    wrong = EXACT.replace(".float()", ".mul(1 + 3e-5).float()")
    with pytest.raises(NotTheSame, match=r"differ by 3\.0e-05 of themselves, and at most 1e-05 is rounding"):
        _proof.prove(encoder, Use("wrong", wrong, True, "torch", beside="barlow"), material, x)


@pytest.mark.parametrize("beside", ["nothing", "torchvision"])
def test_an_export_that_needs_barlow_is_no_proof_of_another_library(beside: Any, tmp_path: Path) -> None:
    module: Any = nn.Flatten()
    material = Material(module, {})
    program = "import barlow.types\n\n\ndef features(images):\n    return images.flatten(1)\n"
    with pytest.raises(NotTheSame, match=r"odd cannot read the export: .*it needs barlow, which whoever gets this"):
        _proof.prove(tmp_path, Use("odd", program, True, "torch", beside=beside), material, torch.ones(3, 1, 2, 2))


def test_two_forms_that_a_custom_network_can_have(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    seen = find_encoder(written(tmp_path / "encoder", "resnet18", options=SMALL)).preprocessing
    module.preprocessing = seen  # type: ignore[assignment]
    done = export(module, "torch-export", tmp_path / "out")
    assert done.proofs[0].relative == 0.0
    with pytest.raises(ValueError, match="given in Python"):
        export(module, "safetensors", tmp_path / "other")


def test_wrong_words_get_one_line(tmp_path: Path) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", options=SMALL)
    with pytest.raises(ValueError, match=r"to=?.*coreml: there is no such form; there are detectron2, hf, onnx"):
        export(encoder, "coreml", tmp_path / "out")
    with pytest.raises(storage.CannotCreate, match="exists: name a folder that does not"):
        export(encoder, "timm", tmp_path)
    with pytest.raises(ValueError, match="no encoder"):
        export(tmp_path / "nothing", "timm", tmp_path / "out")


@pytest.mark.parametrize("missing", ["onnxscript", "onnxruntime"])
def test_a_missing_library_is_named_before_anything_is_written(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", options=SMALL)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(ValueError, match=rf"{missing}, which is not installed: pip install 'barlow\[export\]'"):
        export(encoder, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_that_an_exporter_cannot_follow_is_refused_in_one_line(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if float(x.sum()) > 0 else x.amax((2, 3))

    module: Any = Odd()
    module.preprocessing = find_encoder(written(tmp_path / "encoder", "resnet18", options=SMALL)).preprocessing
    with pytest.raises(ValueError, match="Odd cannot be exported to torch-export: ") as error:
        export(module, "torch-export", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_a_folder_that_failed_half_way_leaves_nothing(tmp_path: Path) -> None:
    def half() -> None:
        with storage.appearing(tmp_path / "out") as beside:
            storage.write_bytes(beside / "one", b"1")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half()
    assert list(tmp_path.iterdir()) == []
    with storage.appearing(tmp_path / "out") as beside:
        storage.write_bytes(beside / "one", b"1")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]
    with pytest.raises(FileExistsError, match="never overwritten"), storage.appearing(tmp_path / "out"):
        pass


def test_the_card_of_a_run_has_its_scores_and_shows_no_markup_of_a_stranger() -> None:
    from barlow.cards import card
    from barlow.run_facts import Evaluation, RunFacts

    module = nn.Linear(3, 2)
    config = {
        "name": "resnet18",
        "kind": "timm",
        "stem": "as_is",
        "options": {},
        "num_features": 512,
        "whiten": None,
        "preprocessing": {
            "size": 32,
            "crop_ratio": 1.0,
            "interpolation": "bicubic",
            "mean": [0.5],
            "std": [0.2],
            "channels": 1,
            "value_range": [0.0, 4095.0],
        },
    }
    evaluation = Evaluation(
        scores={"knn.top1": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}},
        gains={"knn.top1": {"value": 0.1, "low": 0.0, "high": 0.2, "n": 100}},
        test="x",
        test_images="100 of /home/somebody/labelled/<script>alert(1)<script>x, /home/somebody/more/test",
    )
    facts = RunFacts(
        run="runs/x",
        recipe={"objective.kind": "vicreg", "data.sources": ["/home/somebody/<b>cats</b>\x1b[2J"]},
        auto=frozenset(),
        budget={},
        steps=10,
        epochs=2.0,
        seconds=60.0,
        images_per_second=1.0,
        parameters=1,
        images=40,
        evaluations=[evaluation],
        notes=[],
    )

    def made(facts: RunFacts) -> str:
        return card(
            Material(module, config),
            name="run <i>x</i>",
            license="mit",
            uses=[Use("timm", "import timm\n", True, "timm")],
            proofs=[Proof("timm", "1.0", True, 8, 0.0, 0.0)],
            notes=[],
            facts=facts,
            recipe={
                "data": {"sources": ["/home/somebody/cats"]},
                "encoder": {"name": "resnet18", "init": "/home/somebody/w.safetensors"},
            },
            images="8 images",
        )

    text = made(facts)
    assert text.startswith("---\nlicense: mit\nlibrary_name: timm\n")
    assert yaml.safe_load(text.split("---")[1])["tags"]
    assert "| knn.top1 | 0.500 | 0.400 to 0.600 | +0.100 (+0.000 to +0.200) |" in text
    assert "values from 0 to 4095 as 0 to 1" in text
    assert "sources: [cats]" in text
    assert "On 100 of \\<script\\>alert(1)\\<script\\>x, test; intervals" in text
    assert "init: w.safetensors" in text
    assert "/home/somebody" not in text
    assert "Trained without labels (objective `vicreg`)" in text
    assert "on the images above and nothing else" in text
    begun = made(dataclasses.replace(facts, recipe=facts.recipe | {"encoder.init": "packaged:efficientnet_lite0"}))
    assert "It began at weights of others, `packaged:efficientnet\\_lite0`" in begun
    assert "from weights that had seen others" in begun
    assert "nothing else" not in begun
    labelled = made(dataclasses.replace(facts, recipe=facts.recipe | {"objective.kind": "supervised"}))
    assert "Trained with the labels of its images" in labelled
    for stranger in ("<script>", "<b>", "<i>", "\x1b"):
        assert stranger not in text
    assert all(line == printable(line) for line in text.splitlines())


def test_the_command_exports_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from barlow.cli import main

    encoder = written(tmp_path / "encoder", "resnet18", options=SMALL)
    assert main(["export", str(encoder), "--to", "torch-export", "-o", str(tmp_path / "out"), "--license", "mit"]) == 0
    output = capsys.readouterr()
    assert "README.md, export.json, model.pt2, preprocessing.json" in output.out
    assert "torch.export" in output.err
    assert "differ by 0.0e+00" in output.err
    assert main(["export", str(encoder), "--to", "timm", "-o", str(tmp_path / "out")]) != 0
    assert json.loads((tmp_path / "out" / "preprocessing.json").read_text())["size"] == 32


def test_the_public_name_and_the_list() -> None:
    from barlow.listing import ENTRIES

    assert barlow.export is export
    assert list(ENTRIES["exports"]()) == exports.names()
    assert all(ENTRIES["exports"]().values())


@pytest.mark.nightly
def test_a_stem_of_lightness_is_exported_where_code_goes_with_it(tmp_path: Path) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", stem="strided_lightness", options=SMALL, stages="all")
    done, _ = exported(encoder, "safetensors", tmp_path / "out")
    assert [(proof.library, proof.relative) for proof in done.proofs] == [("torch.hub", 0.0), ("barlow", 0.0)]
    for target in ("torch-export", "onnx"):
        done, _ = exported(encoder, target, tmp_path / target)
        assert done.proofs[0].relative <= MOST


@pytest.mark.parametrize("target", ["torchvision", "timm"])
def test_a_stem_of_lightness_is_refused_under_the_plain_name_of_its_network(target: str, tmp_path: Path) -> None:
    encoder = written(tmp_path / "encoder", "resnet18", stem="strided_lightness")
    with pytest.raises(ValueError, match="its stem is a 3×3 convolution of stride 2 of the lightness of sRGB from 0"):
        export(encoder, target, tmp_path / "out")
