"""The methods of the papers' tables, each by its small recipe, with what papers print for it on ImageNet."""

from dataclasses import dataclass

SMALL, PHOTOS = "cifar10", "imagenette"


@dataclass(frozen=True)
class Compared:
    """A method beside others.

    Args:
        name: as the papers' tables call it.
        imagenet: top-1 of a linear classifier on ImageNet with a ResNet-50, per cent; None where none is printed.
        source: of that number.
        images: the set that it is compared on. Methods of patches need larger images than CIFAR-10 has.
    """

    name: str
    imagenet: float | None
    source: str
    images: str = SMALL


BARLOW = "Barlow Twins, Table 1"
VICREG = "VICReg, Table 1"
PIRL = "PIRL, Table 2"
FEW_CROPS = "two crops, as Barlow Twins and VICReg quote it"

FIRST = {
    "small_barlow_twins": Compared("Barlow Twins", 73.2, BARLOW),
    "small_vicreg": Compared("VICReg", 73.2, VICREG),
    "small_w_mse": Compared("W-MSE", None, ""),
    "small_simclr": Compared("SimCLR", 69.3, BARLOW),
    "small_byol": Compared("BYOL", 74.3, BARLOW),
    "small_supervised": Compared("supervised, with the labels", 76.5, BARLOW),
}
"""Those that README compares closely: three tries of the rate, three seeds."""

OTHERS = {
    "small_moco_v1": Compared("MoCo v1", 60.6, BARLOW),
    "small_moco_v2": Compared("MoCo v2", 71.1, BARLOW),
    "small_moco_v3": Compared("MoCo v3", 74.6, "the authors' repository, 1,000 epochs"),
    "small_simsiam": Compared("SimSiam", 71.3, BARLOW),
    "small_swav": Compared("SwAV", 71.8, FEW_CROPS),
    "small_rotation": Compared("rotation", 48.9, PIRL),
    "small_npid": Compared("NPID", 54.0, "VICReg's and PIRL's tables"),
    "small_pirl": Compared("PIRL", 63.6, BARLOW, PHOTOS),
    "small_cmc": Compared("CMC", 66.2, VICREG),
    "small_infomin": Compared("InfoMin", 73.0, VICREG, PHOTOS),
    "small_deepcluster_v1": Compared("DeepCluster v1", 46.9, "mmselfsup, Sobel, pooled features"),
    "small_deepcluster_v2": Compared("DeepCluster v2", 70.2, "SwAV's repository, two crops, 400 epochs"),
    "small_sela": Compared("SeLa", 61.5, "the authors' repository, ten heads"),
    "small_pcl": Compared("PCL v2", 67.6, "its paper"),
    "small_obow": Compared("OBoW", 73.8, VICREG),
    "small_cpc": Compared("CPC v2", 63.8, VICREG, PHOTOS),
    "small_context_prediction": Compared("context prediction", 40.4, "mmselfsup, last layer", PHOTOS),
    "small_jigsaw": Compared("jigsaw", 45.7, PIRL, PHOTOS),
    "small_colorization": Compared("colorization", 39.6, PIRL),
    "small_exemplar": Compared("exemplar", 46.0, "a wide ResNet-50, from memory"),
    "small_counting": Compared("counting", None, "", PHOTOS),
}
"""The rest: two tries, one seed, and three seeds for the five that come out best."""

COMPARED = FIRST | OTHERS
BESIDE = ("small_barlow_twins", PHOTOS)
"""Who stands beside the methods of patches on their images."""
