"""The environments of one process: stepping them, their faults, and where their episodes began."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from traceback import extract_tb
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from ppo_cli.envs.make import EnvFn
from ppo_cli.envs.packed import check_indices, index_range
from ppo_cli.envs.snapshot import Kind, Lost, is_over, make_at, next_start, replay, seeded_start

Array = npt.NDArray[Any]
OnError = Literal["stop", "restart"]


class EnvFaultError(RuntimeError):
    """An environment raised, or returned what is no step; the message is one line."""


def explain(error: Exception) -> str:
    """What an environment or other code that is not ours did, in a few words: what it raised, and where.

    An error that our own checks raised is about what it returned.
    """
    text = " ".join(str(error).split())
    frames = extract_tb(error.__traceback__)
    if frames and Path(frames[-1].filename).parent != Path(__file__).parent:
        where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
        return f"raised {type(error).__name__}: {text} ({where})"
    if "to unpack" in text:
        text += "; reset returns (observation, info), step (observation, reward, terminated, truncated, info)"
    return f"returned {text}"


class Buffers(NamedTuple):
    """What one step of N environments writes."""

    observations: Array  # [N, *shape]
    rewards: Array  # float64 [N]
    terminated: Array  # bool [N]
    truncated: Array  # bool [N]
    final_obs: Array  # [N, *shape]; only rows whose episode ended are meaningful
    faults: Array  # int64 [N], since the run began
    # where an episode ended:
    over: Array  # bool [N], by the environment's own end, and not only the learner's, as with a lost life
    fresh: Array  # bool [N], whether a snapshot's start came with the next one
    returns: Array  # float64 [N], as `RecordEpisodeStatistics` told them, else NaN

    def rows(self, group: slice) -> "Buffers":
        """Views of some environments' rows."""
        return Buffers(*(array[group] for array in self))


