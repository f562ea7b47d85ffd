"""Encoders and linear probes as estimators of scikit-learn, for pipelines, cross-validation and grids."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from barlow import encoders
from barlow.distributed import choose_device
from barlow.nets.preprocessing import Picture
from barlow.probes.features import FeatureSet, embed
from barlow.protocols.logistic import STRENGTHS, Logistic
from barlow.telling import silent
from barlow.types import Images

if TYPE_CHECKING:
    from sklearn.utils import Tags


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """An encoder as a transformer: images in, a row of features for each out.

    There is nothing to fit: the network is trained already. It is loaded when it is first needed, and a pickle of this
    object or a clone of it holds the encoder's name, not its weights (of a module that was given, the module).

    Convention: centre views in eval mode and float32, as an evaluation embeds images.

    Args:
        encoder: as `barlow.encoders.find_encoder` takes it: a run folder, `RUN@STEP`, `packaged:NAME`, a module, …
        network: the network of a file of weights, by timm's name.
        image_size: for foreign weights, in place of their own.
        batch_size: images per forward pass.
        device: cpu, cuda, mps or auto.

    Example:
        >>> from sklearn.pipeline import make_pipeline
        >>> import barlow
        >>> make_pipeline(barlow.Encoder("runs/photos"), barlow.LinearProbe()).steps[0][0]
        'encoder'
    """

    def __init__(
        self,
        encoder: encoders.Named | None = None,
        *,
        network: str | None = None,
        image_size: object = None,
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        self.encoder = encoder
        self.network = network
        self.image_size = image_size
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: object = None, y: object = None) -> "Encoder":
        """Loads the encoder, so that a wrong name is told here. Images and labels are not looked at."""
        self._loaded()
        return self

    def transform(self, X: Picture | Sequence[Picture]) -> np.ndarray:
        """The features of images, a row for each, float32.

        Args:
            X: a list of paths, Pillow images or (h, w, c) arrays of 8 bits, which may differ in size; or one array
                (n, h, w, c).

        Raises:
            ValueError: an image cannot be read, or does not fit the encoder: every image has to have its row.
        """
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: give 1 or more")
        pictures = _several(X)
        if not len(pictures):
            raise ValueError("no images (0 samples): give at least one path or array")
        found = self._loaded()

        def batches() -> Iterator[Images]:
            for start in range(0, len(pictures), self.batch_size):
                yield found.preprocessing(list(pictures[start : start + self.batch_size]))

        return embed(found.network, batches(), choose_device(self.device)).numpy()

    @property
    def _n_features_out(self) -> int:
        return int(self._loaded().network.num_features)  # type: ignore[arg-type]

    def _loaded(self) -> encoders.FoundEncoder:
        asked = (self.encoder, self.network, self.image_size)
        kept: tuple[Any, encoders.FoundEncoder] | None = self.__dict__.get("_kept")
        if kept is None or any(a is not b and a != b for a, b in zip(kept[0], asked, strict=True)):
            if self.encoder is None:
                raise ValueError(f"no encoder is named: give {encoders.NAMES}, as in barlow.Encoder('runs/photos')")
            found = encoders.find_encoder(
                self.encoder, encoder=self.network, image_size=self.image_size, taken="size", say=silent
            )
            self._kept = kept = (asked, found)
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_kept", None)
        return state

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> "Tags":
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


def _several(X: Any) -> Any:
    """The images of a list, of an array (n, h, w, c), or of another column of names. A single image is refused: whoever
    forgets the list would otherwise get its rows, each taken for an image."""
    if isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and (X.ndim == 4 or X.dtype.kind in "USO")):
        return X
    if isinstance(X, str | np.ndarray) or not hasattr(X, "__iter__"):
        shape, hint = "", ""
        if isinstance(X, np.ndarray):
            shape = f" of shape {X.shape}"
            if X.ndim == 3:
                one = X.shape[2] in (1, 3)
                hint = (
                    "; one image goes into a list: [array]" if one else "; grey images need a channel: array[..., None]"
                )
        raise ValueError(
            f"images are a {type(X).__name__}{shape}; give a list of paths or images, or (n, h, w, c){hint}"
        )
    return list(X)


class LinearProbe(ClassifierMixin, BaseEstimator):
    """A linear classifier on features: the protocol `logistic` of `barlow evaluate`, and the same numbers.

    The strength of the penalty is chosen on a part of the training set, features are standardised, and the fit is
    L-BFGS's (`barlow.protocols.logistic.Logistic`).

    Convention: one label an image.

    Args:
        strengths: the values of C that are tried, ascending.
        selection_rows: at most this many training rows are used to choose C.
        held_out: the part of them that scores each C, in (0, 1).
        max_iterations: of L-BFGS in each fit.
        tolerance: L-BFGS ends where the largest component of the mean loss's gradient is below this.
        seed: of the split.

    Attributes:
        classes_: the labels that were seen.
        n_features_in_: how many features a row has.
        notes_: C, how it scored on the part that was held out, and whether the fit converged.
    """

    def __init__(
        self,
        *,
        strengths: Sequence[float] = STRENGTHS,
        selection_rows: int = 10_000,
        held_out: float = 0.2,
        max_iterations: int = 500,
        tolerance: float = 1e-3,
        seed: int = 0,
    ) -> None:
        self.strengths = strengths
        self.selection_rows = selection_rows
        self.held_out = held_out
        self.max_iterations = max_iterations
        self.tolerance = tolerance
        self.seed = seed

    def fit(self, X: Any, y: Any) -> "LinearProbe":
        """Fits the classifier.

        Args:
            X: features, (n, f).
            y: a label for each row, of any type.

        Raises:
            ValueError: there is one class only, or a value is not allowed.
        """
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"all {len(y)} rows are of one class, {self.classes_[0]}; a classifier needs at least two")
        probe = Logistic(
            strengths=tuple(self.strengths),
            selection_rows=self.selection_rows,
            held_out=self.held_out,
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
            seed=self.seed,
        )
        features = torch.from_numpy(np.array(X, np.float32))
        self.fitted_ = probe.fit(FeatureSet(features, numbers.astype(np.int64), np.arange(len(X))))
        self.notes_ = self.fitted_.notes
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each of `classes_`, (n, k)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        # In float64, a row has the same answer in whatever company it comes.
        return self.fitted_.scores(torch.from_numpy(np.array(X, np.float64)))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable of `classes_` for each row."""
        probabilities = self.predict_proba(X)
        predicted: np.ndarray = self.classes_[probabilities.argmax(axis=1)]
        return predicted
