"""Masks that a vector of environments gives in its infos: of legal actions, and of who acts at all."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from ppo_cli.envs.batch_infos import mask_of
from ppo_cli.envs.pack import flat_mask
from ppo_cli.spaces import MASK, PackedObservations, Spaces

Mask = npt.NDArray[np.bool_]

ACTIVE = "active_mask"  # the key that says whose next step is a transition


class AddedMasks:
    """Puts the masks that stand in infos into the observations, as `pack.ObservedMask` does of one."""

    def __init__(self, n: int, size: int, joins: bool) -> None:
        """Begins with every action legal.

        Args:
            n: The number of environments N.
            size: The number of entries of a mask.
            joins: Whether the observations are a Dict, which they join; else they become one.
        """
        self._rows = np.ones((n, size), np.int8)
        self._joins = joins

    def take(self, infos: Mapping[str, Any], rows: Mask, may_lack: Mask) -> None:
        """Takes those of some environments from infos.

        Args:
            infos: The infos of a vector.
            rows: The environments, bool [N].
            may_lack: Those that need none, for which every action is legal then, bool [N].

        Raises:
            ValueError: another has none.
        """
        given = infos.get(MASK)
        told = rows & False
        if given is not None:
            mask = mask_of(MASK, infos, len(rows))
            told = rows if mask is None else rows & mask
        if (lacking := rows & ~told & ~may_lack).any():
            raise ValueError(
                f"infos without an 'action_mask' of environment {lacking.argmax()}; set "
                "env.action_mask=false to ignore masks"
            )
        self._rows[rows] = 1
        if told.any():
            self._rows[told] = self._flat(given)[told]

    def _flat(self, given: Any) -> npt.NDArray[np.bool_]:  # noqa: ANN401
        """Masks in one row each; a tuple, or an array of objects, holds one an environment."""
        masks = np.zeros(self._rows.shape, np.bool_)
        values = None if isinstance(given, (list, tuple)) else as_array(given)
        if values is None or values.dtype.kind == "O":
            for i, value in enumerate(given):
                if value is not None:
                    masks[i] = flat_mask(value) > 0
            return masks
        if values.size != masks.size:
            raise ValueError(f"an action_mask of shape {values.shape}, where {masks.shape} is expected")
        return np.reshape(values > 0, masks.shape)

    def __call__(self, observations: Any) -> dict[str, Any]:  # noqa: ANN401
        """The observations with their masks."""
        parts = observations if self._joins else {"observation": observations}
        return {**parts, MASK: self._rows}


def added_masks(spaces: Spaces, single: gym.Space[Any], n: int) -> AddedMasks | None:
    """What adds masks to the observations of N environments, where theirs have none and the run's do.

    Args:
        spaces: The spaces of a run.
        single: The space of one environment's observation in the vector.
        n: The number of environments.
    """
    whole = spaces.observation_space
    if not isinstance(whole, PackedObservations) or (
        isinstance(single, gym.spaces.Dict) and MASK in single.spaces
    ):
        return None
    size = sum(int(np.prod(leaf.shape)) for leaf in whole.leaves if leaf.is_mask and leaf.path == (MASK,))
    return AddedMasks(n, size, isinstance(single, gym.spaces.Dict)) if size else None


class Activity:
    """Whose steps are transitions, in a vector of N environments.

    Not those that only reset, in `AutoresetMode.NEXT_STEP`, and not those of who is not active: where infos
    hold `ACTIVE`, bool [N], beside observations, the others wait for their next episode, such as agents that
    have died before the others of their world.

    Attributes:
        idle: Whose next step is no transition, bool [N].
    """

    def __init__(self, n: int, mode: AutoresetMode) -> None:
        """Begins with everybody active."""
        self._mode, self._fills = mode, mode == AutoresetMode.NEXT_STEP
        self._nobody = self.idle = self._over = np.zeros(n, np.bool_)

    def begin(self, infos: Mapping[str, Any]) -> None:
        """Takes in the infos of a reset of all.

        Raises:
            ValueError: they are of no form that is understood.
        """
        active = self._active(infos)
        self.idle = self._nobody if active is None else ~active

    def step(
        self, terminated: Mask, truncated: Mask, infos: Mapping[str, Any]
    ) -> tuple[Mask, Mask, dict[str, Mask]]:
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
        if self._fills and active is None and (twice := filler & self._over & (terminated | truncated)).any():
            raise ValueError(f"an end in the step that only resets environment {twice.argmax()}")
        terminated &= ~filler
        truncated &= ~filler
        self._over = ended = terminated | truncated
        away = self._nobody if active is None else ~active
        if (gone := away & ~ended & ~filler).any():
            raise ValueError(f"an {ACTIVE} without environment {gone.argmax()}, whose episode has not ended")
        self.idle = away | ended if self._fills else away
        is_told = self._fills or active is not None or filler.any()
        return filler, ended, {"filler": filler, "idle": self.idle} if is_told else {}

    def _active(self, infos: Mapping[str, Any]) -> Mask | None:
        """Whose next step is a transition as infos say it, bool [N]; None where they do not."""
        given, n = infos.get(ACTIVE), len(self._nobody)
        if given is None:
            return None
        if self._mode == AutoresetMode.DISABLED:
            raise ValueError(f"an {ACTIVE}, which goes with autoreset modes NEXT_STEP and SAME_STEP")
        active = np.array(as_array(given))
        if active.shape != (n,) or active.dtype.kind not in "bui":
            raise ValueError(
                f"an {ACTIVE} of shape {active.shape} and {active.dtype}: expected bool of ({n},)"
            )
        told = mask_of(ACTIVE, infos, n)
        found: Mask = active.astype(np.bool_)
        return found if told is None else found | ~told
