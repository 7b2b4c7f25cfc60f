"""The memory that a run needs, held against what this machine has before anything is allocated."""

import math
import os
from dataclasses import replace

from ppo_cli.config.convert import same_named
from ppo_cli.config.schema import Config
from ppo_cli.errors import ConfigError
from ppo_cli.normalize import stored_observation
from ppo_cli.runs.algorithm import build_distribution
from ppo_cli.spaces import Spaces
from ppo_cli.trunks import TrunkChoice, count_weights

# Of an environment step while it is learned from: values, log-probabilities, advantages, value targets and
# what they are made from (40 bytes), the permutation of an epoch, its rows and weights (60).
UPDATE_BYTES = 100


def step_bytes(config: Config, env: Spaces, state_size: int = 0) -> int:
    """Bytes of the rollout's buffers for an environment step (`ppo_cli.rollout.Rollout`).

    Args:
        config: The config.
        env: The spaces of an environment.
        state_size: The length of a memory's state; 0 without one.
    """
    shape, dtype = stored_observation(env.observation_space, config.normalize.observations)
    acts = build_distribution(config, env.action_space)
    observation = math.prod(shape) * dtype.itemsize
    action = math.prod(acts.action_shape) * acts.action_dtype.itemsize
    floats = 4 + state_size  # reward, log-probability, value, intrinsic value; the memory's state
    flags = 3  # terminated, truncated, valid
    return observation + action + 4 * floats + flags


def check_rollout(config: Config, env: Spaces, state_size: int = 0) -> None:
    """Raises ConfigError where a rollout and its update would take more than this machine's memory.

    Args:
        config: The config.
        env: The spaces of an environment.
        state_size: The length of a memory's state; 0 without one.
    """
    noise = 4 * build_distribution(config, env.action_space).noise_size  # of a rollout, while collecting
    size = config.rollout_rows * (step_bytes(config, env, state_size) + max(noise, UPDATE_BYTES))
    _hold(f"n_envs * n_steps = {config.rollout_rows:,} steps", size)


def check_weights(config: Config) -> None:
    """Raises ConfigError where the weights would take more than this machine's memory."""
    trunk, own = TrunkChoice(**same_named(config.network, TrunkChoice)), config.network.critic.hidden_sizes
    trunks = [trunk]
    if not config.network.shared:
        trunks.append(trunk if own is None else replace(trunk, hidden_sizes=own))
    weights = sum(count_weights(each) for each in trunks)
    knobs = "network.hidden_sizes" if own is None else "network.hidden_sizes and network.critic.hidden_sizes"
    _hold(knobs, weights * 4 * 4)  # float32: weights, their gradient, Adam's two moments


def _hold(what: str, size: int) -> None:
    """Raises ConfigError where so many bytes are more than this machine has."""
    if not hasattr(os, "sysconf"):  # Windows
        return
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > limit:
        raise ConfigError(
            f"{what} would take {size / 2**30:,.1f} GiB of memory, and this machine has "
            f"{limit / 2**30:,.1f}; lower it"
        )
