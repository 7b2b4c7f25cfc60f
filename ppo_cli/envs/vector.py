"""Vectors of environments: their interface, and the one in this process.

All have Gymnasium's `VectorEnv` interface and reset an environment in the step in which its episode ends
(`AutoresetMode.SAME_STEP`), with the true final observation in ``infos["final_obs"]``. Arrays that `step`
returns are overwritten by the next step. Of ``infos`` there is only what PPO reads, where an episode ended:
``final_obs``, ``env_over`` (the environment's own end, not only a lost life) and ``returns`` (what a
`RecordEpisodeStatistics` wrapper reported, else NaN).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ppo_cli.arrays import NUMPY, Arrays
from ppo_cli.envs.buffers import Buffers, Record, allocate
from ppo_cli.envs.group import EnvGroup, OnError, make_all
from ppo_cli.envs.infos import NOTHING, Wanted
from ppo_cli.envs.make import EnvFn
from ppo_cli.envs.snapshot import MOST_REPLAYED, Lost, SnapshotKind
from ppo_cli.spaces import Spaces

Array = npt.NDArray[Any]
StepResult = tuple[Array, Array, Array, Array, dict[str, Any]]


class Recipe(NamedTuple):
    """What a vector of environments is made of.

    Attributes:
        env_id: The environments' id, for backends with environments of their own.
        makes: A constructor of each.
        spaces: The spaces of a single environment.
        processes: The number of processes or threads to use.
        snapshot_kind: The kind of snapshot; see `ppo_cli.envs.snapshot`.
        on_error: The effect of a fault of an environment.
        infos: The keys of ``info`` that are followed.
        kwargs: The arguments of the environments, for backends that make their own.
        wrappers: The wrappers around them, as entries of the config, likewise.
        device: The device of the run, to which tensors are brought; None leaves them where they are.
        before: The number of the run's environments before these, for messages.
    """

    env_id: str
    makes: Sequence[EnvFn]
    spaces: Spaces
    processes: int = 1
    snapshot_kind: SnapshotKind = "none"
    on_error: OnError = "stop"
    infos: Wanted = NOTHING
    kwargs: Mapping[str, Any] = MappingProxyType({})
    wrappers: Sequence[Mapping[str, Any]] = ()
    device: str | None = None
    before: int = 0


class Vector(VectorEnv[Any, Any, Any]):
    """What the backends share: spaces, results from `Buffers`, and snapshots.

    Attributes:
        backend: The name that `vectorization` has for it.
        snapshot_kind: The kind of snapshot; see `ppo_cli.envs.snapshot`.
        faults: The number of faults that environments recovered from, since the run began.
        arrays: What it gives and takes: arrays of NumPy, or tensors, which the first reset says.
    """

    backend: str
    arrays: Arrays = NUMPY

    def __init__(self, n: int, spaces: Spaces, snapshot_kind: SnapshotKind) -> None:
        self.num_envs = n
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = spaces
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        self.snapshot_kind = snapshot_kind
        self.faults = 0
        self._forget()

    @classmethod
    def check(cls, recipe: Recipe, env: "gym.Env[Any, Any]") -> None:
        """Raises EnvError where the backend can't make what there is a single environment of."""

    @classmethod
    def of(cls, recipe: Recipe) -> "Vector":
        """The vector that a recipe describes."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Starts a new episode in each environment, with a seed each."""
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any] | None:
        """Where every environment is, as plain values, for `restore`, or None; it changes nothing."""
        raise NotImplementedError

    def restore(self, snapshot: Mapping[str, Any], seeds: Sequence[int]) -> list[Lost]:
        """Brings fresh environments to a snapshot, or to new episodes where they do not come back.

        Args:
            snapshot: The snapshot that `snapshot` took.
            seeds: The seed of each environment's new episode, if it begins one.

        Returns:
            Those that begin a new episode, in order.
        """
        raise NotImplementedError

    def take_infos(self) -> list[dict[str, float]]:
        """What the infos of episodes that ended came to since the last call, environment by environment."""
        return []

    @property
    def observations(self) -> Array:
        """What each environment returned last, [N, *shape]."""
        raise NotImplementedError

    def _result(self, out: Buffers, actions: Array) -> StepResult:
        ended = out.terminated | out.truncated
        infos = {}
        if self.snapshot_kind != "none":
            self._taken.append(actions.copy())
        if ended.any():
            infos = {
                "final_obs": out.final_obs,
                "_final_obs": ended,
                "env_over": out.env_over,
                "returns": out.returns,
            }
            self._began[ended & out.snapshot_starts] = len(self._taken)
            self.faults = int(out.faults.sum())
        if len(self._taken) >= self._room:
            self._drop_ended()
        return out.observations, out.rewards, out.terminated, out.truncated, infos

    def _forget(self) -> None:
        """Starts the record of actions anew: `_taken` holds one array [N, *shape] a step."""
        self._taken: list[Array] = []
        self._began = np.zeros(self.num_envs, np.int64)
        self._room = 1024

    def _drop_ended(self) -> None:
        """Drops the actions of steps before every environment's start, and those of episodes without an end.

        What has more than `MOST_REPLAYED` since its start keeps none until the next: `_began` is negative.
        """
        kept = self._began[self._began >= 0]
        first = max(int(kept.min()) if len(kept) else len(self._taken), len(self._taken) - MOST_REPLAYED)
        del self._taken[:first]
        self._began -= first
        # Twice what is left, so that looking through all of it costs a step the same however much that is.
        self._room = 2 * len(self._taken) + 1024

    def _snapshot(
        self,
        out: Buffers,
        starts: Sequence[dict[str, Any]],
        seeds: Sequence[int | None],
        infos: Sequence[dict[str, Any] | None],
    ) -> dict[str, Any]:
        self._drop_ended()
        taken = np.array(self._taken, self.action_space.dtype).reshape(-1, *(self.action_space.shape or ()))
        known = [self.snapshot_kind != "none" and began >= 0 for began in self._began]
        return {
            "kind": self.snapshot_kind,
            "starts": [start if kept else None for start, kept in zip(starts, known, strict=True)],
            "actions": [
                taken[began if kept else len(taken) :, i].copy()
                for i, (began, kept) in enumerate(zip(self._began, known, strict=True))
            ],
            "observations": out.observations.copy(),
            "seeds": list(seeds),
            "infos": list(infos),
            "faults": out.faults.copy(),
        }

    def _recall(self, out: Buffers, snapshot: Mapping[str, Any]) -> Record:
        """Takes over a snapshot's record."""
        actions = [np.asarray(taken) for taken in snapshot["actions"]]
        observations, faults = (np.asarray(snapshot[name]) for name in ("observations", "faults"))
        _check_form("observations", observations, out.observations)
        _check_form("faults", faults, out.faults)
        for taken in actions:
            self._check_actions(taken)
        longest = max(len(taken) for taken in actions)
        record = np.zeros((longest, *(self.action_space.shape or ())), self.action_space.dtype)
        self._forget()
        for i, taken in enumerate(actions):
            self._began[i] = longest - len(taken)
            record[self._began[i] :, i] = taken
        self._taken = list(record)
        out.faults[:] = faults
        self.faults = int(out.faults.sum())
        infos = snapshot.get("infos", [None] * self.num_envs)  # older checkpoints have none
        return Record(snapshot["starts"], actions, observations, snapshot["seeds"], infos)

    def _check_actions(self, taken: Array) -> None:
        """Raises ValueError for actions [K, *shape] that this vector has never taken."""
        space = self.single_action_space
        form = (taken.dtype, taken.shape[1:])
        whole = form == (self.action_space.dtype, (self.action_space.shape or ())[1:])
        whole = whole and len(taken) <= MOST_REPLAYED
        if whole and isinstance(space, Discrete):
            whole = bool(((taken >= space.start) & (taken < space.start + space.n)).all())
        elif whole and isinstance(space, MultiDiscrete):
            whole = bool(((taken >= space.start) & (taken < space.start + space.nvec)).all())
        if not whole or (np.issubdtype(taken.dtype, np.floating) and not np.isfinite(taken).all()):
            raise ValueError(f"actions {list(taken.shape)} that are none of {space}")

    def _mark_lost(self, lost: list[Lost]) -> list[Lost]:
        """Begins the record of environments anew that begin a new episode."""
        for env, _ in lost:
            self._began[env] = len(self._taken)
        return lost