class Group:
    """Environments that are stepped one after the other and write into `Buffers`.

    An environment whose episode ends starts its next in the same step. One that fails ends the run with an
    `EnvFaultError`, or, with ``on_error="restart"``, has its episode truncated at the last observation and is
    made anew.
    """

    def __init__(
        self, makes: Sequence[EnvFn], out: Buffers, first: int, kind: Kind, on_error: OnError
    ) -> None:
        """Makes the environments.

        Args:
            makes: a constructor for each.
            out: their rows.
            first: number of the first one among all environments, for messages.
            kind: of snapshot.
            on_error: what a fault does.
        """
        self.envs = [make() for make in makes]
        self.starts: list[dict[str, Any]] = [{} for _ in makes]
        self._makes, self._out, self._first, self._kind, self._on_error = makes, out, first, kind, on_error
        self._seeds: list[int | None] = [None] * len(makes)
        self._steps = 0
        self._began = [0] * len(makes)  # the step at which each one's start was
        self._shape = out.observations.shape[1:]
        self._dtypes = {out.observations.dtype}
        self._floats = np.issubdtype(out.observations.dtype, np.floating)
        self._range = index_range(self.envs[0].observation_space)
        self._is_careful = on_error == "restart" or self._range is not None

    def reset(self, seeds: Sequence[int | None], options: dict[str, Any] | None = None) -> None:
        """Starts a new episode in each environment with its seed."""
        for i, seed in enumerate(seeds):
            self._seeds[i] = seed
            try:
                self._begin(i, seed, options)
            except Exception as error:
                raise self._explain(i, error) from error

    def step(self, actions: Array) -> None:
        """Steps each environment with its action, [N, *shape]."""
        observations, rewards, terminations, truncations, final_obs, *_ = self._out
        self._steps += 1
        shape, dtype, careful = self._shape, observations.dtype, self._is_careful
        for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            try:
                obs, reward, terminated, truncated, info = env.step(action)
                if not isinstance(reward, float):
                    reward = as_number(reward)
                if obs.__class__ is not np.ndarray or obs.shape != shape or obs.dtype != dtype or careful:
                    self._check(obs, reward)
                if terminated or truncated:
                    final_obs[i] = obs
                    if self._floats and not np.isfinite(final_obs[i]).all():
                        raise ValueError("a NaN or an infinity in its episode's last observation")
                    self._out.returns[i] = _told_return(info)
                    self._begin(i, None)
                else:
                    observations[i] = obs
                rewards[i] = reward
                terminations[i] = terminated
                truncations[i] = truncated
            except Exception as error:  # noqa: PERF203 - whatever an environment raises; it costs nothing
                self._recover(i, error)
        total = np.add.reduce(rewards)
        if self._floats:
            total += np.add.reduce(observations, axis=None)
        if not math.isfinite(total):
            self._find_infinite()

    def restore(
        self,
        starts: Sequence[dict[str, Any] | None],
        actions: Sequence[Array],
        observations: Array,
        seeds: Sequence[int],
        new_seeds: Sequence[int],
    ) -> list[Lost]:
        """Brings the environments to where snapshots were taken.

        Args:
            starts: of each, where its snapshot starts; None where it has none.
            actions: of each since then, [K, *shape].
            observations: what each returned last, [N, *shape].
            seeds: the seed that each was last given.
            new_seeds: the seed of each one's new episode, if it does not come back.

        Returns:
            Those that did not come back, which began a new episode.

        Raises:
            EnvFaultError: an environment fails in its new episode too.
        """
        self._seeds, self._steps = list(seeds), 0
        lost = []
        for i, (start, taken) in enumerate(zip(starts, actions, strict=True)):
            why = "it can't be brought back"
            if start is not None:
                why = self._replay(i, start, taken, observations[i])
            if why:
                lost.append(Lost(self._first + i, why))
                self._seeds[i] = new_seeds[i]
                self._remake(i)
        return lost

    def _replay(self, i: int, start: dict[str, Any], taken: Array, kept: Array) -> str:
        """Brings a fresh environment to a snapshot; why it did not come back, or nothing."""
        try:
            self.envs[i].close()
            self.envs[i] = make_at(self._kind, self._makes[i], start)
            found = replay(self.envs[i], start, taken)
        except Exception as error:
            return f"it {explain(error)}"
        if np.asarray(found, kept.dtype).tobytes() != kept.tobytes():
            return f"it did not come back to its saved observation, replaying {len(taken)} actions"
        self.starts[i], self._began[i] = start, -len(taken)
        self._out.observations[i] = kept
        return ""

    def _remake(self, i: int) -> None:
        """Makes an environment anew and starts an episode with its seed."""
        with contextlib.suppress(Exception):
            self.envs[i].close()
        try:
            self.envs[i] = self._makes[i]()
            self._begin(i, self._seeds[i])
        except Exception as error:
            raise self._explain(i, error) from error

    def state(self) -> tuple[list[dict[str, Any]], list[int | None]]:
        """Where the snapshots start, and the seeds that were last given."""
        return self.starts, self._seeds

    def close(self) -> None:
        """Closes the environments."""
        for env in self.envs:
            env.close()

    def _begin(self, i: int, seed: int | None, options: dict[str, Any] | None = None) -> None:
        env, over = self.envs[i], seed is not None or is_over(self.envs[i])
        start = None if seed is None else seeded_start(seed)
        if over and start is None:
            start = next_start(self._kind, env, self.starts[i], self._steps - self._began[i])
        self._out.over[i], self._out.fresh[i] = over, start is not None
        if start is not None and self._kind == "anew":
            env.close()
            env = self.envs[i] = make_at(self._kind, self._makes[i], start)
        obs, _ = env.reset(seed=None if start is None else start.get("seed"), options=options)
        if start is not None:
            self.starts[i], self._began[i] = start, self._steps
        self._check(obs, 0.0)
        self._out.observations[i] = obs

    def _check(self, obs: Any, reward: Any) -> None:  # noqa: ANN401
        """Raises ValueError where an observation is of another shape or kind than the space says."""
        if np.shape(obs) != self._shape:
            raise ValueError(f"an observation of shape {np.shape(obs)}, where its space says {self._shape}")
        dtype = getattr(obs, "dtype", None)
        if dtype is not None and dtype not in self._dtypes:
            kept = self._out.observations.dtype
            if not (np.can_cast(dtype, kept, "same_kind") or (dtype.kind in "iub" and kept.kind in "iub")):
                raise ValueError(f"an observation of dtype {dtype}, where its space says {kept}")
            self._dtypes.add(dtype)
        check_indices(obs, self._range)
        if self._on_error == "restart" and not (math.isfinite(reward) and np.isfinite(obs).all()):
            raise ValueError("a NaN or an infinity in its observation or reward")

    def _find_infinite(self) -> None:
        finite = np.isfinite(self._out.rewards)
        if self._floats:
            finite &= np.isfinite(self._out.observations).reshape(len(finite), -1).all(1)
        for i in np.flatnonzero(~finite):  # none where only the sum overflowed
            reward = self._out.rewards[i]
            error = ValueError(f"a NaN or an infinity in its observation or reward ({reward:g})")
            raise self._explain(int(i), error)

    def _recover(self, i: int, error: Exception) -> None:
        if self._on_error == "stop":
            raise self._explain(i, error) from error
        out = self._out
        out.faults[i] += 1
        out.rewards[i], out.terminated[i], out.truncated[i] = 0.0, False, True
        out.final_obs[i], out.returns[i] = out.observations[i], math.nan
        with contextlib.suppress(Exception):
            self.envs[i].close()
        entropy = [self._seeds[i] or 0, int(out.faults[i])]
        try:
            self.envs[i] = self._makes[i]()
            self._begin(i, int(np.random.SeedSequence(entropy).generate_state(1)[0]) >> 1)
        except Exception as again:
            raise self._explain(i, again) from again

    def _explain(self, i: int, error: Exception) -> EnvFaultError:
        what = explain(error)
        return EnvFaultError(
            f"environment {self._first + i} {what}; env.on_error=restart goes on with a fresh episode"
        )


def as_number(reward: Any) -> float:  # noqa: ANN401
    """A reward as a float; an array of one number is taken too.

    Raises:
        ValueError: it is no number.
    """
    try:
        return float(reward.item() if isinstance(reward, np.ndarray) else reward)
    except (TypeError, ValueError):
        shown = " ".join(repr(reward).split())
        raise ValueError(f"a reward {shown}, where one number is expected") from None


def _told_return(info: Mapping[str, Any]) -> float:
    """The episode's return in what `RecordEpisodeStatistics` adds to ``info``, or NaN."""
    episode = (info or {}).get("episode")
    return float(episode["r"]) if isinstance(episode, Mapping) and "r" in episode else math.nan


def allocate(space: gym.Space[Any], n: int) -> Buffers:
    """Buffers in this process's own memory."""
    shape = (n, *(space.shape or ()))
    return Buffers(
        observations=np.zeros(shape, space.dtype),
        rewards=np.zeros(n),
        terminated=np.zeros(n, np.bool_),
        truncated=np.zeros(n, np.bool_),
        final_obs=np.zeros(shape, space.dtype),
        faults=np.zeros(n, np.int64),
        over=np.zeros(n, np.bool_),
        fresh=np.zeros(n, np.bool_),
        returns=np.zeros(n),
    )
