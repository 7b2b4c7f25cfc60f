"""Which of a run's processes this one is, as torchrun's environment variables say."""

import os


def are_many() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """The number of this process; the first one, 0, has the folder and the terminal."""
    return int(os.environ.get("RANK", "0")) if are_many() else 0
