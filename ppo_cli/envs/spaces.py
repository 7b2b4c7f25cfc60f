"""What an environment's spaces mean for a rollout: how observations are stored, what actions are sent."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

Array = npt.NDArray[Any]


def stored_observation(space: spaces.Space[Any], normalized: bool) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of an observation in the rollout: bytes and integers as they are, floats as float32."""
    if normalized:
        return tuple(space.shape or ()), torch.float32
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return tuple(space.shape or ()), torch.int64
    dtype = torch.uint8 if space.dtype == np.uint8 else torch.float32
    return tuple(space.shape or ()), dtype


def action_adapter(space: spaces.Space[Any]) -> Callable[[Array], Array]:
    """A function from stored actions [N, ...] to what the vector environment takes, [N, *space.shape].

    Indices get the space's ``start``, continuous actions are clipped to the bounds (the stored ones stay as
    sampled) and rounded where the space holds integers.
    """
    if isinstance(space, spaces.Discrete):
        start = space.start
        return lambda actions: actions + start
    if isinstance(space, spaces.MultiDiscrete):
        shape, starts, dtype = space.shape, space.start, space.dtype
        return lambda actions: (actions.reshape(-1, *shape) + starts).astype(dtype)
    if isinstance(space, spaces.MultiBinary):
        shape, dtype = space.shape, space.dtype
        return lambda actions: actions.reshape(-1, *shape).astype(dtype)
    if isinstance(space, spaces.Box):
        return _box_adapter(space)
    shown = " ".join(str(space).split())
    raise ValueError(
        f"unsupported action space {shown}: expected Discrete, MultiDiscrete, MultiBinary or Box"
    )


def _box_adapter(space: spaces.Box) -> Callable[[Array], Array]:
    low, high, shape, dtype = space.low, space.high, space.shape, space.dtype
    integral = np.issubdtype(dtype, np.integer)

    def adapt(actions: Array) -> Array:
        actions = actions.reshape(-1, *shape)
        return np.clip(np.rint(actions) if integral else actions, low, high).astype(dtype)

    return adapt
