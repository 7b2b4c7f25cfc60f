"""Evaluation in vectors of environments of which there are no single ones: episodes in rounds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from ppo_cli.arrays import as_array
from ppo_cli.envs.entry_point import EntryPointVector
from ppo_cli.envs.infos import Wanted
from ppo_cli.envs.named import Lent
from ppo_cli.envs.one_of import OneOf
from ppo_cli.policy import BatchPolicy
from ppo_cli.spaces import Spaces

Played = tuple[list[float], list[int], list[Mapping[str, float]]]  # returns, lengths and infos of episodes


def play_rounds(
    policy: BatchPolicy,
    env: "gym.Env[Any, Any]",
    seeds: Sequence[int],
    generator: torch.Generator | None,
    max_steps: int,
    infos: Wanted,
    progress: Callable[[int], None] | None,
) -> Played:
    """Plays an episode for each seed, as many at once as the vector has environments.

    A round begins with a reset of all, by the seed of its first episode, and of each environment its first
    episode counts: so that short ones are not counted more often than long ones.

    Args:
        policy: The policy, which acts on raw observations.
        env: One of the vector, in the wrappers that pack its spaces.
        seeds: The seeds of the episodes.
        generator: Draws the actions; None takes the most probable ones.
        max_steps: The number of steps after which a round ends.
        infos: The keys of ``info`` that are followed.
        progress: A function that is called with the number of episodes that have ended, when some have.
    """
    assert isinstance(env.unwrapped, OneOf)
    spaces = Spaces(env.observation_space, env.action_space)
    envs = EntryPointVector("", Lent(env.unwrapped.envs), spaces, infos)
    returns: list[float] = []
    lengths: list[int] = []
    for first in range(0, len(seeds), envs.num_envs):
        count = min(envs.num_envs, len(seeds) - first)
        totals, steps = _play_round(policy, envs, seeds[first], count, generator, max_steps)
        returns += totals
        lengths += steps
        if progress is not None:
            progress(len(returns))
    return returns, lengths, list(envs.take_infos())


def _play_round(
    policy: BatchPolicy,
    envs: EntryPointVector,
    seed: int,
    count: int,
    generator: torch.Generator | None,
    max_steps: int,
) -> tuple[list[float], list[int]]:
    """Returns and lengths of the first episodes of the first environments."""
    running = np.arange(envs.num_envs) < count
    totals, lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, np.int64)
    observations, told = envs.reset(seed=seed)
    states = policy.initial_state.repeat(envs.num_envs, 1)
    for _ in range(max_steps):
        envs.followed = running
        actions, states = policy.act(as_array(observations), generator, states)
        observations, *numbers, told = envs.step(policy.distribution.to_env(actions))
        rewards, terminated, truncated = map(as_array, numbers)
        told = {key: as_array(told[key]) for key in ("filler", "returns") if key in told}
        if "filler" in told:
            waits = torch.from_numpy(told["filler"]).to(states.device)
            states = torch.where(waits[:, None], policy.initial_state, states)
        lengths += running & ~told.get("filler", np.False_)
        totals += np.where(running, rewards, 0.0)
        ended = running & (terminated | truncated)
        if "returns" in told:
            totals = np.where(ended & ~np.isnan(told["returns"]), told["returns"], totals)
        running = running & ~ended
        if not running.any():
            break
    else:
        envs.cut(running)
    return totals[:count].tolist(), lengths[:count].tolist()
