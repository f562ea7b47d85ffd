"""How many steps an epoch has: one rule, for what is trained and for what is told of it."""


def steps_of_epoch(images: int, batch_size: int) -> int:
    """How many steps an epoch has: the images that do not fill a batch are left for the next one."""
    return max(1, images // max(1, batch_size))


def epochs_of(steps: int, images: int, batch_size: int) -> float:
    """How many epochs some steps are, wherever that is told.

    Example:
        >>> epochs_of(steps=60, images=300, batch_size=64)
        15.0
    """
    return steps / steps_of_epoch(images, batch_size)
