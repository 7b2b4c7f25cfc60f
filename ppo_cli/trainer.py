"""The loop: collect → advantages → update → log."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ppo_cli.agent import PPOAgent, UpdateMetrics
from ppo_cli.envs.spaces import action_adapter, stored_observation
from ppo_cli.envs.vector import Vector
from ppo_cli.metrics import EpisodeStatistics, RunLog
from ppo_cli.normalize import ObservationNormalizer, RewardNormalizer
from ppo_cli.rollout import Rollout


@dataclass(frozen=True)
class Collector:
    """What turns the agent's actions into rollouts: the environments and what stands between them.

    Attributes:
        envs: N environments that reset in the step in which an episode ends.
        rollout: the buffers that `collect` fills.
        episodes: statistics of the raw rewards.
        to_env: from stored actions to those that the environments take.
        observation_normalizer: None leaves observations as they are.
        reward_normalizer: None leaves rewards as they are.
    """

    envs: Vector
    rollout: Rollout
    episodes: EpisodeStatistics
    to_env: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    observation_normalizer: ObservationNormalizer | None
    reward_normalizer: RewardNormalizer | None

    def observe(self, observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Observations [..., *shape] as the agent sees them."""
        normalizer = self.observation_normalizer
        return observations if normalizer is None else normalizer(observations)

    def reset(self, seeds: list[int]) -> None:
        """Starts the first episode of each environment with its seed."""
        observations, _ = self.envs.reset(seed=seeds)
        if self.observation_normalizer is not None:
            self.observation_normalizer.update(observations)
        # the last row, because every rollout begins by taking over the last row of the one before
        self.rollout.observations[-1] = torch.as_tensor(self.observe(observations))

    def collect(self, agent: PPOAgent) -> None:
        """Fills the rollout with the next T steps of each environment."""
        rollout = self.rollout
        rollout.begin()
        everywhere = np.ones(rollout.n_envs, np.bool_)
        for t, noise in enumerate(agent.exploration_noise(rollout.n_steps, rollout.n_envs)):
            actions = agent.act(rollout.acting_on(t), noise)
            next_obs, rewards, terminated, truncated, info = self.envs.step(self.to_env(actions))
            dones = terminated | truncated
            valid = new = everywhere
            if "filler" in info:  # next-step autoreset: an end's next row is its final observation and filler
                valid, new = ~info["filler"], ~dones
            self.episodes.step(rewards, dones, valid)
            if self.reward_normalizer is not None:
                rewards = self.reward_normalizer(rewards, dones, valid)
            if self.observation_normalizer is not None:
                self.observation_normalizer.update(next_obs[new])
            if "final_obs" in info:
                for env in np.flatnonzero(dones).tolist():
                    rollout.add_final(t, env, self.observe(info["final_obs"][env]))
            rollout.add(t, actions, rewards, terminated, truncated, self.observe(next_obs), valid)


def make_collector(
    envs: Vector,
    agent: PPOAgent,
    n_steps: int,
    observation_normalizer: ObservationNormalizer | None,
    reward_normalizer: RewardNormalizer | None,
) -> Collector:
    """Allocates the buffers for rollouts of ``n_steps`` steps of ``envs``."""
    shape, dtype = stored_observation(envs.single_observation_space, observation_normalizer is not None)
    distribution = agent.distribution
    rollout = Rollout(
        n_steps, envs.num_envs, shape, dtype, distribution.action_shape, distribution.action_dtype
    )
    return Collector(
        envs,
        rollout,
        EpisodeStatistics(envs.num_envs),
        action_adapter(envs.single_action_space),
        observation_normalizer,
        reward_normalizer,
    )


def train(agent: PPOAgent, collector: Collector, log: RunLog, total_timesteps: int) -> int:
    """Trains for whole iterations until at least ``total_timesteps`` environment steps.

    Iteration i of I (from 0) has progress i / I for every schedule.

    Returns:
        The number of environment steps taken.

    Raises:
        FloatingPointError: the loss or the gradient is not finite.
    """
    rollout = collector.rollout
    iterations = math.ceil(total_timesteps / (rollout.n_steps * rollout.n_envs))
    if agent.compiled:
        log.status("compiling the update (kept for later runs)")
    iteration = steps = 0
    while steps < total_timesteps:
        agent.anneal(min(iteration, iterations - 1) / iterations)  # filler rows can make it more than I
        started = time.perf_counter()
        collector.collect(agent)
        collected = time.perf_counter()
        rows = rollout.rows
        if not len(rows):
            continue
        metrics = agent.update(agent.compute_gae(rollout), rows)
        updated = time.perf_counter()
        iteration, steps = iteration + 1, steps + len(rows)
        if not math.isfinite(metrics.total_loss + metrics.grad_norm):
            raise FloatingPointError(
                f"the loss is {metrics.total_loss} and its gradient's norm {metrics.grad_norm} "
                f"at step {steps}; lower learning_rate, or normalise observations and rewards"
            )
        seconds = (collected - started, updated - collected)
        log.iteration(iteration, steps, _scalars(agent, metrics, collector.episodes, seconds, len(rows)))
    return steps


def _scalars(
    agent: PPOAgent,
    metrics: UpdateMetrics,
    episodes: EpisodeStatistics,
    seconds: tuple[float, float],
    steps: int,
) -> dict[str, float]:
    """The value of every tag that an iteration logs."""
    episodic_return, episodic_length = episodes.collect()
    collect, update = seconds
    return {
        "charts/episodic_return": episodic_return,
        "charts/episodic_length": episodic_length,
        "charts/SPS": steps / (collect + update),
        "charts/learning_rate": agent.learning_rate,
        "charts/clip_ratio": agent.clip_ratio,
        "charts/ent_coef": agent.ent_coef,
        "charts/vf_coef": agent.vf_coef,
        **{f"losses/{name}": value for name, value in vars(metrics).items()},
        "time/collect": collect,
        "time/update": update,
    }
