"""Wrappers that stand last: action masks become observations, nested spaces become flat rows."""

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from ppo_cli.arrays import as_array
from ppo_cli.envs.calls import Call, calling, let_interrupt_pass
from ppo_cli.spaces import MASK, PackedActions, PackedObservations, is_nested, random_action

Env = gym.Env[Any, Any]

MaskSource = Literal["info", "method", "step", "none"]

MASK_TRIAL = 8  # steps at random in which `find_mask` looks for a mask
MASKABLE = (spaces.Discrete, spaces.MultiDiscrete)  # action spaces


class ObservedMask(gym.Wrapper[Any, Any, Any, Any]):
    """Puts the mask that an environment gives beside its observation into it, beside what was there.

    That is ``info["action_mask"]``, or where there is none what `mask_method` returns. Where the first reset
    gives none, no reset has to, and every action is legal until a step gives one.
    """

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
        self._method = mask_method(env)
        self._begins_late: bool | None = None
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
        if self._begins_late is None:
            self._begins_late = self._method is None and info.get(MASK) is None
        return self._with_mask(obs, info, self._begins_late), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Steps, with the mask of the next action in the observation."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        ended = bool(terminated or truncated)  # no action follows
        return self._with_mask(obs, info, ended, ended), reward, terminated, truncated, info

    def _with_mask(
        self,
        obs: Any,  # noqa: ANN401
        info: dict[str, Any],
        may_lack: bool,
        ended: bool = False,
    ) -> dict[str, Any]:
        mask = info.get(MASK)
        if mask is None and self._method is not None and not ended:
            mask = self._method()
        if mask is None and may_lack:
            mask = np.ones(self._n, np.int8)
        elif mask is None:
            raise ValueError("info without an 'action_mask'; set env.action_mask=false to ignore masks")
        parts = obs if self._joins else {"observation": obs}
        return {**parts, MASK: flat_mask(mask)}


def flat_mask(mask: Any) -> Any:  # noqa: ANN401
    """A mask in one row; tuples hold one a component, as `MultiDiscrete.sample` takes them."""
    if isinstance(mask, (tuple, list)):
        return np.concatenate([flat_mask(part) for part in mask])
    return np.ravel(as_array(mask))


def mask_components(space: spaces.Space[Any]) -> Any:  # noqa: ANN401
    """Where in a mask in one row each component of an action begins, [D]."""
    nvec = space.nvec.ravel() if isinstance(space, spaces.MultiDiscrete) else np.zeros(1, np.int64)
    return np.cumsum(nvec) - nvec


def mask_method(env: Env) -> Callable[[], Any] | None:
    """The method ``action_masks`` of an environment or of a wrapper of it, which sb3-contrib looks for."""
    method = env.get_wrapper_attr("action_masks") if env.has_wrapper_attr("action_masks") else None
    return method if callable(method) else None


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
            checks = [ObservationCheck(leaf.space, leaf.dtype, leaf.key) for leaf in leaves]
            self._places = list(zip(leaves, views, checks, strict=True))
            self._masks = [view for leaf, view, _ in self._places if leaf.is_mask]
            self._components = mask_components(space)
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
        for leaf, view, checked in self._places:
            value = leaf.of(obs)
            view[...] = checked(as_array(value) > 0 if leaf.is_mask else value)
        if self._masks and not ended:
            self._check_mask()
        if not np.isfinite(self._row[: self._observations.real_bytes].view(np.float32)).all():
            raise ValueError("a NaN or an infinity in its observation")
        return self._row.copy()

    def _check_mask(self) -> None:
        mask = np.concatenate([view.ravel() for view in self._masks])
        if not np.logical_or.reduceat(mask, self._components).all():
            raise ValueError(f"an {MASK} without a legal action, before the episode's end")


