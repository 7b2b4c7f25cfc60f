"""Wrappers that stand last: action masks become observations, nested spaces become flat rows."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from ppo_cli.envs.calls import Call, calling, let_interrupt_pass
from ppo_cli.packing import MASK, Leaf, PackedActions, PackedObservations, is_nested, random_action

Env = gym.Env[Any, Any]

MASKABLE = (spaces.Discrete, spaces.MultiDiscrete)  # action spaces


class MaskFromInfo(gym.Wrapper[Any, Any, Any, Any]):
    """Puts ``info["action_mask"]`` into the observation, beside what was there."""

    def __init__(self, env: Env) -> None:
        """Extends the observation space.

        Raises:
            ValueError: the action space is neither Discrete nor MultiDiscrete.
        """
        super().__init__(env)
        space = env.action_space
        if isinstance(space, spaces.Discrete):
            n = int(space.n)
        elif isinstance(space, spaces.MultiDiscrete):
            n = int(space.nvec.sum())
        else:
            raise ValueError(f"env.action_mask=true needs Discrete or MultiDiscrete actions, given {space}")
        inner = env.observation_space
        self._joins = isinstance(inner, spaces.Dict)
        self._n = n
        parts = dict(inner.items()) if isinstance(inner, spaces.Dict) else {"observation": inner}
        self.observation_space = spaces.Dict({**parts, MASK: spaces.MultiBinary(n)})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets, with the mask of the first action in the observation."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(obs, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Steps, with the mask of the next action in the observation."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        ended = bool(terminated or truncated)
        return self._with_mask(obs, info, ended), reward, terminated, truncated, info

    def _with_mask(self, obs: Any, info: dict[str, Any], ended: bool = False) -> dict[str, Any]:  # noqa: ANN401
        mask = info.get(MASK)
        if mask is None and ended:  # no action follows
            mask = np.ones(self._n, np.int8)
        elif mask is None:
            raise ValueError("info without an 'action_mask'; set env.action_mask=false to ignore masks")
        parts = obs if self._joins else {"observation": obs}
        return {**parts, MASK: _flat(mask)}


def _flat(mask: Any) -> Any:  # noqa: ANN401
    """A mask in one row; tuples hold one a component, as `MultiDiscrete.sample` takes them."""
    return np.concatenate([_flat(part) for part in mask]) if isinstance(mask, tuple) else np.ravel(mask)


class Packed(gym.Wrapper[Any, Any, Any, Any]):
    """Packs nested observations into rows of bytes, and unpacks nested actions."""

    def __init__(self, env: Env) -> None:
        """Replaces the spaces.

        Raises:
            ValueError: a space has a leaf of an unsupported kind.
        """
        super().__init__(env)
        self._observations: PackedObservations | None = None
        self._row = np.zeros(0, np.uint8)
        self._actions: PackedActions | None = None
        if isinstance(env.observation_space, (spaces.Dict, spaces.Tuple)):
            space = env.action_space
            inner = PackedObservations(env.observation_space, isinstance(space, MASKABLE))
            self.observation_space = self._observations = inner
            self._row = np.zeros(self._observations.shape, np.uint8)
            leaves, views = self._observations.leaves, self._observations.views(self._row)
            ranges = [index_range(leaf.space) for leaf in leaves]
            self._places = list(zip(leaves, views, ranges, strict=True))
            self._masks = [view for leaf, view, _ in self._places if leaf.is_mask]
            nvec = space.nvec.ravel() if isinstance(space, spaces.MultiDiscrete) else np.zeros(1, np.int64)
            self._components = np.cumsum(nvec) - nvec  # where each one's mask begins
        if isinstance(env.action_space, (spaces.Dict, spaces.Tuple)):
            self.action_space = self._actions = PackedActions(env.action_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets; the observation packed."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._pack(obs, False), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Steps with the action unpacked; the observation packed."""
        if self._actions is not None:
            action = self._actions.nested(action)
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._pack(obs, terminated or truncated), reward, terminated, truncated, info

    def legal_action(self) -> Any:  # noqa: ANN401
        """A random action that the last observation's mask, if it has one, allows."""
        return random_action(self.action_space, self.observation_space, self._row)

    def _pack(self, obs: Any, ended: bool) -> Any:  # noqa: ANN401
        if self._observations is None:
            return obs
        for leaf, view, indices in self._places:
            value = leaf.of(obs)
            if np.shape(value) != view.shape:
                raise ValueError(
                    f"an observation {leaf.key!r} of shape {np.shape(value)}, "
                    f"where its space says {view.shape}"
                )
            check_indices(value, indices, leaf)
            view[...] = np.asarray(value) > 0 if leaf.is_mask else value
        if self._masks and not ended:
            self._check_mask()
        if not np.isfinite(self._row[: self._observations.real_bytes].view(np.float32)).all():
            raise ValueError("a NaN or an infinity in its observation")
        return self._row.copy()

    def _check_mask(self) -> None:
        mask = np.concatenate([view.ravel() for view in self._masks])
        if not np.logical_or.reduceat(mask, self._components).all():
            raise ValueError(f"an {MASK} without a legal action, before the episode's end")


def index_range(space: spaces.Space[Any]) -> tuple[Any, Any] | None:
    """Lowest and highest index of a Discrete or MultiDiscrete space; None for any other."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        start = space.start.astype(np.int64)  # the space's own integers may be too small for a sum
        return start, start + space.nvec - 1
    return None


def check_indices(obs: Any, allowed: tuple[Any, Any] | None, leaf: Leaf | None = None) -> None:  # noqa: ANN401
    """Raises ValueError for an observation that lies outside what `index_range` gave for its space."""
    if allowed is None:
        return
    low, high = allowed
    # Discrete at every step: plain comparisons take a fraction of NumPy's time
    inside = low <= obs <= high if isinstance(low, int) else ((low <= obs) & (obs <= high)).all()
    if not inside:
        which = f" {leaf.key!r}" if leaf is not None else ""
        raise ValueError(f"an observation{which} of {obs}, where its space has {low} to {high}")


def sample_action(env: Env) -> Any:  # noqa: ANN401
    """A random action for an environment that has been reset: a legal one where it says which are."""
    return env.legal_action() if isinstance(env, Packed) else env.action_space.sample()


def pack(env: Env, mask_from_info: bool) -> Env:
    """The environment with flat spaces and, where that is asked for, its masks in the observation."""
    if mask_from_info:
        env = MaskFromInfo(env)
    if is_nested(env.observation_space) or is_nested(env.action_space):
        env = Packed(env)
    return env


def has_info_mask(env: Env) -> bool | None:
    """Whether ``reset`` gives a mask for a discrete action space in its info; None where it raises."""
    if not isinstance(env.action_space, MASKABLE):
        return False
    try:
        with calling(Call.RESET):
            return MASK in env.reset(seed=0)[1]
    except BaseException as error:  # training says so, or goes on, as env.on_error wants it
        let_interrupt_pass(error)
        return None
