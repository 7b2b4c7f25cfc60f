"""Observations of N environments that come at once, as one array: checked, nested ones packed."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from ppo_cli.arrays import NUMPY, Array, Arrays, as_array
from ppo_cli.envs.batch_masks import AddedMasks
from ppo_cli.envs.pack import ObservationCheck, mask_components
from ppo_cli.spaces import PackedObservations, leaves_of

UNFINITE = "a NaN or an infinity in the observation of {}"
ILLEGAL = "an action_mask without a legal action for {}"


class ObservationBatch:
    """Turns what a vector of environments returns as observations into one array, [N, *shape].

    What can't be kept as it is, an observation that is not finite and a mask without a legal action are
    refused, as they are of single environments.
    """

    def __init__(
        self, space: gym.Space[Any], actions: gym.Space[Any], n: int, masks: AddedMasks | None = None
    ) -> None:
        """Takes what it needs of the spaces.

        Args:
            space: The space of one environment's observation, packed where it is nested.
            actions: The space of its actions.
            n: The number of environments N.
            masks: The masks that stand beside the observations and become part of them, where there are any.
        """
        self._space = space
        self._masks = masks
        self._n = n
        self._leaves = [
            (leaf, ObservationCheck(batch_space(leaf.space, n), leaf.dtype, leaf.key))
            for leaf in leaves_of(space)
        ]
        self._is_masked = any(leaf.is_mask for leaf, _ in self._leaves)
        self._components = mask_components(actions)

    def __call__(self, observations: Any, ended: Array) -> Array:  # noqa: ANN401 - as the vector has them
        """The observations as one array; a nested one's is new.

        Args:
            observations: What the vector returned.
            ended: The environments whose episode ended there, bool [N]: they need no legal action.

        Raises:
            ValueError: one of them can't be kept, or is not finite.
        """
        if self._masks is not None:
            observations = self._masks(observations)
        if isinstance(self._space, PackedObservations):
            rows = self._packed(self._space, observations, ended)
            reals = rows[:, : self._space.real_bytes].view(np.float32)
        else:
            ((_, check),) = self._leaves
            rows = reals = np.asarray(check(observations), self._space.dtype)
        if reals.dtype.kind == "f" and not np.isfinite(reals).all():
            NUMPY.require(np.isfinite(reals.reshape(self._n, -1)).all(1), UNFINITE)
        return rows

    def take_masks(self, infos: Any, rows: Array, may_lack: Array) -> None:  # noqa: ANN401
        """Takes the masks of some environments from infos; see `AddedMasks.take`."""
        if self._masks is not None:
            self._masks.take(infos if isinstance(infos, dict) else {}, rows, may_lack)

    def _packed(self, space: PackedObservations, observations: Any, ended: Array) -> Array:  # noqa: ANN401
        rows = np.zeros((self._n, *space.shape), np.uint8)
        masks = []
        for (leaf, check), view in zip(self._leaves, space.views(rows), strict=True):
            value = leaf.of(observations)
            view[...] = check(as_array(value) > 0 if leaf.is_mask else value)
            if leaf.is_mask:
                masks.append(view.reshape(self._n, -1))
        if masks:
            legal = np.logical_or.reduceat(np.concatenate(masks, axis=1), self._components, axis=1).all(1)
            NUMPY.require(legal | ended, ILLEGAL)
        return rows


def chosen(
    space: gym.Space[Any],
    found: Any,  # noqa: ANN401
    ended: Array,
    others: Any,  # noqa: ANN401
    arrays: Arrays = NUMPY,
) -> Any:  # noqa: ANN401
    """True final observations where episodes ended, else the others' observations, nested as the space is.

    Args:
        space: The space of one environment's observation.
        found: What ``infos["final_obs"]`` is, of which only rows of ``ended`` are meaningful: Gymnasium's
            vectors have arrays there, but of nested ones an array of objects, one an environment.
        ended: The environments whose episode ended, bool [N].
        others: The observations that came with it.
        arrays: What is done with arrays of their kind.
    """
    if isinstance(found, np.ndarray) and found.dtype == object:
        n = len(ended)
        rows = zip(found, ended, iterate(batch_space(space, n), others), strict=True)
        room: Any = create_empty_array(space, n)
        return concatenate(space, [last if over else row for last, over, row in rows], room)
    if isinstance(space, gym.spaces.Dict):
        return {key: chosen(part, found[key], ended, others[key], arrays) for key, part in space.items()}
    if isinstance(space, gym.spaces.Tuple):
        parts = zip(space, found, others, strict=True)
        return tuple(chosen(part, last, ended, row, arrays) for part, last, row in parts)
    last, row = arrays.of(found), arrays.of(others)
    return arrays.where(ended.reshape(-1, *[1] * (row.ndim - 1)), last, row)


def row_of(space: gym.Space[Any], batch: Any, i: int) -> Any:  # noqa: ANN401
    """The observation of environment i in those of a vector, a copy, nested as the space is."""
    if isinstance(batch, np.ndarray) and batch.dtype == object:
        return batch[i]
    if isinstance(space, gym.spaces.Dict):
        return {key: row_of(part, batch[key], i) for key, part in space.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(row_of(part, rows, i) for part, rows in zip(space, batch, strict=True))
    return np.array(as_array(batch)[i])[()]
