"""The environments of one process: stepping them, their faults, and where their episodes began."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from traceback import extract_tb
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from ppo_cli.envs import calls
from ppo_cli.envs.buffers import Buffers, Record
from ppo_cli.envs.calls import Call, let_interrupt_pass
from ppo_cli.envs.infos import NOTHING, Tally, Wanted
from ppo_cli.envs.make import EnvFn
from ppo_cli.envs.pack import ObservationCheck
from ppo_cli.envs.snapshot import Lost, SnapshotKind, is_over, make_at, next_start, replay, seeded_start
from ppo_cli.seeding import derived_seed
from ppo_cli.text import flat

Array = npt.NDArray[Any]
Env = gym.Env[Any, Any]
OnError = Literal["stop", "restart"]

RENEWALS = 5  # of an environment in a row, before its fault ends the run


class EnvFaultError(RuntimeError):
    """An environment raised, or returned what is no step; the message is one line."""


def explain(error: BaseException) -> str:
    """What an environment or other code that is not ours did, in a few words: what it raised, and where.

    An error that our own checks raised is about what it returned.
    """
    text = flat(error)
    said = f": {text}" if text else ""
    frames = extract_tb(error.__traceback__)
    if frames and Path(__file__).parents[1] not in Path(frames[-1].filename).parents:
        where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
        return f"raised {type(error).__name__}{said} ({where})"
    if "to unpack" in text:
        text += "; reset returns (observation, info), step (observation, reward, terminated, truncated, info)"
    return f"returned {text}"


def make_all(makes: Sequence[EnvFn]) -> list[Env]:
    """Makes all environments, or none."""
    envs: list[Env] = []
    try:
        for make in makes:
            envs.append(make())  # noqa: PERF401 - those so far have to be closed
    except BaseException:
        for number, env in enumerate(envs):
            calls.close(env, number)
        raise
    return envs


class StepCheck:
    """Holds what steps return against the observation space, and looks for what is not finite."""

    def __init__(self, space: gym.Space[Any], on_error: OnError) -> None:
        self._fits = ObservationCheck(space)
        self._wants_finite = on_error == "restart"
        # each observation is looked at: indices have a range inside their dtype
        self.is_careful = self._wants_finite or isinstance(space, (spaces.Discrete, spaces.MultiDiscrete))
        self.has_floats = bool(np.issubdtype(space.dtype, np.floating))

    def __call__(self, obs: Any, reward: float) -> Any:  # noqa: ANN401
        """The observation as an array; ValueError where it is not as the space says."""
        obs = self._fits(obs)
        if self._wants_finite and not (math.isfinite(reward) and np.isfinite(obs).all()):
            raise ValueError("a NaN or an infinity in its observation or reward")
        return obs

    def find_infinite(self, out: Buffers) -> int | None:
        """The first environment whose last step was not finite; None where all were."""
        total = np.add.reduce(out.rewards)
        if self.has_floats:
            total += np.add.reduce(out.observations, axis=None)
        if math.isfinite(total):
            return None
        finite = np.isfinite(out.rewards)
        if self.has_floats:
            finite &= np.isfinite(out.observations).reshape(len(finite), -1).all(1)
        return next(iter(np.flatnonzero(~finite).tolist()), None)  # none where only the sum overflowed


class EnvEpisodes:
    """Environments of one process, each in an episode: how it is started, and where a snapshot of it starts.

    An environment that fails ends the run with an `EnvFaultError`, or, with ``on_error="restart"``, is made
    anew.
    """

    def __init__(
        self,
        envs: list[Env],
        makes: Sequence[EnvFn],
        out: Buffers,
        first: int,
        snapshot_kind: SnapshotKind,
        on_error: OnError,
        infos: Wanted = NOTHING,
        before: int = 0,
    ) -> None:
        """Takes over environments.

        Args:
            envs: The environments.
            makes: The constructor of each.
            out: The rows that they write.
            first: The number of the first one among those of a vector.
            snapshot_kind: The kind of snapshot.
            on_error: The effect of a fault.
            infos: The keys of ``info`` that are followed.
            before: The number of the run's environments before those of the vector, for messages.
        """
        self.envs = envs
        self._named = before + first
        self._makes, self._out, self._first, self._snapshot_kind, self._on_error = (
            makes,
            out,
            first,
            snapshot_kind,
            on_error,
        )
        self.starts: list[dict[str, Any]] = [{} for _ in makes]
        self._follows = infos != NOTHING
        self._tallies = [Tally(infos) for _ in makes]
        self._slot = calls.own_slot()
        self._steppings, self._resettings = (
            [calls.mark(what, self._named + i) for i in range(len(makes))] for what in (Call.STEP, Call.RESET)
        )
        self._seeds: list[int | None] = [None] * len(makes)
        self._steps = 0
        self._began = [0] * len(makes)  # the step at which each one's start was
        self._check = StepCheck(envs[0].observation_space, on_error)
        self._reports_returns = statistics_of(envs[0]) is not None

    def reset(self, seeds: Sequence[int | None], options: dict[str, Any] | None = None) -> None:
        """Starts a new episode in each environment with its seed."""
        try:
            for i, seed in enumerate(seeds):
                self._seeds[i] = seed
                self._tallies[i].forget(self._steps)  # an episode that did not end
                self._start(i, seed, options)
        finally:
            self._slot[0] = calls.IDLE

    def state(self) -> tuple[list[dict[str, Any]], list[int | None], list[dict[str, Any] | None]]:
        """Where the snapshots start, the seeds that were last given, and the running episodes' infos."""
        return self.starts, self._seeds, [tally.state(self._steps) for tally in self._tallies]

    def close(self) -> None:
        """Closes the environments."""
        for i in range(len(self.envs)):
            self._close(i)

    def _start(self, i: int, seed: int | None, options: dict[str, Any] | None = None) -> None:
        """Starts an episode; where the reset fails, in a new environment, if that is wanted."""
        try:
            self._begin(i, seed, options)
        except BaseException as error:
            self._renew(i, error)

    def _remake(self, i: int, seed: int) -> None:
        """Makes an environment anew and starts an episode."""
        self._close(i)
        self.envs[i] = self._makes[i]()
        self._begin(i, seed)

    def _close(self, i: int) -> None:
        calls.close(self.envs[i], self._named + i)

    def _begin(self, i: int, seed: int | None, options: dict[str, Any] | None = None) -> None:
        env, over = self.envs[i], seed is not None or is_over(self.envs[i])
        start = None if seed is None else seeded_start(seed)
        if over and start is None:
            start = next_start(self._snapshot_kind, env, self.starts[i], self._steps - self._began[i])
        self._out.env_over[i], self._out.snapshot_starts[i] = over, start is not None
        if over:
            self._tallies[i].end(self._steps)
            self._out.has_infos[i] = bool(self._tallies[i].ended)
        if start is not None and self._snapshot_kind == "anew":
            self._close(i)
            env = self.envs[i] = make_at(self._snapshot_kind, self._makes[i], start)
        self._slot[1] += 1
        self._slot[0] = self._resettings[i]
        obs, _ = env.reset(seed=None if start is None else start.get("seed"), options=options)
        if start is not None:
            self.starts[i], self._began[i] = start, self._steps
        self._out.observations[i] = self._check(obs, 0.0)

    def _renew(self, i: int, error: BaseException) -> None:
        """Makes an environment anew, which may fail as well, and starts an episode in it."""
        let_interrupt_pass(error)
        if self._on_error == "stop":
            raise _fault(self._named + i, error, self._on_error) from error
        faults = self._out.faults
        self._tallies[i].forget(self._steps)  # an episode that still runs was cut
        for _ in range(RENEWALS):
            faults[i] += 1
            try:
                self._remake(i, derived_seed(self._seeds[i] or 0, int(faults[i])))
            except BaseException as again:
                let_interrupt_pass(again)
                error = again
            else:
                return
        raise _fault(self._named + i, error, self._on_error) from error


