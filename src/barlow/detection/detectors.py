"""torchvision's Faster and Mask R-CNN with an encoder as the backbone: C4, FPN, and a small FPN for CPUs."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from barlow.detection import operators
from barlow.detection.average_precision import MOST, Found
from barlow.detection.backbones import BatchNorm, Maps, Stages, cut_before_last_stage, freeze_norms, plain_network
from barlow.detection.masks import run_lengths
from barlow.nets.preprocessing import Preprocessing
from barlow.nets.seeding import seeded
from barlow.size import HeightWidth

RATIOS = (0.5, 1.0, 2.0)
"""Of anchors, height over width."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """A detector's sizes.

    Args:
        channels: of the pyramid; None: C4, which has none.
        anchors: their sides, in pixels: one for each level of a pyramid, or all on C4's one map.
        head: width of the two layers that classify a box; None: the network's last stage is the head.
        mask_layers: channels of the convolutions before a mask.
        before_nms, after_nms: proposals, in training and in testing.
        anchors_trained, boxes_trained: sampled in an image.
        samples: of a cell in `roi_align`, along each axis; 0: as many as it has pixels of the map.
        canonical_side: of the box that is read from the map of stride 16.
        source: where the sizes come from.
    """

    channels: int | None
    anchors: tuple[int, ...]
    head: int | None
    mask_layers: tuple[int, ...]
    before_nms: tuple[int, int]
    after_nms: tuple[int, int]
    anchors_trained: int
    boxes_trained: int
    samples: int
    canonical_side: int
    source: str


DESIGNS = {
    "small_fpn": Design(
        channels=64,
        anchors=(16, 32, 64, 128, 256),
        head=256,
        mask_layers=(64, 64),
        before_nms=(400, 400),
        after_nms=(150, 150),
        anchors_trained=128,
        boxes_trained=64,
        samples=2,
        canonical_side=112,
        source="ours, for two cores and images of 320 × 240: a step is six times cheaper than with fpn",
    ),
    "fpn": Design(
        channels=256,
        anchors=(32, 64, 128, 256, 512),
        head=1024,
        mask_layers=(256, 256, 256, 256),
        before_nms=(2000, 1000),
        after_nms=(2000, 1000),
        anchors_trained=256,
        boxes_trained=512,
        samples=2,
        canonical_side=224,
        source="Lin et al., Feature Pyramid Networks (arXiv 1612.03144), as torchvision's defaults have it",
    ),
    "c4": Design(
        channels=None,
        anchors=(32, 64, 128, 256, 512),
        head=None,
        mask_layers=(),
        before_nms=(12000, 6000),
        after_nms=(2000, 1000),
        anchors_trained=256,
        boxes_trained=512,
        samples=0,
        canonical_side=224,
        source="MoCo's configuration for detectron2, which Barlow Twins and VICReg take over: a norm after the head",
    ),
}


class Detector(nn.Module):
    """Faster R-CNN, or Mask R-CNN where there are masks, and what it takes to train and to test it.

    Deviation: detectron2's detectors read boxes half a pixel further up and left (`aligned` in `roi_align`), and clip
    the regression of boxes differently. Those of torchvision, which are used here, do not. MoCo's configuration has the
    statistics of batch norm computed anew before a test (precise batch norm); here those of training are used.
    Published numbers are detectron2's.

    Args:
        encoder: with `.preprocessing`; it is copied.
        classes: how many, without the background.
        design: a name of `DESIGNS`, or sizes of your own.
        masks: whether masks are predicted.
        batch_norm: whether the encoder's batch norm goes on learning, or stays as it is.
        seed: of the parts that are new.
        name: what messages call the encoder.

    Raises:
        UnfitBackbone: the encoder cannot be the backbone.
    """

    def __init__(
        self,
        encoder: nn.Module,
        classes: int,
        design: str | Design,
        *,
        masks: bool,
        batch_norm: BatchNorm,
        seed: int,
        name: str = "the encoder",
    ) -> None:
        super().__init__()
        operators.provide()
        network, sizes = plain_network(encoder), DESIGNS[design] if isinstance(design, str) else design
        network.requires_grad_(True)
        self.still = freeze_norms(network) if batch_norm == "frozen" else []
        with seeded(seed, "detector"):
            parts = _c4(network, sizes, classes, masks, name) if sizes.channels is None else None
            parts = parts or _fpn(network, sizes, classes, masks, name)
            self.net: Any = _assembled(parts, sizes, encoder.preprocessing, masks)  # type: ignore[arg-type]
        self.masks = masks

    def train(self, mode: bool = True) -> "Detector":
        """As of any module, but for batch norm that is to stay as it is."""
        super().train(mode)
        for norm in self.still:
            norm.eval()
        return self

    def losses(
        self, images: Sequence[Float[Tensor, "3 h w"]], targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The terms of the loss.

        Args:
            images: colour in [0, 1]; each of its own size.
            targets: of each image `boxes`, `labels` (from 1 on; 0 is the background), and `masks` where it has them.
        """
        terms: dict[str, Tensor] = self.net(list(images), list(targets))
        return terms

    @torch.no_grad()
    def find(self, images: Sequence[Float[Tensor, "3 h w"]], originals: Sequence[HeightWidth]) -> list[Found]:
        """What is in the images.

        Args:
            images: colour in [0, 1].
            originals: the sizes that boxes and masks are to be in.
        """
        self.eval()
        net = self.net
        batch, _ = net.transform(list(images))
        features = net.backbone(batch.tensors)
        proposals, _ = net.rpn(batch, features)
        found, _ = net.roi_heads(features, proposals, batch.image_sizes)
        found = net.transform.postprocess(found, batch.image_sizes, list(originals))
        return [_as_found(each, self.masks) for each in found]


