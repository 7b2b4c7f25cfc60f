"""Snapshots: an environment in mid-episode as plain values, and back, bit for bit.

A snapshot is a start and the actions since, which are replayed through the whole stack of wrappers; where an
episode ends on the way, the environment is reset as it was then. What kind of start brings an environment
back is tried by `find_kind`:

- ``replay``: every episode is a start, by the state of its generator before the reset, or the seed.
- ``seed``: a start is a reset with a seed of its own, for environments with more that is random than
  ``np_random``. A seed can cost much (ALE loads the game anew, 0.1 s), so that there is one only every
  `RESEED_STEPS`, with the next episode.
- ``anew``: a start is an environment that is made anew, with global generators of its own, and reset with a
  seed; at an episode's end, as rarely as for ``seed``. Nothing lives longer than that in such an environment,
  so that it is taken only where exactness is asked for (``checkpoint.exact``).
- ``none``: nothing brings it back. It is left alone, and a run that goes on begins new episodes.

Whatever the kind, saving only reads: a run is the same whether it saves or not.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from ppo_cli.envs import calls
from ppo_cli.envs.calls import Call, calling, let_interrupt_pass
from ppo_cli.envs.make import EnvFn
from ppo_cli.envs.pack import sample_action
from ppo_cli.seeding import (
    check_twister,
    derived_seed,
    global_states,
    seed_global_generators,
    set_global_states,
)

Array = npt.NDArray[Any]
Env = gym.Env[Any, Any]
SnapshotKind = Literal["replay", "seed", "anew", "none"]

RESEED_STEPS = 4000  # steps since a start from which the next episode is a new one: kinds `seed` and `anew`
MOST_REPLAYED = 50_000  # actions of an environment that are kept; one without an end is not brought back
# What `find_kind` steps through before it compares: 50 steps, in which most environments end an episode or
# two, so that what lives across a reset has moved, and 25 more, which leave it in mid-episode. Every run's
# start waits for them, so they are few; an episode that is longer is cut.
EPISODE_STEPS, LEAD_STEPS, COMPARED_STEPS = 50, 25, 100
SEED_TRIALS = 4  # of kind `seed`: what a Box2D world keeps over a reset shows in some episodes only


class Lost(NamedTuple):
    """An environment that did not come back to where it was and begins a new episode."""

    env: int
    why: str


class OwnGenerators(gym.Wrapper[Any, Any, Any, Any]):
    """An environment made with a seed, whose draws from the global generators disturb no other's.

    Python's, NumPy's and PyTorch's global generators are exchanged for its own while it is made, reset and
    stepped, so that all that is random in it follows from its seed.
    """

    def __init__(self, make: EnvFn, seed: int) -> None:
        """Makes it."""
        outside = global_states()
        try:
            seed_global_generators(seed)
            super().__init__(make())
            self._states = global_states()
        finally:
            set_global_states(outside)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets."""
        with self._exchanged():
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Steps."""
        with self._exchanged():
            return self.env.step(action)

    @contextlib.contextmanager
    def _exchanged(self) -> Iterator[None]:
        outside = global_states()
        set_global_states(self._states)
        try:
            yield
        finally:
            self._states = global_states()
            set_global_states(outside)


def is_over(env: Env) -> bool:
    """Whether a reset of ``env`` now starts from nothing, or (False) goes on with a game's next life."""
    layer = env
    while isinstance(layer, gym.Wrapper):
        if hasattr(layer, "was_real_done"):
            return bool(layer.was_real_done)
        layer = layer.env
    return True


def next_start(kind: SnapshotKind, env: Env, last: Mapping[str, Any], steps: int) -> dict[str, Any] | None:
    """The start that the reset after an environment's own end is to be; None where it belongs to the last.

    Args:
        kind: The kind of snapshot.
        env: The environment before the reset.
        last: The start before.
        steps: The number of steps since then.
    """
    if kind == "replay":
        return {"generator": _plain(env.unwrapped.np_random.bit_generator.state)}
    return _next_seed(last) if kind != "none" and steps >= RESEED_STEPS else None


def seeded_start(seed: int) -> dict[str, Any]:
    """The start that a reset with a seed is."""
    return {"seed": seed, "root": seed, "number": 0}


def _next_seed(last: Mapping[str, Any]) -> dict[str, Any]:
    """The start after ``last``: its seed is a child of the one that the environment was given."""
    root, number = int(last.get("root", 0)), int(last.get("number", 0)) + 1
    return {"seed": derived_seed(root, child=number), "root": root, "number": number}