class EnvGroup(EnvEpisodes):
    """Environments that are stepped one after the other and write into `Buffers`.

    An environment whose episode ends starts its next in the same step. Of one that fails and is made anew the
    episode is truncated at the last observation, if it was a step that failed; if it was the reset after a
    step, that step counts as it was.
    """

    def step(self, actions: Array) -> None:
        """Steps each environment with its action, [N, *shape]."""
        self._steps += 1
        self._slot[1] += 1
        try:
            self._step_all(actions)
        finally:
            self._slot[0] = calls.IDLE
        if (i := self._check.find_infinite(self._out)) is not None:
            said = f"a NaN or an infinity in its observation or reward ({self._out.rewards[i]:g})"
            raise _fault(self._named + i, ValueError(said), self._on_error)

    def _step_all(self, actions: Array) -> None:
        observations, rewards, terminations, truncations, final_obs, *_ = self._out
        slot = self._slot
        shape, dtype, careful = observations.shape[1:], observations.dtype, self._check.is_careful
        follows = self._follows
        for i, (env, action, mark) in enumerate(zip(self.envs, actions, self._steppings, strict=True)):
            slot[0] = mark
            try:
                obs, reward, terminated, truncated, info = env.step(action)
                if not isinstance(reward, float):
                    reward = as_number(reward)
                if obs.__class__ is not np.ndarray or obs.shape != shape or obs.dtype != dtype or careful:
                    obs = self._check(obs, reward)
                if terminated or truncated:
                    final_obs[i] = obs
                    if self._check.has_floats and not np.isfinite(final_obs[i]).all():
                        raise ValueError("a NaN or an infinity in its episode's last observation")
                    self._out.returns[i] = _reported(info) if self._reports_returns else math.nan
                else:
                    observations[i] = obs
                rewards[i] = reward
                terminations[i] = terminated
                truncations[i] = truncated
                if follows and isinstance(info, dict) and info:
                    self._tallies[i].add(info, self._steps)
            except BaseException as error:  # whatever an environment raises, sys.exit() included
                self._recover(i, error)
            else:
                if terminated or truncated:
                    self._start(i, None)

    def _recover(self, i: int, error: BaseException) -> None:
        """Truncates the episode whose step failed, and starts one in a new environment, if that is wanted."""
        let_interrupt_pass(error)
        out = self._out
        out.rewards[i], out.terminated[i], out.truncated[i] = 0.0, False, True
        out.final_obs[i], out.returns[i] = out.observations[i], math.nan
        self._renew(i, error)

    def restore(self, record: Record, new_seeds: Sequence[int]) -> list[Lost]:
        """Brings the environments to where snapshots were taken, or to new episodes with new seeds.

        Returns:
            Those that did not come back, which began a new episode.

        Raises:
            EnvFaultError: an environment fails in its new episode too.
        """
        self._seeds, self._steps = list(record.seeds), 0
        lost = []
        try:
            for i in range(len(self.envs)):
                if why := self._replay(i, record):
                    lost.append(Lost(self._first + i, why))
                    self._seeds[i] = new_seeds[i]
                    try:
                        self._remake(i, new_seeds[i])
                    except BaseException as error:
                        self._renew(i, error)
                else:
                    self._tallies[i].load(record.infos[i])
        finally:
            self._slot[0] = calls.IDLE
        return lost

    def _replay(self, i: int, record: Record) -> str:
        """Brings a fresh environment to a snapshot; why it did not come back, or nothing."""
        start, actions, kept = record.starts[i], record.actions[i], record.observations[i]
        if start is None:
            return "it can't be brought back"
        self._close(i)
        try:
            self.envs[i] = make_at(self._snapshot_kind, self._makes[i], start)
            found = replay(self.envs[i], start, actions)
        except BaseException as error:
            let_interrupt_pass(error)
            return f"it {explain(error)}"
        if np.asarray(found, kept.dtype).tobytes() != kept.tobytes():
            return f"it did not come back to its saved observation, replaying {len(actions)} actions"
        self.starts[i], self._began[i] = start, -len(actions)
        self._out.observations[i] = kept
        return ""

    def take_infos(self) -> list[dict[str, float]]:
        """What the infos of episodes that ended came to since the last call, environment by environment."""
        taken = [numbers for tally in self._tallies for numbers in tally.ended]
        for tally in self._tallies:
            tally.ended.clear()
        self._out.has_infos[:] = False
        return taken


def _fault(number: int, error: BaseException, on_error: OnError) -> EnvFaultError:
    """What ends the run."""
    advice = "env.on_error=restart goes on with a fresh episode"
    if on_error == "restart":
        advice = f"made anew {RENEWALS} times in a row, it never started an episode"
    return EnvFaultError(f"environment {number} {explain(error)}; {advice}")


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


def statistics_of(env: gym.Env[Any, Any]) -> "gym.wrappers.RecordEpisodeStatistics[Any, Any] | None":
    """The wrapper around an environment whose returns count; None where there is none."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.RecordEpisodeStatistics):
            return env
        env = env.env
    return None


def _reported(info: Mapping[str, Any]) -> float:
    """The episode's return, as `RecordEpisodeStatistics` adds to ``info``, or NaN."""
    episode = (info or {}).get("episode")
    return float(episode["r"]) if isinstance(episode, Mapping) and "r" in episode else math.nan
