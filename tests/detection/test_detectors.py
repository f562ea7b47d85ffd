"""Encoders as backbones: which maps are taken, what is refused, what is trained, and what comes out."""

from typing import Any

import numpy as np
import pytest
import small
import timm
import torch
from torch import nn

from barlow.detection.backbones import Stages, UnfitBackbone, cut_before_last_stage, plain_network
from barlow.detection.detectors import DESIGNS
from barlow.detection.masks import drawn
from barlow.detection.training import _batch
from barlow.nets.handed_out import handed_out
from barlow.nets.weights import with_preprocessing


def image(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "regnetx_002"])
def test_maps_are_those_that_timm_gives_for_features(name: str) -> None:
    network: Any = small.encoder(name, options=None)
    stages = Stages(network, name).eval()
    assert stages.strides == [4, 8, 16, 32]
    features = timm.create_model(name, features_only=True, out_indices=tuple(stages.indices)).eval()
    missing, _ = features.load_state_dict(network.state_dict(), strict=False)
    assert not missing
    with torch.no_grad():
        ours, theirs = stages(image()), features(image())
    assert list(ours) == ["4", "8", "16", "32"]
    for mine, other, channels in zip(ours.values(), theirs, stages.channels, strict=True):
        assert mine.shape[1] == channels
        assert torch.equal(mine, other)


def test_a_stem_for_small_images_has_other_strides_than_timm_says() -> None:
    strided = Stages(small.encoder(stem="strided"), "it")
    assert strided.strides == [4, 8, 16]
    assert strided(image())["4"].shape[2:] == (16, 24)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("resnet18", {"stem": "small"}, r"it has maps of strides 1, 2, 4, 8, and none of 16: a pyramid needs"),
        ("vit_tiny_patch16_224", {"options": None}, "it cannot be the backbone of a detector, whose images have many"),
    ],
)
def test_what_has_no_pyramid_says_so(name: str, words: dict[str, Any], said: str) -> None:
    with pytest.raises(UnfitBackbone, match=said) as caught:
        Stages(small.encoder(name, **words), "it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("resnet18", {"stem": "strided"}, "its third stage has stride 8 and not 16: take fpn or small_fpn"),
        ("regnetx_002", {"options": None}, "it is a RegNet: the detector C4 has a ResNet's last stage as its head"),
    ],
)
def test_what_cannot_be_cut_for_c4_says_so(name: str, words: dict[str, Any], said: str) -> None:
    with pytest.raises(UnfitBackbone, match=said):
        cut_before_last_stage(small.encoder(name, **words), "it")


def test_an_encoder_of_grey_images_and_a_module_without_maps_are_refused() -> None:
    with pytest.raises(UnfitBackbone, match=r"takes images of 1 channels and 8 bits; detection reads colour images"):
        plain_network(small.encoder(channels=1))
    with pytest.raises(UnfitBackbone, match="it does not give its feature maps"):
        Stages(nn.Conv2d(3, 4, 3), "it")


def test_a_handed_out_encoder_is_its_network_and_none_is_changed() -> None:
    whole = with_preprocessing(handed_out(small.encoder(), "all", None), small.preprocessing())
    network = plain_network(whole)
    assert type(network).__name__ == "ResNet"
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())


def losses(detector: Any, masks: bool = True) -> dict[str, torch.Tensor]:
    examples = _batch(small.shapes(), small.SCHEDULE, seed=0, step=0)
    targets = [{k: v for k, v in target.items() if masks or k != "masks"} for _, target in examples]
    return detector.train().losses([pixels for pixels, _ in examples], targets)  # type: ignore[no-any-return]