def _as_found(found: dict[str, Tensor], masks: bool) -> Found:
    numbers = {key: found[key].cpu().numpy() for key in ("boxes", "labels", "scores")}
    outlines = [run_lengths(mask[0].cpu().numpy()) for mask in found["masks"] > 0.5] if masks else None
    return Found(numbers["boxes"].astype(float), numbers["labels"] - 1, numbers["scores"], outlines)


@dataclass(frozen=True)
class _Parts:
    """What differs between the designs."""

    backbone: nn.Module
    anchors: tuple[tuple[int, ...], ...]
    pooled: list[str]
    box_size: int
    box_head: nn.Module
    box_predictor: nn.Module
    mask_size: int
    mask_head: nn.Module | None
    mask_predictor: nn.Module | None


class _Pyramid(nn.Module):
    """A network's maps, and the pyramid on them. torchvision's detectors ask for `out_channels`."""

    def __init__(self, stages: Stages, channels: int) -> None:
        super().__init__()
        self.stages, self.out_channels = stages, channels
        self.pyramid = FeaturePyramidNetwork(stages.channels, channels, extra_blocks=LastLevelMaxPool())

    def forward(self, x: Tensor) -> Maps:
        made: Maps = self.pyramid(self.stages(x))
        return made


def _fpn(network: Any, sizes: Design, classes: int, masks: bool, name: str) -> _Parts:
    assert sizes.channels is not None
    assert sizes.head is not None
    backbone = _Pyramid(Stages(network, name), sizes.channels)
    levels = [str(stride) for stride in backbone.stages.strides]
    return _Parts(
        backbone=backbone,
        anchors=tuple((side,) for side in sizes.anchors[: len(levels) + 1]),  # and the map that is pooled once more
        pooled=levels,
        box_size=7,
        box_head=TwoMLPHead(sizes.channels * 7**2, sizes.head),
        box_predictor=FastRCNNPredictor(sizes.head, classes + 1),
        mask_size=14,
        mask_head=MaskRCNNHeads(sizes.channels, sizes.mask_layers, 1) if masks else None,
        mask_predictor=MaskRCNNPredictor(sizes.mask_layers[-1], sizes.mask_layers[-1], classes + 1) if masks else None,
    )


class _OneMap(nn.Module):
    """A network that gives a single map. torchvision's detectors ask for `out_channels`."""

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.out_channels = network, channels

    def forward(self, x: Tensor) -> Maps:
        return OrderedDict({"16": self.network(x)})


class _LastStage(nn.Module):
    """A ResNet's last stage, and a batch norm."""

    def __init__(self, stage: nn.Module, channels: int) -> None:
        super().__init__()
        self.stage, self.norm = stage, nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.norm(self.stage(x))
        return made


class _Pooled(nn.Module):
    """The mean over space of what another module gives."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x).mean((2, 3))
        return made


def _c4(network: Any, sizes: Design, classes: int, masks: bool, name: str) -> _Parts:
    early, stage, channels, last = cut_before_last_stage(network, name)
    head = _LastStage(stage, last)
    return _Parts(
        backbone=_OneMap(early, channels),
        anchors=(sizes.anchors,),
        pooled=["16"],
        box_size=14,
        box_head=_Pooled(head),
        box_predictor=FastRCNNPredictor(last, classes + 1),
        mask_size=14,
        mask_head=head if masks else None,  # the same layers, as in the paper
        mask_predictor=MaskRCNNPredictor(last, 256, classes + 1) if masks else None,
    )


class _AtTheirSize(GeneralizedRCNNTransform):
    """Normalises images and puts them into a batch. They come in the size that they are to have."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def _assembled(parts: _Parts, sizes: Design, expected: Preprocessing, masks: bool) -> nn.Module:
    def pool(side: int) -> nn.Module:
        made: nn.Module = MultiScaleRoIAlign(parts.pooled, side, sizes.samples, canonical_scale=sizes.canonical_side)
        return made

    given: dict[str, Any] = {
        "rpn_anchor_generator": AnchorGenerator(parts.anchors, (RATIOS,) * len(parts.anchors)),
        "rpn_pre_nms_top_n_train": sizes.before_nms[0],
        "rpn_pre_nms_top_n_test": sizes.before_nms[1],
        "rpn_post_nms_top_n_train": sizes.after_nms[0],
        "rpn_post_nms_top_n_test": sizes.after_nms[1],
        "rpn_batch_size_per_image": sizes.anchors_trained,
        "box_batch_size_per_image": sizes.boxes_trained,
        "box_detections_per_img": MOST,
        "box_roi_pool": pool(parts.box_size),
        "box_head": parts.box_head,
        "box_predictor": parts.box_predictor,
    }
    if masks:
        given |= {"mask_roi_pool": pool(parts.mask_size)}
        given |= {"mask_head": parts.mask_head, "mask_predictor": parts.mask_predictor}
    made: Any = (MaskRCNN if masks else FasterRCNN)(parts.backbone, **given)
    made.transform = _AtTheirSize(0, 0, list(expected.mean), list(expected.std))
    network: nn.Module = made
    return network
