"""The generators that everything in a process shares: Python's, NumPy's and PyTorch's.

PyTorch is imported late: it takes long, and commands that only look at runs do without.
"""

import random
from typing import Any

import numpy as np

TWISTER_WORDS = 624  # of a Mersenne twister's state


def check_twister(key: Any, position: object) -> None:  # noqa: ANN401 - an array or a tensor
    """Raises ValueError for a state of the Mersenne twister that NumPy would read outside its memory with."""
    if len(key) != TWISTER_WORDS or not (isinstance(position, int) and 0 <= position <= TWISTER_WORDS):
        raise ValueError(f"a generator's state at position {position} of {len(key)} words")


def seed_global_generators(seed: int) -> None:
    """Seeds them, since some environments draw from them."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def global_states() -> tuple[Any, Any, Any]:
    """Their states."""
    import torch

    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def set_global_states(states: tuple[Any, Any, Any]) -> None:
    """Sets what `global_states` gave."""
    import torch

    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def are_drawn_from(since: tuple[Any, Any, Any]) -> bool:
    """Whether one of them has moved on since `global_states` gave these."""
    old, new = since, global_states()
    words = all(np.array_equal(a, b) for a, b in zip(old[1], new[1], strict=True))
    return not (old[0] == new[0] and words and old[2].equal(new[2]))
