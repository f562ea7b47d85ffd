"""The image sets that have a name. They are listed in a module of their own, so that listing them imports nothing."""

NAMED = {
    "shapes": "generated scenes of four objects of one kind, labelled; needs no file (the default)",
    "shapes_multi": "generated scenes of two or three kinds of object, several labels an image",
    "shapes_captions": "generated scenes of two coloured objects, with two captions each and no labels",
    "digits": "scikit-learn's handwritten digits: 1,797 grey images of 8×8, 10 classes",
    "cifar10": "photos of 32×32, 10 classes, 50,000 + 10,000; downloaded when first used (170 MB)",
    "cifar100": "photos of 32×32, 100 classes, 50,000 + 10,000; downloaded when first used (170 MB)",
}
SPLITS = ("train", "test")
"""The splits of each set: NAME:train and NAME:test choose one."""
DOWNLOADED = ("cifar10", "cifar100")
"""The sets that come from the network, once."""