class ObservationCheck:
    """Holds observations of one space against what is kept of them: their shape, their kind, their range.

    What would be kept as another number is refused: an integer that the space's dtype can't hold, a fraction
    where the space has integers, an index outside Discrete or MultiDiscrete.
    """

    def __init__(self, space: spaces.Space[Any], kept: Any = None, key: str = "") -> None:  # noqa: ANN401
        """Takes what it needs of a space.

        Args:
            space: The space of the observations.
            kept: The dtype in which they are kept; None for the space's own.
            key: The place at which it stands in a nested observation, for messages.
        """
        self._shape = tuple(space.shape or ())
        self._kept = np.dtype(space.dtype if kept is None else kept)
        self._fitting = {self._kept}  # dtypes whose every value can be kept, or is looked at below
        self._range = index_range(space)
        self._named = f"an observation {key!r}" if key else "an observation"

    def __call__(self, obs: Any) -> Any:  # noqa: ANN401
        """The observation; an array where it was a tensor or a list.

        Raises:
            ValueError: it can't be kept as it is; one line.
        """
        if not isinstance(obs, (np.ndarray, np.generic, int)):
            obs = as_array(obs)
        if np.shape(obs) != self._shape:
            raise ValueError(f"{self._named} of shape {np.shape(obs)}, where its space says {self._shape}")
        dtype = np.dtype(type(obs)) if isinstance(obs, int) else obs.dtype
        if dtype not in self._fitting and self._fits(dtype, obs):
            self._fitting.add(dtype)
        if self._range is not None:
            low, high = self._range
            # Discrete at every step: plain comparisons take a fraction of NumPy's time
            inside = low <= obs <= high if isinstance(low, int) else ((low <= obs) & (obs <= high)).all()
            if not inside:
                raise ValueError(f"{self._named} of {obs}, where its space has {low} to {high}")
        return obs

    def _fits(self, dtype: np.dtype[Any], obs: Any) -> bool:  # noqa: ANN401
        """Whether every value of that dtype can be kept; where only some can, those of ``obs`` are tried."""
        kept = self._kept
        if np.can_cast(dtype, kept, "same_kind") and (kept.kind not in "iu" or np.can_cast(dtype, kept)):
            return True
        if dtype.kind not in "iub" or kept.kind not in "iub":
            raise ValueError(f"{self._named} of dtype {dtype}, where its space says {kept}")
        if kept.kind == "b" or self._range is not None:  # any number is true or false; indices have a range
            return True
        low, high = np.iinfo(kept).min, np.iinfo(kept).max
        if np.size(obs) and not (low <= np.min(obs) and np.max(obs) <= high):
            wrong = np.min(obs) if np.min(obs) < low else np.max(obs)
            raise ValueError(f"{self._named} with {wrong}, where its space says {kept}: {low} to {high}")
        return False


def index_range(space: spaces.Space[Any]) -> tuple[Any, Any] | None:
    """Lowest and highest index of a Discrete or MultiDiscrete space; None for any other."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        start = space.start.astype(np.int64)  # the space's own integers may be too small for a sum
        return start, start + space.nvec - 1
    return None


def sample_action(env: Env) -> Any:  # noqa: ANN401
    """A random action for an environment that has been reset: a legal one where it says which are."""
    return env.legal_action() if isinstance(env, Packed) else env.action_space.sample()


def pack(env: Env, mask_from_info: bool) -> Env:
    """The environment with flat spaces and, where that is asked for, its masks in the observation."""
    if mask_from_info:
        env = ObservedMask(env)
    if is_nested(env.observation_space) or is_nested(env.action_space):
        env = Packed(env)
    return env


def find_mask(env: Env) -> MaskSource | None:
    """Where an environment says, beside its observation, which actions are legal; found out by trying it.

    Returns:
        ``info``: a reset's info holds a mask; ``method``: `mask_method` finds one; ``step``: only infos of
        steps do; ``none`` of these; None where a reset raises.
    """
    try:
        with calling(Call.RESET):
            info = env.reset(seed=0)[1]
        if MASK in info:
            return "info"
        if mask_method(env) is not None:
            return "method"
    except BaseException as error:  # training says so, or goes on, as env.on_error wants it
        let_interrupt_pass(error)
        return None
    with contextlib.suppress(Exception, SystemExit):  # such as of an action that a mask would have forbidden
        env.action_space.seed(0)
        for _ in range(MASK_TRIAL):
            with calling(Call.STEP):
                *_, terminated, truncated, info = env.step(sample_action(env))
            if MASK in info:
                return "step"
            if terminated or truncated:
                with calling(Call.RESET):
                    env.reset()
    return "none"
