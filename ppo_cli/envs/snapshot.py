"""Snapshots: an environment in mid-episode as plain values, and back, bit for bit.

A snapshot is the start of the running episode and the actions since, which are replayed through the whole
stack of wrappers. There are three kinds, and `find_kind` tries which one an environment allows:

- ``own``: the start is the environment's own clone of its state (`clone_state` and `restore_state`, as ALE
  has them). ALE's clone forgets the last action, which sticky actions repeat; at an episode's start there is
  none to forget.
- ``replay``: the start is the state of its generator before the reset, or the seed.
- ``restart``: neither brings it back, so that environments are made anew at every scheduled checkpoint.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from ppo_cli.envs.make import EnvFn

Array = npt.NDArray[Any]
Env = gym.Env[Any, Any]
Kind = Literal["own", "replay", "restart"]

# What `find_kind` steps through: two episodes, the beginning of a third, and the steps that it compares.
EPISODE_STEPS, LEAD_STEPS, COMPARED_STEPS = 50, 25, 100


class SnapshotError(ValueError):
    """An environment did not come back to where it was; the message is one line."""


def start_episode(
    env: Env, seed: int | None, kind: Kind, options: dict[str, Any] | None = None
) -> tuple[Any, dict[str, Any]]:
    """Resets ``env``.

    Returns:
        The first observation, and what `replay` needs to know of the episode that begins.
    """
    if kind == "own":
        observation, _ = env.reset(seed=seed, options=options)
        return observation, {"clone": _clone(env), "generator": _generator(env)}
    start: dict[str, Any] = {}
    if kind == "replay":
        start = {"generator": _generator(env)} if seed is None else {"seed": seed}
    return env.reset(seed=seed, options=options)[0], start


def replay(env: Env, start: Mapping[str, Any], actions: Array) -> Any:  # noqa: ANN401
    """Brings a fresh environment to where the actions [K, *shape] since an episode's start lead.

    Returns:
        The observation there, or None where a clone of the start tells none.

    Raises:
        SnapshotError: the episode ends on the way, which it did not.
    """
    observation, _ = env.reset(seed=start.get("seed", 0))
    if "generator" in start:
        env.unwrapped.np_random.bit_generator.state = _array(start["generator"])
        if "clone" in start:
            _restore(env, start["clone"])
            observation = None
        else:
            observation, _ = env.reset()
    for action in actions:
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            raise SnapshotError("a replayed episode ended before the point at which it was saved")
    return observation


def find_kind(make: EnvFn) -> Kind:
    """The best kind of snapshot that brings this environment back, found out by doing it.

    One environment goes through two resets and some way into the third episode. A fresh one is brought
    there; from then on both must return the same, to the bit and past the episode's end.
    """
    kinds: tuple[Kind, ...] = ("own", "replay")
    for kind in kinds:
        with contextlib.suppress(Exception):  # it may refuse in any way; what does not work is not used
            if _reproduces(make, kind):
                return kind
    return "restart"


def _reproduces(make: EnvFn, kind: Kind) -> bool:
    first, second = make(), make()
    try:
        space = first.action_space
        space.seed(0)
        first.reset(seed=1)
        for _ in range(2):
            for _ in range(EPISODE_STEPS):
                if any(first.step(space.sample())[2:4]):
                    break
            _, start = start_episode(first, None, kind)
        actions: list[Any] = []
        for _ in range(LEAD_STEPS):
            actions.append(space.sample())
            if any(first.step(actions[-1])[2:4]):
                _, start = start_episode(first, None, kind)
                actions = []
        replay(second, start, np.asarray(actions, space.dtype))
        return all(_same_step(first, second, space.sample()) for _ in range(COMPARED_STEPS))
    finally:
        first.close()
        second.close()


def _same_step(first: Env, second: Env, action: Any) -> bool:  # noqa: ANN401
    (one, *rest), (other, *others) = first.step(action)[:4], second.step(action)[:4]
    if not (_same(one, other) and rest == others):
        return False
    return not (rest[1] or rest[2]) or _same(first.reset()[0], second.reset()[0])


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401
    return np.asarray(one).tobytes() == np.asarray(other).tobytes()


def _clone(env: Env) -> Any:  # noqa: ANN401 - a plain value
    """The environment's own copy of its state; an object that pickles to bytes becomes an array of them."""
    state: Any = env.unwrapped.clone_state(include_rng=True)  # type: ignore[attr-defined]
    if isinstance(state, (np.ndarray, Mapping)):
        return _plain(state)
    return np.frombuffer(state if isinstance(state, bytes) else state.__getstate__(), np.uint8).copy()


def _restore(env: Env, clone: Any) -> None:  # noqa: ANN401
    state: Any = _array(clone)
    template: Any = env.unwrapped.clone_state(include_rng=True)  # type: ignore[attr-defined]
    if isinstance(template, bytes):
        state = state.tobytes()
    elif not isinstance(template, (np.ndarray, Mapping)):
        own: Any = type(template)  # the class is the environment's, never the file's
        filled = own.__new__(own)
        filled.__setstate__(state.tobytes())
        state = filled
    env.unwrapped.restore_state(state)  # type: ignore[attr-defined]


def _generator(env: Env) -> Any:  # noqa: ANN401
    return _plain(env.unwrapped.np_random.bit_generator.state)


def _plain(state: Any) -> Any:  # noqa: ANN401
    """A copy that later draws leave alone; integers of 128 bits as text, which every reader keeps whole."""
    if isinstance(state, Mapping):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, int) and state.bit_length() > 63:
        return f"int:{state}"
    return state.copy() if isinstance(state, np.ndarray) else state


def _array(value: Any) -> Any:  # noqa: ANN401
    """The inverse of `_plain` for what a checkpoint gives back, where arrays are tensors."""
    if isinstance(value, Mapping):
        return {key: _array(item) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("int:"):
        return int(value[4:])
    return value.numpy() if hasattr(value, "numpy") else value
