"""What a number is compared with when nothing is learned: the pixels. (The untrained network: `nets/norms.py`.)"""

from torch import nn
from torch.nn import functional as F

from barlow.types import Features, Images

PIXEL_SIDE = 32
"""Side at which pixels become features, at most: CIFAR-10's own, 3,072 numbers an image for RGB."""


class RawPixels(nn.Module):
    """An encoder that does nothing: the pixels of the centre view, in a row.

    Embedded from the same batches as the encoder, so the pixels have been normalised with the data's mean and standard
    deviation per channel, and nothing else. For cosine kNN that is the harder baseline by far: the cosines of pixels in
    [0, 1] mostly compare brightness (CIFAR-10, 40,000 training images against 3,000 held out of them: 0.44 ± 0.02
    normalised, 0.34 ± 0.02 in [0, 1]; Euclidean 5-NN has 0.31 either way).

    Args:
        side: larger views are resized to this, bilinear with antialiasing, which bounds memory.
    """

    def __init__(self, side: int = PIXEL_SIDE):
        super().__init__()
        self.side = side

    def forward(self, x: Images) -> Features:
        if max(x.shape[2:]) > self.side:
            x = F.interpolate(x.float(), size=(self.side, self.side), mode="bilinear", antialias=True)
        return x.flatten(1)
