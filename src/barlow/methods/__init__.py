"""Methods: which networks see which views, and which of their outputs an objective compares.

One file, one topology; the file's name is the method's kind in a recipe. A new topology is a new file here with a
frozen dataclass, which is the recipe's section, named in the file's ``__all__``. Its `build` makes a `Method`.

What belongs here is what can be computed for every row (image) on its own: encoders, projectors, predictors, slow
copies of them. What mixes rows (a correlation over the batch, negatives, a queue, prototypes) belongs to the objective,
which sees the global batch once a step. That is why a batch in chunks, or shared by processes, gives the same step as
the whole.
"""

from typing import TYPE_CHECKING, Any, Protocol

from barlow import kinds as _kinds

if TYPE_CHECKING:
    from torch import nn

    from barlow.methods._networks import Method as Method

    class NewEncoder(Protocol):
        """Makes an encoder and says how many features it has. Each call gives a network of its own.

        Args:
            part: of the method that the network is for; "encoder" is the one that the run keeps. Networks of one part
                have equal weights, and those of two parts have not.
            changes: keys of the recipe's section `encoder` (name, stem, zero_init_last, options) that are others for
                this network. One with changes does not start from given weights (`init`).
        """

        def __call__(self, part: str = "encoder", **changes: Any) -> tuple[nn.Module, int]: ...


class MethodSection(Protocol):
    """What a file of this folder holds: a frozen dataclass whose fields are the keys of the recipe's `method`.

    The rules of the networks that it builds stand at `barlow.methods._networks.Method`. Three more things it may say:
    by `takes_pixels = True` that views are not to be normalised, because it reads colours from them; by
    `resolved_for(view_size)` which section stands in its place once the size of the views is known, for fields that are
    `auto`; and by `kept(encoder)`, given that name, which of several encoders the run keeps, in words.
    """

    @property
    def gives(self) -> str:
        """What the groups are: "views" to be compared with each other, "pairs" of a prediction and its target,
        "triples" of these and the embedding that was predicted from, or "one" batch of logits in each. An objective
        that takes pairs is refused where there are none. Most methods say it by a class variable."""
        ...

    @property
    def asks(self) -> tuple[str, ...]:
        """What `forward` needs to know of each row, beside the ids: "caption". Most methods have no such attribute."""
        ...

    def widths(self, views: int) -> list[tuple[int, ...]]:
        """Widths of the tensors in each group that `forward` will give, without building anything.

        One tuple for each group; no group if so many views are too few.
        """
        ...

    def build(self, new_encoder: "NewEncoder", seed: int) -> "Method":
        """The networks. The weights of heads are a function of `seed`."""
        ...

    # A method whose targets are made of feature maps has their sizes in a field `maps`, a list of (height, width,
    # channels), which an objective may ask for (`barlow.types.MapSizes`).


def kinds() -> list[str]:
    """The methods there are, in alphabetical order."""
    return _kinds.kinds(__path__)


def load(kind: str) -> type[Any]:
    """The method's dataclass.

    Raises:
        ValueError: no method is called that.
    """
    return _kinds.load(__name__, __path__, kind)
