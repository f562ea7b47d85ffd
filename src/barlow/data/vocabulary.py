"""Words of captions, and the numbers that a text network knows them by."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from barlow import limits
from barlow.exits import UnusableData

PADDING, START, END, UNKNOWN = range(4)
"""The first numbers stand for no word: what fills up a shorter caption, the marks around one, and any other word."""

SPECIAL = 4
"""How many of these there are; the words' own numbers begin here."""

WORD = re.compile(r"(?:[^\W_]|')+")
"""A run of letters, digits and apostrophes."""

MARKS = 2
"""Start and end."""


def words_of(caption: str) -> list[str]:
    """The words of a caption: its runs of letters, digits and apostrophes, in lower case.

    Convention: that of a regular-expression tokenizer. Punctuation separates words and is left out. A language that is
    written without spaces has one long word in a sentence; put spaces between its words first.

    Example:
        >>> words_of("Two dogs' owners, in T-shirts.")
        ['two', "dogs'", 'owners', 'in', 't', 'shirts']
    """
    return WORD.findall(caption.lower())


@dataclass(frozen=True)
class Vocabulary:
    """The words that have a number of their own.

    Args:
        words: the most frequent first, and equally frequent ones in alphabetical order.
        min_count: how often a word had to occur.

    Raises:
        UnusableData: a word is there twice, or none has letters or digits.
    """

    words: tuple[str, ...]
    min_count: int

    def __post_init__(self) -> None:
        if len(set(self.words)) < len(self.words):
            raise UnusableData("a vocabulary has a word twice")

    @classmethod
    def of(cls, captions: Iterable[Sequence[str]], min_count: int) -> "Vocabulary":
        """The words that occur at least so often in the captions of all images.

        Raises:
            TooLarge: there are more of them than `limits.WORDS`.
            UnusableData: there is none.
        """
        counted = Counter(word for of_image in captions for caption in of_image for word in words_of(caption))
        kept = sorted((word for word, count in counted.items() if count >= min_count), key=lambda w: (-counted[w], w))
        if not kept:
            raise UnusableData(f"no word occurs {min_count} times in the captions: use --method.min_count 1")
        if len(kept) > limits.WORDS:
            raise limits.TooLarge(
                f"{len(kept):,} words occur {min_count} times or more, and at most {limits.WORDS:,} are allowed: raise "
                "--method.min_count"
            )
        return cls(tuple(kept), min_count)

    def __len__(self) -> int:
        """How many numbers there are, with those that stand for no word."""
        return SPECIAL + len(self.words)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: SPECIAL + number for number, word in enumerate(self.words)}

    def numbers(self, caption: str, longest: int) -> list[int]:
        """The start mark, the numbers of the words, and the end mark: `longest` numbers at most.

        Example:
            >>> Vocabulary(("a", "dog"), 1).numbers("A dog barks", longest=64)
            [1, 4, 5, 3, 2]
        """
        words = words_of(caption)[: longest - MARKS]
        return [START, *(self._numbers.get(word, UNKNOWN) for word in words), END]

    def unknown_share(self, captions: Iterable[Sequence[str]]) -> float:
        """Which share of the words of all captions has no number of its own."""
        words = [word for of_image in captions for caption in of_image for word in words_of(caption)]
        return sum(word not in self._numbers for word in words) / max(len(words), 1)

    def as_dict(self) -> dict[str, Any]:
        """The content of vocabulary.json."""
        return {"format": 1, "min_count": self.min_count, "words": list(self.words)}


def vocabulary_from(content: Mapping[str, Any], place: object) -> Vocabulary:
    """The vocabulary that `as_dict` described.

    Raises:
        UnusableData: it is something else.
    """
    words, least = content.get("words"), content.get("min_count")
    whole = isinstance(words, list) and all(isinstance(word, str) for word in words) and type(least) is int
    if content.get("format") != 1 or not whole:
        raise UnusableData(f"{place} is no vocabulary that this version knows")
    if len(words) > limits.WORDS:  # type: ignore[arg-type]  # a list, by now
        raise limits.TooLarge(f"{place} has {len(words):,} words, and at most {limits.WORDS:,} are allowed")  # type: ignore[arg-type]
    return Vocabulary(tuple(words), least)  # type: ignore[arg-type]
