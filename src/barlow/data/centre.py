"""Centre views of images, as a finished encoder takes them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int64, UInt

from barlow.data.counting import Counted, not_shown, over
from barlow.data.decoding import UnreadableImage
from barlow.data.inventory import in_threads
from barlow.data.last_words import kept_from_the_screen
from barlow.data.sources import ImageSource
from barlow.levels import white
from barlow.nets.preprocessing import Preprocessing
from barlow.types import Images


def decoded_centres(
    source: ImageSource, ids: Sequence[int] | Int64[np.ndarray, "n"], preprocessing: Preprocessing, workers: int
) -> Iterator[UInt[np.ndarray, "h w c"] | None]:
    """The centre of each image in 8 or 16 bits, in the order of `ids`; None for one that cannot be read.

    The threads do not stop between two of them: they decode what comes next while the caller is busy.
    """

    tried = tried_centres(source, ids, preprocessing, workers)
    return (None if isinstance(centre, UnreadableImage) else centre for centre in tried)


def tried_centres(
    source: ImageSource, ids: Iterable[int] | Int64[np.ndarray, "n"], preprocessing: Preprocessing, workers: int
) -> Iterator[UInt[np.ndarray, "h w c"] | UnreadableImage]:
    """The same, with the reason in the place of an image that cannot be read."""

    def centre(id: int) -> np.ndarray | UnreadableImage:
        try:
            return preprocessing.centre(source.read(int(id)))
        except UnreadableImage as error:
            return error

    return in_threads(centre, ids, workers)


def normalized(pixels: UInt[np.ndarray, "n h w c"], preprocessing: Preprocessing) -> Images:
    """Centres as an encoder takes them: floats, less the mean, over the standard deviation."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    # In place, so that the order of the bytes stays (n, h, w, c): the network wants its input `channels_last`.
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(white(pixels)).sub_(mean).div_(std)


def centre_views(
    source: ImageSource,
    ids: Int64[np.ndarray, "n"],
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int,
    counted: Counted = not_shown,
) -> Iterator[Images]:
    """Normalised batches of the centres of some images. What can no longer be read is left out.

    Args:
        source: where the images are read.
        ids: which of them.
        preprocessing: what the encoder expects of an image.
        batch_size: images in a batch; the last one may have fewer.
        workers: threads that decode.
        counted: told how many images have been read.
    """
    with kept_from_the_screen():
        batch = []
        centres = decoded_centres(source, ids, preprocessing, workers)
        for centre in over(centres, "images embedded", len(ids), counted):
            if centre is not None:
                batch.append(centre)
            if len(batch) == batch_size:
                yield normalized(np.stack(batch), preprocessing)
                batch = []
        if batch:
            yield normalized(np.stack(batch), preprocessing)