def replay(env: Env, start: Mapping[str, Any], actions: Array) -> Array:
    """Brings a fresh environment to where the actions [K, *shape] since a start lead.

    Returns:
        The observation there.
    """
    observation = _reset(env, start.get("seed", 0))
    if "generator" in start:
        state = _array(start["generator"])
        if "pos" in state["state"]:
            check_twister(state["state"]["key"], state["state"]["pos"])
        env.unwrapped.np_random.bit_generator.state = state
        observation = _reset(env)
    for action in actions:
        observation, _, over = _step(env, action)
        if over:
            observation = _reset(env)
    return observation


def make_at(kind: SnapshotKind, make: EnvFn, start: Mapping[str, Any]) -> Env:
    """A fresh environment for `replay` to bring to a start."""
    return OwnGenerators(make, int(start["seed"])) if kind == "anew" else make()


def find_kind(make: EnvFn, exact: bool = False, first: Env | None = None) -> SnapshotKind:
    """The best kind of snapshot that brings this environment back, found out by doing it.

    An environment that has been used goes through a reset or two and some way into an episode. A fresh one is
    brought there; from then on both must return the same, to the bit and past an episode's end.

    Args:
        make: The environment's constructor.
        exact: Whether ``anew`` will do.
        first: An environment that it has made, to use as the first; it is closed. None makes one.
    """
    kinds: tuple[SnapshotKind, ...] = ("replay", "seed", "anew") if exact else ("replay", "seed")
    used = [first, None, None]
    return next((kind for kind, env in zip(kinds, used, strict=False) if _works(make, kind, env)), "none")


def _works(make: EnvFn, kind: SnapshotKind, first: Env | None) -> bool:
    try:
        return _reproduces(make, kind, first)
    except BaseException as error:  # it may refuse in any way; what does not work is not used
        let_interrupt_pass(error)
        return False


def _reproduces(make: EnvFn, kind: SnapshotKind, first: Env | None) -> bool:
    first = first or make_at(kind, make, seeded_start(0))
    try:
        if kind == "replay" and hasattr(first.unwrapped, "ale"):
            return False  # what ALE's own generator drew may show only after more steps than are tried here
        first.action_space.seed(0)
        _reset(first, 0)
        if kind == "anew":
            return _comes_back(first, make, kind, seeded_start(0))
        _wander(first, kind, seeded_start(0), [], EPISODE_STEPS)
        trials = SEED_TRIALS if kind == "seed" else 1
        for seed in range(1, trials + 1):
            _reset(first, seed)
            if not _comes_back(first, make, kind, seeded_start(seed)):
                return False
        return True
    finally:
        calls.close(first)


def _comes_back(first: Env, make: EnvFn, kind: SnapshotKind, start: dict[str, Any]) -> bool:
    """Whether a fresh environment gets to where ``first`` goes from a start on, at which it is."""
    start, actions = _wander(first, kind, start, [], EPISODE_STEPS)
    if kind == "replay" and is_over(first):  # episodes may be longer than all this: one is cut
        start, actions = next_start(kind, first, start, len(actions)) or {}, []
        _reset(first)
    start, actions = _wander(first, kind, start, actions, LEAD_STEPS)
    second = make_at(kind, make, start)
    try:
        replay(second, start, np.asarray(actions, first.action_space.dtype))
        return all(_same_step(first, second, _random_action(first)) for _ in range(COMPARED_STEPS))
    finally:
        calls.close(second)


def _wander(
    env: Env, kind: SnapshotKind, start: dict[str, Any], actions: list[Any], steps: int
) -> tuple[dict[str, Any], list[Any]]:
    """Steps at random; the last start and the actions since."""
    for _ in range(steps):
        actions.append(_random_action(env))
        if _step(env, actions[-1])[2]:
            fresh = next_start(kind, env, start, len(actions)) if is_over(env) else None
            if fresh is not None:
                start, actions = fresh, []
            _reset(env, fresh.get("seed") if fresh else None)
    return start, actions


def _same_step(first: Env, second: Env, action: Any) -> bool:  # noqa: ANN401
    one, rest, over = _step(first, action)
    other, others, _ = _step(second, action)
    if not (one.tobytes() == other.tobytes() and rest == others):
        return False
    return not over or _reset(first).tobytes() == _reset(second).tobytes()


def _random_action(env: Env) -> Any:  # noqa: ANN401
    return sample_action(env.env if isinstance(env, OwnGenerators) else env)


def _reset(env: Env, seed: int | None = None) -> Array:
    """A reset, one call for a watchdog; a copy of the observation, whose array environments may reuse."""
    with calling(Call.RESET):
        return np.array(env.reset(seed=seed)[0])


def _step(env: Env, action: Any) -> tuple[Array, list[Any], bool]:  # noqa: ANN401
    """A step likewise; with the reward and the ends, and whether it was one."""
    with calling(Call.STEP):
        observation, *rest = env.step(action)[:4]
    return np.array(observation), rest, bool(rest[1] or rest[2])


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
