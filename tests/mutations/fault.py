"""What a fault is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One wrong variant."""

    name: str
    file: str
    right: str
    wrong: str
    caught_by: tuple[str, ...]
    fast: bool = False
    """Whether the ordinary suite tries it: some of each kind. The others run at night."""
