"""Randomness: the seeds of every stream of a run, and the generators that everything in a process shares.

The shared ones are Python's, NumPy's and PyTorch's. PyTorch is imported late: it takes long, and commands
that only look at runs do without.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Generator

TWISTER_WORDS = 624  # of a Mersenne twister's state

Stream = Literal["env", "eval", "model", "action", "minibatch", "hooks", "intrinsic", "diagnostics", "shard"]
_STREAMS: dict[Stream, int] = {
    "env": 0, "eval": 1, "model": 2, "action": 3, "minibatch": 4, "hooks": 5, "intrinsic": 6,
    "diagnostics": 7, "shard": 8,
}  # fmt: skip


def spawn_seeds(seed: int, stream: Stream, n: int, *part: int) -> list[int]:
    """``n`` seeds for one purpose, independent of those of any other purpose, part or run seed.

    Runs with the seeds 0 and 1 thus share no environment, as they would with seed + i.

    Args:
        seed: The seed of the run.
        stream: The purpose.
        n: The number of seeds.
        *part: Numbers that tell parts of that purpose apart; zeros at the end count for nothing.

    Returns:
        Integers in [0, 2³¹).
    """
    sequence = np.random.SeedSequence([seed, _STREAMS[stream], *part])
    return [int(value) >> 1 for value in sequence.generate_state(n)]


def derived_seed(*entropy: int, child: int | None = None, bits: int = 31) -> int:
    """One seed that follows from numbers, and is independent of what other numbers give.

    Args:
        *entropy: The numbers, such as a seed and how often it has been tried.
        child: Which of the seeds below them it is; None for their own.
        bits: The number of its bits, at most 32.

    Returns:
        An integer in [0, 2^bits).
    """
    sequence = np.random.SeedSequence(entropy, spawn_key=() if child is None else (child,))
    return int(sequence.generate_state(1)[0]) >> (32 - bits)


def stream_generator(seed: int, stream: Stream, shard: int = 0) -> "Generator":
    """PyTorch's generator for one purpose of a run.

    Args:
        seed: The run's seed.
        stream: The purpose.
        shard: The number of the shard that it is for.
    """
    from torch import Generator

    return Generator().manual_seed(spawn_seeds(seed, stream, 1, shard)[0])


def check_twister(key: Any, position: object) -> None:  # noqa: ANN401 - an array or a tensor
    """Raises ValueError for a state of the Mersenne twister that NumPy would read outside its memory with."""
    if len(key) != TWISTER_WORDS or not (isinstance(position, int) and 0 <= position <= TWISTER_WORDS):
        raise ValueError(f"a generator's state at position {position} of {len(key)} words")


def seed_global_generators(seed: int) -> None:
    """Seeds the global generators, since some environments draw from them."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def global_states() -> tuple[Any, Any, Any]:
    """The states of the global generators."""
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


@contextmanager
def other_generators(seed: int) -> Iterator[None]:
    """Seeds the global generators for what runs in it; afterwards they are as they were before."""
    import torch

    outside = global_states()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would note each call for a CUDA to come
    if cuda:
        torch.cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        set_global_states(outside)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


class OwnGenerators:
    """The global generators as they are in what is entered again and again: each time as it left them."""

    def __init__(self, seed: int) -> None:
        """Has them seeded at the first time."""
        self._seed = seed
        self._states: tuple[Any, Any, Any] | None = None

    def __enter__(self) -> None:
        """Sets them, until the end of it."""
        self._outside = global_states()
        if self._states is None:
            seed_global_generators(self._seed)
        else:
            set_global_states(self._states)

    def __exit__(self, *_: object) -> None:
        """Keeps them, and sets what there was outside."""
        self._states = global_states()
        set_global_states(self._outside)


def saved_generators() -> dict[str, Any]:
    """States of the global generators as a checkpoint holds them: tensors and plain values."""
    import torch

    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(states: Mapping[str, Any]) -> None:
    """Sets what `saved_generators` gave."""
    import torch

    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, *rest = states["numpy"]
    check_twister(keys, rest[0])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
