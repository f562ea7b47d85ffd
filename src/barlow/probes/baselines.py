"""The number to beat when nothing is learned: raw pixels. (The untrained network is prepared in `nets/norms.py`.)"""

from torch import nn
from torch.nn import functional as F

from barlow.types import Features, Images

PIXEL_SIDE = 32
"""The largest side at which pixels become features. It is CIFAR-10's own: 3,072 numbers for an RGB image."""


class RawPixels(nn.Module):
    """An encoder that does nothing: its features are the pixels of the centre view, in a row.

    It reads the same batches as the encoder does. So the pixels have been normalised with the data's mean and standard
    deviation per channel, and nothing else was done to them. For cosine kNN that is the harder baseline by far, because
    the cosines of pixels in [0, 1] mostly compare brightness. On CIFAR-10, with 40,000 training images against 3,000
    held out of them, it is 0.44 ± 0.02 normalised and 0.34 ± 0.02 in [0, 1]. Euclidean 5-NN has 0.31 either way.

    Args:
        side: larger views are resized to this side (bilinear, with antialiasing), which bounds the memory.
    """

    def __init__(self, side: int = PIXEL_SIDE):
        super().__init__()
        self.side = side

    def forward(self, x: Images) -> Features:
        if max(x.shape[2:]) > self.side:
            x = F.interpolate(x.float(), size=(self.side, self.side), mode="bilinear", antialias=True)
        return x.flatten(1)