@pytest.mark.parametrize("design", [small.FPN, small.C4], ids=["fpn", "c4"])
@pytest.mark.parametrize("masks", [False, True])
def test_every_weight_of_backbone_and_heads_gets_a_gradient(design: Any, masks: bool) -> None:
    made = small.detector(design, masks=masks)
    terms = losses(made, masks)
    assert ("loss_mask" in terms) == masks
    torch.stack(list(terms.values())).sum().backward()
    without = [name for name, p in made.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert without == []
    zero = [name for name, p in made.named_parameters() if not p.grad.any()]
    assert [name for name in zero if "network" in name or "stage." in name] == []


def test_the_backbone_starts_from_the_encoders_weights_and_c4s_head_is_its_last_stage() -> None:
    weights = small.encoder().state_dict()
    for design in (small.FPN, small.C4):
        made = small.detector(design, masks=True).state_dict()
        for part in ("conv1.weight", "layer3.0.conv2.weight", "layer4.0.conv2.weight"):
            assert any(
                torch.equal(value, weights[part]) for value in made.values() if value.shape == weights[part].shape
            )
    c4 = small.detector(small.C4, masks=True).net.roi_heads
    assert c4.box_head.inner is c4.mask_head, "boxes and masks share the last stage"


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
def test_batch_norm_of_the_encoder_stays_or_learns(batch_norm: str) -> None:
    made = small.detector(batch_norm=batch_norm)
    norms = {n: v.clone() for n, v in made.state_dict().items() if "stages" in n and ("bn" in n or "running" in n)}
    optimizer = torch.optim.SGD([p for p in made.parameters() if p.requires_grad], 0.1)
    torch.stack(list(losses(made).values())).sum().backward()
    optimizer.step()
    after = made.state_dict()
    moved = [name for name, value in norms.items() if not torch.equal(after[name], value)]
    assert bool(moved) == (batch_norm == "trained"), moved
    made.eval()
    made.train()
    assert all(not norm.training for norm in made.still)


def test_the_same_seed_gives_the_same_detector_and_another_seed_another_head() -> None:
    from barlow.detection.detectors import Detector

    def weights(seed: int) -> dict[str, torch.Tensor]:
        return Detector(small.encoder(), 4, small.FPN, masks=False, batch_norm="trained", seed=seed).state_dict()

    one, same, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    head = "net.roi_heads.box_predictor.cls_score.weight"
    assert not torch.equal(one[head], other[head])
    assert torch.equal(
        one["net.backbone.stages.network.conv1.weight"], other["net.backbone.stages.network.conv1.weight"]
    )


def test_images_are_normalised_as_the_encoder_expects_and_keep_their_size() -> None:
    made = small.detector()
    expected = small.preprocessing()
    for training in (True, False):
        made.train(training)
        pixels = image()[0]
        batch, _ = made.net.transform([pixels], [{"boxes": torch.zeros(0, 4)}] if training else None)
        mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (expected.mean, expected.std))
        assert batch.image_sizes == [(64, 96)]
        assert torch.allclose(batch.tensors[0], (pixels - mean) / std, atol=1e-6)


@pytest.mark.parametrize("design", [small.FPN, small.C4], ids=["fpn", "c4"])
def test_what_is_found_is_in_the_pixels_of_the_original(design: Any) -> None:
    made = small.detector(design)
    with torch.no_grad():  # so that an untrained detector is sure enough of something
        made.net.roi_heads.box_predictor.cls_score.bias[2] += 2
    (found,) = made.find([image()[0]], [(160, 240)])
    assert len(found.boxes) > 0
    assert set(found.labels.tolist()) <= {0, 1, 2, 3}
    assert 1 in found.labels, "label 2 of the detector is class 1: 0 is its background"
    assert found.boxes.min() >= 0
    assert found.boxes[:, [0, 2]].max() <= 240
    assert found.boxes[:, [1, 3]].max() <= 160
    assert found.boxes.max() > 96, "and not those of the resized image"
    assert found.outlines is not None
    for box, outline in zip(found.boxes, found.outlines, strict=True):
        rows, columns = np.nonzero(drawn(outline, 160, 240))
        if len(rows):
            assert columns.min() >= box[0] - 12
            assert columns.max() <= box[2] + 12


def test_designs_are_published_ones_or_say_that_they_are_ours() -> None:
    assert DESIGNS["small_fpn"].source.startswith("ours")
    assert (DESIGNS["fpn"].boxes_trained, DESIGNS["c4"].boxes_trained) == (512, 512)
    assert DESIGNS["c4"].before_nms == (12000, 6000)
