"""Random numbers as a function: the same (seed, epoch, sample id, view, op, draw) always gives the same number.

There is no generator whose state could get out of step. So nothing that happens to a run can shift a draw: not another
number of workers, another batch, a resumption, or a sample that was skipped. Nearby arguments give unrelated numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

WORD = 1 << 64

# Source: SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", section 5): the odd
# integer nearest 2**64 / golden ratio, and the finaliser with the shifts and multipliers of Stafford's variant 13.
GOLDEN = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)

# The first word that is hashed says what the number is for. So views and sample order share no numbers, although both
# are drawn with the same (seed, epoch). A test finds all first words by their docstrings.
VIEWS = 1
"""First word of the keys of views."""
ORDER = 2
"""First word of the keys of an epoch's order."""

MANTISSA = 53  # bits of a float64's mantissa: a uniform number in [0, 1) cannot have more of them and be evenly spaced


def _mixed(word: int) -> int:
    word = ((word ^ (word >> SHIFTS[0])) * MULTIPLIERS[0]) % WORD
    word = ((word ^ (word >> SHIFTS[1])) * MULTIPLIERS[1]) % WORD
    return word ^ (word >> SHIFTS[2])


def _mixed_array(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(SHIFTS[0]))) * np.uint64(MULTIPLIERS[0])
    words = (words ^ (words >> np.uint64(SHIFTS[1]))) * np.uint64(MULTIPLIERS[1])
    return words ^ (words >> np.uint64(SHIFTS[2]))


def hashed(words: Sequence[int], ids: np.ndarray) -> np.ndarray:
    """Hashes a prefix of words followed by each id to 64 evenly spread bits.

    The words are hashed one after the other. Each is added to the state, after a step by the golden constant so that a
    zero moves the state too, and the sum is mixed. The ids come last and are mixed twice. Mixing is one-to-one, so with
    one prefix no two ids collide.

    Args:
        words: the prefix; integers from 0 to 2**64 - 1. The first should say what the numbers are for (this module uses
            1 and 2), so that two uses of one seed share no numbers.
        ids: (..., n) integers, not negative.

    Returns:
        uint64 of the shape of ``ids``.

    Raises:
        ValueError: a word does not fit, or ids are negative or no integers.
    """
    for word in words:
        checked(word)
    return _mixed_array(_mixed_array(_as_words(ids) + np.uint64(_chain(tuple(map(int, words))))))


# Kept, because hashing the prefix takes longer than hashing the ids when there are few of them.
@lru_cache(maxsize=256)
def _chain(words: tuple[int, ...]) -> int:
    state = 0
    for word in words:
        state = _mixed((state + GOLDEN + word) % WORD)
    return (state + GOLDEN) % WORD


def checked(word: int, name: str = "seed, epoch, view, op and draw") -> int:
    """Returns the word if it is an integer from 0 to 2**64 - 1.

    Raises:
        ValueError: it is not. A larger one would wrap around and give the draws of another word.
    """
    if isinstance(word, bool) or not isinstance(word, int | np.integer):
        raise ValueError(f"{name}: got {word!r}; give an integer from 0 to 2**64 - 1.")
    if not 0 <= int(word) < WORD:
        raise ValueError(f"{name}: got {word}; give an integer from 0 to 2**64 - 1.")
    return int(word)


def _as_words(ids: np.ndarray) -> np.ndarray:
    ids = np.asarray(ids)
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids: got {ids.dtype}; give integers (positions in the sorted listing).")
    if np.issubdtype(ids.dtype, np.signedinteger) and ids.size and ids.min() < 0:
        raise ValueError(f"ids: got {ids.min()}; give integers from 0 on (positions in the sorted listing).")
    return ids.astype(np.uint64)


def _as_uniform(bits: np.ndarray) -> np.ndarray:
    return (bits >> np.uint64(64 - MANTISSA)) * 2.0**-MANTISSA


@dataclass(frozen=True, eq=False)
class Keys:
    """All that the draws of a batch depend on.

    Args:
        seed: of the run, 0 to 2**64 - 1.
        epoch: passes over the data so far.
        ids: (n,) sample ids, not negative.
        view: which view of the image is made.
        op: position of the op in the view's list.

    Raises:
        ValueError: one of them is not an integer, or is negative or too large.
    """

    seed: int
    epoch: int
    ids: np.ndarray
    view: int
    op: int = 0

    def __post_init__(self) -> None:
        for name in ("seed", "epoch", "view", "op"):
            checked(getattr(self, name), name)
        object.__setattr__(self, "ids", _as_words(self.ids))
        if self.ids.ndim != 1:
            raise ValueError(f"ids: got shape {self.ids.shape}; give one id per sample, shape (n,).")

    def uniform(self, draw: int) -> np.ndarray:
        """Draw number ``draw`` of each sample: (n,) float64 in [0, 1)."""
        return _as_uniform(hashed((VIEWS, self.seed, self.epoch, self.view, self.op, draw), self.ids))

    def uniforms(self, first: int, count: int) -> np.ndarray:
        """Draws ``first`` to ``first + count - 1`` of each sample at once: (count, n), rows as from ``uniform``."""
        # The same as in `_chain`, with the draw as its last word. Arrays of uint64 wrap around by themselves, where
        # `_chain` takes the remainder by WORD.
        prefix = _chain((VIEWS, int(self.seed), int(self.epoch), int(self.view), int(self.op)))
        chains = _mixed_array(np.arange(first, first + count, dtype=np.uint64) + np.uint64(prefix))
        states = (chains + np.uint64(GOLDEN))[:, None] + self.ids
        return _as_uniform(_mixed_array(_mixed_array(states)))

    def for_op(self, op: int) -> "Keys":
        """The keys of the same samples and view for the op at another position."""
        return replace(self, op=op)

    def rows(self, start: int, stop: int) -> "Keys":
        """The keys of samples ``start`` to ``stop - 1`` of the batch."""
        return replace(self, ids=self.ids[start:stop])


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which the n samples are seen in an epoch: (n,) int64, a function of the arguments alone.

    Samples are sorted by a keyed 64-bit hash. No two samples have the same hash, so there are no ties.

    Raises:
        ValueError: n is negative, or seed or epoch do not fit.
    """
    if n < 0:
        raise ValueError(f"n: got {n}; give the number of samples, 0 or more.")
    order = hashed((ORDER, checked(seed, "seed"), checked(epoch, "epoch")), np.arange(n))
    return np.argsort(order, kind="stable").astype(np.int64)
