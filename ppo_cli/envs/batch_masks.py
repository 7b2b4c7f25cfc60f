"""Masks that a vector of environments gives in its infos: of legal actions, and of who acts at all."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from ppo_cli.envs.batch_infos import mask_of
from ppo_cli.envs.pack import as_array, flat_mask
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
                f"infos without an 'action_mask' of environment {lacking.argmax()}; set env.action_mask=false "
                "to ignore masks"
            )
        self._rows[rows] = 1
        if told.any():
            self._rows[told] = self._flat(given)[told]

    def _flat(self, given: Any) -> npt.NDArray[np.bool_]:  # noqa: ANN401
        """Masks in one row each; a tuple, or an array of objects, holds one an environment."""
        masks = np.zeros(self._rows.shape, np.bool_)
        values = given if isinstance(given, (list, tuple)) else as_array(given)
        if getattr(values, "dtype", None) == object or isinstance(values, (list, tuple)):
            for i, value in enumerate(values):
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
    if not isinstance(whole, PackedObservations) or (isinstance(single, gym.spaces.Dict) and MASK in single):
        return None
    size = sum(int(np.prod(leaf.shape)) for leaf in whole.leaves if leaf.is_mask and leaf.path == (MASK,))
    return AddedMasks(n, size, isinstance(single, gym.spaces.Dict)) if size else None


def active_of(infos: Mapping[str, Any], n: int) -> Mask | None:
    """Whose next step is a transition, bool [N]; None where infos do not say.

    Raises:
        ValueError: they say it in no such array.
    """
    given = infos.get(ACTIVE)
    if given is None:
        return None
    active = np.array(as_array(given))
    if active.shape != (n,) or active.dtype.kind not in "bui":
        raise ValueError(f"an {ACTIVE} of shape {active.shape} and {active.dtype}: expected bool of ({n},)")
    told = mask_of(ACTIVE, infos, n)
    found: Mask = active.astype(np.bool_)
    return found if told is None else found | ~told