def _check_form(name: str, value: Array, place: Array) -> None:
    if value.shape != place.shape or value.dtype != place.dtype:
        raise ValueError(f"{name} {value.dtype} {list(value.shape)}, where {list(place.shape)} are expected")


class SyncVector(Vector):
    """Steps the environments in this process.

    Gymnasium's `SyncVectorEnv` without its copies and without gathering infos, which cost as much as a small
    environment's own step.
    """

    backend = "sync"

    def __init__(
        self,
        env_fns: Sequence[EnvFn],
        snapshot_kind: SnapshotKind = "none",
        on_error: OnError = "stop",
        infos: Wanted = NOTHING,
        before: int = 0,
    ) -> None:
        envs = make_all(env_fns)
        super().__init__(len(envs), Spaces(envs[0].observation_space, envs[0].action_space), snapshot_kind)
        self._out = allocate(self.single_observation_space, self.num_envs)
        self._group = EnvGroup(envs, env_fns, self._out, 0, snapshot_kind, on_error, infos, before)

    @classmethod
    def of(cls, recipe: Recipe) -> "SyncVector":
        """The vector that a recipe describes."""
        return cls(recipe.makes, recipe.snapshot_kind, recipe.on_error, recipe.infos, recipe.before)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Starts a new episode in each environment, with a seed each."""
        self._forget()
        self._group.reset(seed_list(seed, self.num_envs), options)
        return self._out.observations, {}

    def step(self, actions: Array) -> StepResult:
        """Steps every environment with its action, [N, *shape].

        Raises:
            EnvFaultError: an environment raised, or returned what is no step.
        """
        self._group.step(actions)
        return self._result(self._out, actions)

    def snapshot(self) -> dict[str, Any]:
        """Where every environment is, as plain values, for `restore`."""
        return self._snapshot(self._out, *self._group.state())

    def restore(self, snapshot: Mapping[str, Any], seeds: Sequence[int]) -> list[Lost]:
        """Brings fresh environments to a snapshot, or to new episodes where they do not come back."""
        return self._mark_lost(self._group.restore(self._recall(self._out, snapshot), seeds))

    def take_infos(self) -> list[dict[str, float]]:
        """What the infos of episodes that ended came to since the last call, environment by environment."""
        return self._group.take_infos()

    @property
    def observations(self) -> Array:
        """What each environment returned last, [N, *shape]."""
        return self._out.observations

    def close_extras(self, **_: object) -> None:
        """Closes the environments."""
        self._group.close()


def seed_list(seed: int | Sequence[int | None] | None, n: int) -> list[int | None]:
    """Gymnasium's three forms of a vector's seed as one seed an environment."""
    if seed is None:
        return [None] * n
    if isinstance(seed, int):
        return [seed + i for i in range(n)]
    return list(seed)
