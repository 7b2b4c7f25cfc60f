"""Evaluation: whole episodes of a frozen policy on environments of their own."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from ppo_cli.distributions import is_squashed
from ppo_cli.envs.group import EnvFaultError, as_number, explain
from ppo_cli.envs.make import EnvFn
from ppo_cli.envs.packed import ObservationCheck
from ppo_cli.envs.spaces import action_adapter
from ppo_cli.envs.vector import spawn_seeds
from ppo_cli.policy import Policy

Env = gym.Env[Any, Any]

MAX_SLOTS = 16  # environments stepped side by side, one batch of the network


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths of the episodes, in the order of their seeds."""

    returns: list[float]
    lengths: list[int]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Population standard deviation of the returns."""
        return float(np.std(self.returns))

    @property
    def iqm(self) -> float:
        """Interquartile mean: the mean without the lowest and highest quarter (Agarwal et al. 2021)."""
        cut = len(self.returns) // 4
        return float(np.mean(np.sort(self.returns)[cut : len(self.returns) - cut]))


def summarize(evaluation: Evaluation, steps: int, deterministic: bool, seed: int) -> dict[str, Any]:
    """What `eval.json` holds.

    Args:
        evaluation: of the policy.
        steps: environment steps that the policy was trained for.
        deterministic: how the evaluation was made, as is ``seed``.
        seed: of the evaluation.
    """
    return {
        "mean": evaluation.mean,
        "std": evaluation.std,
        "iqm": evaluation.iqm,
        "episodes": len(evaluation.returns),
        "returns": evaluation.returns,
        "lengths": evaluation.lengths,
        "steps": steps,
        "deterministic": deterministic,
        "seed": seed,
    }


def evaluate(
    policy: Policy,
    make: EnvFn,
    episodes: int,
    seed: int,
    deterministic: bool,
    max_steps: int = 27_000,
    pulse: npt.NDArray[np.int64] | None = None,
    first_actions: list[Any] | None = None,
) -> Evaluation:
    """Runs ``episodes`` episodes, each with a seed of its own derived from ``seed``.

    The episodes are dealt to slots beforehand, so that short ones are not counted more often than long ones.
    Python's and NumPy's global generators, from which some environments draw, are seeded too.

    Args:
        policy: acts on raw observations.
        make: constructor of an evaluation environment.
        episodes: number of episodes > 0.
        seed: the evaluation's own seed.
        deterministic: take the most probable action rather than a sample.
        max_steps: length at which an episode is cut, for environments without a time limit.
        pulse: one integer that is odd while an environment steps, for a watchdog.
        first_actions: a list that the first episode's actions are added to.

    Raises:
        EnvFaultError: an environment raised, or gave a NaN or an infinity, from which no mean comes back.
    """
    pulse = np.zeros(1, np.int64) if pulse is None else pulse
    seeds = spawn_seeds(seed, "eval", episodes)
    generator = None if deterministic else torch.Generator().manual_seed(spawn_seeds(seed, "action", 1)[0])
    random.seed(seeds[0])
    np.random.seed(seeds[0])
    envs = [make() for _ in range(min(episodes, MAX_SLOTS))]
    try:
        return _play(policy, envs, seeds, generator, max_steps, pulse, first_actions)
    finally:
        for env in envs:
            env.close()


def _play(
    policy: Policy,
    envs: list[Env],
    seeds: Sequence[int],
    generator: torch.Generator | None,
    max_steps: int,
    pulse: npt.NDArray[np.int64],
    first_actions: list[Any] | None,
) -> Evaluation:
    episodes = len(seeds)
    returns = [0.0] * episodes
    lengths = [0] * episodes
    to_env = action_adapter(envs[0].action_space, is_squashed(policy.distribution))
    dtype = envs[0].observation_space.dtype  # as training sees it, whatever an environment returns
    # slot -> its running episode and observation; slot i runs the episodes i, i + S, i + 2S, ...
    running: dict[int, tuple[int, Any]] = {
        slot: (slot, _reset(env, seeds[slot], slot)) for slot, env in enumerate(envs)
    }
    initial = policy.initial_state
    states = None if initial is None else initial.repeat(len(envs), 1)  # of the memory, [S] -> [slots, S]
    while running:
        observations = np.asarray([obs for _, obs in running.values()], dtype)
        if not np.isfinite(observations).all():
            finite = np.isfinite(observations).reshape(len(observations), -1).all(1)
            episode = [episode for episode, _ in running.values()][int(np.argmin(finite))]
            raise _fault("observation", episode, lengths[episode])
        slots = list(running)
        stored, after = policy.act(observations, generator, None if states is None else states[slots])
        actions = to_env(stored)
        if states is not None and after is not None:
            states[slots] = after
        for (slot, (episode, _)), action in zip(list(running.items()), actions, strict=True):
            if episode == 0 and first_actions is not None:
                first_actions.append(action)
            pulse[0] += 1
            lengths[episode] += 1
            obs, reward, over = _step(envs[slot], action, episode, lengths[episode])
            pulse[0] += 1
            returns[episode] += reward
            if over or lengths[episode] >= max_steps:
                episode += len(envs)
                if episode >= episodes:
                    del running[slot]
                    continue
                obs = _reset(envs[slot], seeds[episode], episode)
                if states is not None and initial is not None:
                    states[slot] = initial
            running[slot] = (episode, obs)
    return Evaluation(returns, lengths)


def _reset(env: Env, seed: int, episode: int) -> Any:  # noqa: ANN401
    try:
        obs, _ = env.reset(seed=seed)
        obs = ObservationCheck(env.observation_space)(obs)
    except Exception as error:
        raise _failed(error, episode, 0) from error
    return obs


def _step(env: Env, action: Any, episode: int, step: int) -> tuple[Any, float, bool]:  # noqa: ANN401
    """Observation, reward, and whether the episode is over."""
    try:
        obs, given, terminated, truncated, _ = env.step(action)
        reward = as_number(given)
        obs = ObservationCheck(env.observation_space)(obs)
    except Exception as error:
        raise _failed(error, episode, step) from error
    if not math.isfinite(reward):
        raise _fault("reward", episode, step)
    return obs, reward, bool(terminated or truncated)


def _failed(error: Exception, episode: int, step: int) -> EnvFaultError:
    return EnvFaultError(f"an environment {explain(error)} in evaluation episode {episode}, step {step}")


def _fault(what: str, episode: int, step: int) -> EnvFaultError:
    return EnvFaultError(
        f"an environment gave a NaN or an infinity as {what} in evaluation episode {episode}, step {step}"
    )


def bootstrap_interval(returns: Sequence[float], seed: int) -> tuple[float, float] | None:
    """A 95 % percentile bootstrap interval of the mean return; None for a single episode.

    Args:
        returns: of the episodes.
        seed: of the resampling.

    Raises:
        ModuleNotFoundError: SciPy is not installed.
    """
    from scipy.stats import bootstrap  # late: an extra, and slow to import

    if len(returns) < 2:
        return None
    # the percentile method, since BCa has no interval where all returns are equal
    found = bootstrap(
        (np.asarray(returns),),
        np.mean,
        batch=1000,  # resamples held in memory at once
        method="percentile",
        random_state=np.random.default_rng(seed),  # SciPy's older name of rng, which newer ones take too
    ).confidence_interval
    return float(found.low), float(found.high)
