"""What an environment's spaces mean for a rollout: how observations are stored, what actions are sent."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

from ppo_cli.spaces import PackedActions, PackedObservations, unsupported

Array = npt.NDArray[Any]


def stored_observation(space: spaces.Space[Any], normalized: bool) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of an observation in the rollout: bytes and integers as they are, floats as float32."""
    if normalized and not isinstance(space, PackedObservations):
        return tuple(space.shape or ()), torch.float32
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return tuple(space.shape or ()), torch.int64
    dtype = torch.uint8 if space.dtype == np.uint8 else torch.float32
    return tuple(space.shape or ()), dtype


def action_adapter(space: spaces.Space[Any], squash: bool = False) -> Callable[[Array], Array]:
    """A function from stored actions [N, ...] to what the vector environment takes, [N, *space.shape].

    Indices get the space's ``start``, continuous actions are clipped to the bounds (the stored ones stay as
    sampled) and rounded where the space holds integers.

    Args:
        space: of a single environment's actions.
        squash: continuous actions go through a tanh and are stretched to the bounds instead.

    Raises:
        ValueError: the space is unsupported.
    """
    if isinstance(space, PackedActions):
        return _packed_adapter(space, squash)
    if isinstance(space, spaces.Discrete):
        start, dtype = space.start, space.dtype
        return lambda actions: (actions + start).astype(dtype, copy=False)
    if isinstance(space, spaces.MultiDiscrete):
        shape, starts, dtype = space.shape, space.start, space.dtype
        return lambda actions: (actions.reshape(-1, *shape) + starts).astype(dtype)
    if isinstance(space, spaces.MultiBinary):
        shape, dtype = space.shape, space.dtype
        return lambda actions: actions.reshape(-1, *shape).astype(dtype)
    if isinstance(space, spaces.Box):
        return _box_adapter(space, squash)
    raise unsupported(space, "action", ["Discrete", "MultiDiscrete", "MultiBinary", "Box", "Dict", "Tuple"])


def _box_adapter(space: spaces.Box, squash: bool) -> Callable[[Array], Array]:
    low, high, shape, dtype = space.low, space.high, space.shape, space.dtype
    integral = np.issubdtype(dtype, np.integer)
    span = (
        np.float64 if integral else dtype
    )  # the bounds of small integers may lie further apart than they count

    def adapt(actions: Array) -> Array:
        actions = actions.reshape(-1, *shape)
        if squash:
            actions = low + (np.tanh(actions) + 1) / 2 * np.subtract(high, low, dtype=span)
        return np.clip(np.rint(actions) if integral else actions, low, high).astype(dtype)

    return adapt


def _packed_adapter(space: PackedActions, squash: bool) -> Callable[[Array], Array]:
    """The parts' adapters side by side, for rows of numbers [N, size]."""
    adapters = [action_adapter(part, squash) for part in space.parts]
    cuts = np.cumsum(space.sizes)[:-1]

    def adapt(actions: Array) -> Array:
        columns = zip(adapters, np.split(actions, cuts, axis=-1), strict=True)
        parts = [adapter(column).reshape(len(actions), -1) for adapter, column in columns]
        return np.concatenate(parts, axis=-1, dtype=np.float64)

    return adapt
