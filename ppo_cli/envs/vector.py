"""Vectors of environments: backends and seeds."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from ppo_cli.envs.make import EnvFn

Stream = Literal["env", "eval", "model", "action", "minibatch"]
_STREAMS: dict[Stream, int] = {"env": 0, "eval": 1, "model": 2, "action": 3, "minibatch": 4}


def spawn_seeds(seed: int, stream: Stream, n: int) -> list[int]:
    """``n`` seeds for one purpose, independent of those of any other purpose or run seed.

    Runs with the seeds 0 and 1 thus share no environment, as they would with seed + i.

    Returns:
        Integers in [0, 2³¹).
    """
    sequence = np.random.SeedSequence([seed, _STREAMS[stream]])
    return [int(value) >> 1 for value in sequence.generate_state(n)]


def make_vector(env_fns: Sequence[EnvFn], vectorization: str) -> VectorEnv[Any, Any, Any]:
    """A vector environment that resets an environment in the step in which its episode ends.

    Args:
        env_fns: one constructor an environment.
        vectorization: ``sync`` steps them in this process, ``async`` each in a process of its own; both give
            the same results.
    """
    if vectorization == "async":
        return AsyncVectorEnv(env_fns, autoreset_mode=AutoresetMode.SAME_STEP)
    return SyncVectorEnv(env_fns, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
