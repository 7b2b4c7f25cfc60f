"""Masks that a vector of environments gives in its infos: of legal actions, and of who acts at all."""

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from ppo_cli.arrays import NUMPY, Array, Arrays, as_array
from ppo_cli.envs.batch_infos import mask_of
from ppo_cli.envs.pack import flat_mask
from ppo_cli.spaces import MASK, PackedObservations, Spaces

ACTIVE = "active_mask"  # the key that says whose next step is a transition


class AddedMasks:
    """Puts the masks that stand in infos into the observations, as `pack.ObservedMask` does of one."""

    def __init__(self, n: int, size: int, joins: bool, arrays: Arrays = NUMPY) -> None:
        """Begins with every action legal.

        Args:
            n: The number of environments N.
            size: The number of entries of a mask.
            joins: Whether the observations are a Dict, which they join; else they become one.
            arrays: What is done with arrays of their kind.
        """
        self._arrays = arrays
        self._rows = ~arrays.zeros((n, size), "bool")
        self._joins = joins

    def take(self, infos: Mapping[str, Any], rows: Array, may_lack: Array) -> None:
        """Takes those of some environments from infos.

        Args:
            infos: The infos of a vector.
            rows: The environments, bool [N].
            may_lack: Those that need none, for which every action is legal then, bool [N].

        Raises:
            ValueError: another has none.
        """
        given, arrays = infos.get(MASK), self._arrays
        told = rows & False
        if given is not None:
            mask = mask_of(MASK, infos, len(rows), arrays)
            told = rows if mask is None else rows & mask
        arrays.require(
            ~rows | told | may_lack,
            "infos without an 'action_mask' of {}; set env.action_mask=false to ignore masks",
        )
        self._rows = self._rows | rows.reshape(-1, 1)
        if given is not None:
            self._rows = arrays.where(told.reshape(-1, 1), self._flat(given), self._rows)

    def _flat(self, given: Any) -> Array:  # noqa: ANN401
        """Masks in one row each; a tuple, or an array of objects, holds one an environment."""
        shape = tuple(self._rows.shape)
        if isinstance(given, (list, tuple)) or (isinstance(given, np.ndarray) and given.dtype.kind == "O"):
            masks = np.zeros(shape, np.bool_)
            for i, value in enumerate(given):
                if value is not None:
                    masks[i] = flat_mask(value) > 0
            return self._arrays.of(masks)
        values = self._arrays.of(given)
        if math.prod(values.shape) != math.prod(shape):
            raise ValueError(f"an action_mask of shape {tuple(values.shape)}, where {shape} is expected")
        return (values > 0).reshape(shape)

    def __call__(self, observations: Any) -> dict[str, Any]:  # noqa: ANN401
        """The observations with their masks."""
        parts = observations if self._joins else {"observation": observations}
        return {**parts, MASK: self._rows}


def added_masks(spaces: Spaces, single: gym.Space[Any], n: int, arrays: Arrays = NUMPY) -> AddedMasks | None:
    """What adds masks to the observations of N environments, where theirs have none and the run's do.

    Args:
        spaces: The spaces of a run.
        single: The space of one environment's observation in the vector.
        n: The number of environments.
        arrays: What is done with arrays of their kind.
    """
    whole = spaces.observation_space
    if not isinstance(whole, PackedObservations) or (
        isinstance(single, gym.spaces.Dict) and MASK in single.spaces
    ):
        return None
    size = sum(int(np.prod(leaf.shape)) for leaf in whole.leaves if leaf.is_mask and leaf.path == (MASK,))
    return AddedMasks(n, size, isinstance(single, gym.spaces.Dict), arrays) if size else None


class Activity:
    """Whose steps are transitions, in a vector of N environments.

    Not those that only reset, in `AutoresetMode.NEXT_STEP`, and not those of who is not active: where infos
    hold `ACTIVE`, bool [N], beside observations, the others wait for their next episode, such as agents that
    have died before the others of their world.

    Attributes:
        idle: Whose next step is no transition, bool [N].
    """

    def __init__(self, n: int, mode: AutoresetMode, arrays: Arrays = NUMPY) -> None:
        """Begins with everybody active."""
        self._mode, self._fills = mode, mode == AutoresetMode.NEXT_STEP
        self._arrays = arrays
        self._nobody = self.idle = self._over = arrays.zeros(n, "bool")

    def begin(self, infos: Mapping[str, Any]) -> None:
        """Takes in the infos of a reset of all.

        Raises:
            ValueError: they are of no form that is understood.
        """
        active = self._active(infos)
        self.idle = self._nobody if active is None else ~active

    def step(
        self, terminated: Array, truncated: Array, infos: Mapping[str, Any]
    ) -> tuple[Array, Array, dict[str, Array]]:
        """Takes in a step.

        Args:
            terminated: Whose episodes ended in a terminal state, bool [N]; ends of who was not active, which
                some repeat until the next episode, are taken out of it.
            truncated: Whose were cut, likewise.
            infos: The infos of the step.

        Returns:
            Whose step was no transition, whose episode ended, and what to tell of it.

        Raises:
            ValueError: an environment ends or pauses where none can.
        """
        filler, active = self.idle, self._active(infos)
        if self._fills and active is None:
            twice = filler & self._over & (terminated | truncated)
            self._arrays.require(~twice, "an end in the step that only resets {}")
        terminated &= ~filler
        truncated &= ~filler
        self._over = ended = terminated | truncated
        away = self._nobody if active is None else ~active
        if active is not None:
            gone = away & ~ended & ~filler
            self._arrays.require(~gone, f"an {ACTIVE} without {{}}, whose episode has not ended")
        self.idle = away | ended if self._fills else away
        is_told = self._fills or active is not None or self._arrays.is_any(filler)
        return filler, ended, {"filler": filler, "idle": self.idle} if is_told else {}

    def _active(self, infos: Mapping[str, Any]) -> Array | None:
        """Whose next step is a transition as infos say it, bool [N]; None where they do not."""
        given, n = infos.get(ACTIVE), len(self._nobody)
        if given is None:
            return None
        if self._mode == AutoresetMode.DISABLED:
            raise ValueError(f"an {ACTIVE}, which goes with autoreset modes NEXT_STEP and SAME_STEP")
        active = self._arrays.numbers(given, n)
        if active is None or self._arrays.kind(active) == "f":
            form = as_array(given)
            raise ValueError(f"an {ACTIVE} of shape {form.shape} and {form.dtype}: expected bool of ({n},)")
        told = mask_of(ACTIVE, infos, n, self._arrays)
        found = self._arrays.own(active, "bool")
        return found if told is None else found | ~told
