"""Strings of others made fit for a terminal: names of folders, classes and files, and what files say.

A terminal obeys escape sequences: a file name can move the cursor, hide a line or change the window's title. Whatever
`barlow` prints, and every error that it raises to a caller in Python, has gone through here.
"""

import os


def printable(path: str | bytes | os.PathLike[str]) -> str:
    """A path or name fit to be printed and stored in UTF-8.

    Control characters, marks that turn the direction of writing, and bytes that are not UTF-8 become escapes.

    Example:
        >>> printable("photos/\\x1b[2Jcat.png")
        'photos/\\\\x1b[2Jcat.png'
    """
    text = os.fsdecode(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def printable_lines(text: str) -> str:
    """A text of several lines, each of them `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def one_line(error: BaseException, limit: int = 160) -> str:
    """Another library's error as a part of our one-line message, at most so many characters; its type, if it says
    nothing."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
