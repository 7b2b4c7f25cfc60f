"""The loop: collect → advantages → update → log → checkpoint."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ppo_cli import schedules
from ppo_cli.agent import PPOAgent
from ppo_cli.envs.infos import mean_over
from ppo_cli.envs.snapshot import Lost
from ppo_cli.envs.vector import Vector
from ppo_cli.episodes import EpisodeStatistics
from ppo_cli.normalize import ObservationNormalizer, RewardNormalizer, as_float32, stored_observation
from ppo_cli.rollout import Rollout

ALL = slice(None)  # environments
SELDOM_ANNEALED = ("vf_clip_ratio", "gamma", "gae_lambda", "max_grad_norm", "target_kl")


class Log(Protocol):
    """What an iteration is told to."""

    def status(self, text: str) -> None:
        """Says what takes long before the first iteration."""

    def iteration(self, iteration: int, step: int, values: Mapping[str, float]) -> None:
        """Takes the scalars of an iteration, by tag, at a number of environment steps."""


class Position(NamedTuple):
    """How far a run is: whole iterations and environment steps."""

    iteration: int = 0
    steps: int = 0


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
        return as_float32(observations) if normalizer is None else normalizer(observations)

    def reset(self, seeds: list[int]) -> None:
        """Starts the first episode of each environment with its seed."""
        self._begin(self.envs.reset(seed=seeds)[0])

    def _begin(self, observations: npt.NDArray[Any], environments: Sequence[int] | slice = ALL) -> None:
        """Takes in the first observations of episodes, [N, *shape], in some environments or all."""
        if self.observation_normalizer is not None:
            self.observation_normalizer.update(observations[environments])
        # the last row, because every rollout begins by taking over the last row of the one before
        first = torch.as_tensor(self.observe(observations[environments]))
        self.rollout.observations[-1, environments] = first
        self.rollout.states[-1, environments] = 0.0

    def collect(self, agent: PPOAgent) -> None:
        """Fills the rollout with the next T steps of each environment."""
        rollout = self.rollout
        rollout.begin()
        everywhere = np.ones(rollout.n_envs, np.bool_)
        for t, noise in enumerate(agent.exploration_noise(rollout.n_steps, rollout.n_envs)):
            actions, outputs = agent.act(rollout.acting_on(t), noise, rollout.states[t])
            next_obs, rewards, terminated, truncated, info = self.envs.step(self.to_env(actions))
            dones = terminated | truncated
            valid = new = everywhere
            restarts = dones
            if "filler" in info:  # next-step autoreset: an end's next row is its final observation and filler
                valid, new, restarts = ~info["filler"], ~dones, info["filler"]
            self.episodes.step(rewards, dones, valid, info)
            if self.reward_normalizer is not None:
                rewards = self.reward_normalizer(rewards, dones, valid)
            if self.observation_normalizer is not None:
                self.observation_normalizer.update(next_obs[new])
            if "final_obs" in info:
                for env in np.flatnonzero(dones).tolist():
                    rollout.add_final(t, env, self.observe(info["final_obs"][env]), outputs)
            if outputs is not None:
                rollout.record(t, outputs, restarts)
            rollout.add(t, actions, rewards, terminated, truncated, self.observe(next_obs), valid)

    def state_dict(self) -> dict[str, Any]:
        """Environments, running episodes, statistics and observations, as a checkpoint stores them."""
        state: dict[str, Any] = {
            "observations": self.rollout.observations[-1],
            "memory": self.rollout.states[-1],
            "episodes": self.episodes.state_dict(),
            "environments": self.envs.snapshot(),
        }
        if self.observation_normalizer is not None:
            state["observation_statistics"] = self.observation_normalizer.statistics.state_dict()
        if self.reward_normalizer is not None:
            state["reward_statistics"] = self.reward_normalizer.statistics.state_dict()
            state["discounted_returns"] = self.reward_normalizer.returns
        return state

    def load_state_dict(self, state: Mapping[str, Any], seeds: list[int]) -> list[Lost]:
        """Goes on where `state_dict` was taken.

        Environments that do not come back begin new episodes. The running ones are cut: like truncated ones
        they were bootstrapped when the rollout before ended, and they stay out of the statistics.

        Args:
            state: from `state_dict`.
            seeds: of each environment's new episode, if it begins one.

        Returns:
            The environments that did not come back.
        """
        if state["environments"] is None:
            self.envs.reset(seed=seeds)
            lost = [Lost(env, "it can't be brought back") for env in range(self.envs.num_envs)]
        else:
            lost = self.envs.restore(state["environments"], seeds)
        _put(self.rollout.observations[-1], state["observations"], "observations")
        if "memory" in state:  # older checkpoints have none
            _put(self.rollout.states[-1], state["memory"], "memory")
        self.episodes.load_state_dict(state["episodes"])
        if self.observation_normalizer is not None:
            self.observation_normalizer.statistics.load_state_dict(state["observation_statistics"])
        if self.reward_normalizer is not None:
            self.reward_normalizer.statistics.load_state_dict(state["reward_statistics"])
            self.reward_normalizer.returns = np.asarray(state["discounted_returns"]).copy()
        if lost:
            environments = [env for env, _ in lost]
            self.episodes.forget(environments)
            if self.reward_normalizer is not None:
                self.reward_normalizer.forget(environments)
            self._begin(self.envs.observations, environments)
        return lost


def _put(place: torch.Tensor, value: torch.Tensor, name: str) -> None:
    if value.shape != place.shape or value.dtype != place.dtype:
        raise ValueError(f"{name}: expected {place.dtype} {list(place.shape)}, given {list(value.shape)}")
    place[:] = value


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
        n_steps,
        envs.num_envs,
        shape,
        dtype,
        distribution.action_shape,
        distribution.action_dtype,
        agent.model.state_size,
    )
    return Collector(
        envs,
        rollout,
        EpisodeStatistics(envs.num_envs),
        distribution.to_env,
        observation_normalizer,
        reward_normalizer,
    )


def train(
    agent: PPOAgent,
    collector: Collector,
    log: Log,
    total_timesteps: int,
    position: Position,
    after_iteration: Callable[[Position], None],
) -> Position:
    """Trains for whole iterations until at least ``total_timesteps`` environment steps.

    Iteration i of I (from 0) has progress i / I for every schedule.

    Args:
        agent: is trained.
        collector: has been reset, or brought back to where a run was.
        log: is written once an iteration.
        total_timesteps: budget, of the part before ``position`` too.
        position: where the run is.
        after_iteration: is called with the new position, after it was logged.

    Returns:
        Where the run ended.

    Raises:
        FloatingPointError: the loss, the gradient or a weight is not finite.
    """
    rollout = collector.rollout
    iterations = schedules.iterations(total_timesteps, rollout.n_envs, rollout.n_steps)
    if agent.compiled and position.steps < total_timesteps:
        log.status("compiling the update (kept for later runs)")
    while position.steps < total_timesteps:
        iteration, steps = position
        agent.anneal(min(iteration, iterations - 1) / iterations)  # filler rows can make it more than I
        started = time.perf_counter()
        collector.collect(agent)
        collected = time.perf_counter()
        rows = rollout.rows
        if not len(rows):
            continue
        metrics = agent.update(agent.compute_gae(rollout), rows)
        updated = time.perf_counter()
        position = Position(iteration + 1, steps + len(rows))
        loss, norm = metrics["total_loss"], metrics["grad_norm"]
        if not (math.isfinite(loss + norm) and agent.is_finite()):
            raise FloatingPointError(
                f"the loss is {loss} and its gradient's norm {norm} "
                f"at step {position.steps}; lower learning_rate, or normalise observations and rewards"
            )
        seconds = (collected - started, updated - collected)
        log.iteration(*position, _scalars(agent, metrics, collector, seconds, len(rows)))
        after_iteration(position)
    return position


def _scalars(
    agent: PPOAgent,
    metrics: Mapping[str, float],
    collector: Collector,
    seconds: tuple[float, float],
    steps: int,
) -> dict[str, float]:
    """The value of every tag that an iteration logs, with ``info/<key>`` of the episodes that ended in it."""
    episodic_return, episodic_length = collector.episodes.collect()
    collect, update = seconds
    return {
        "charts/episodic_return": episodic_return,
        "charts/episodic_length": episodic_length,
        "charts/SPS": steps / (collect + update),
        **{f"charts/{name}": value for name, value in agent.knobs.items() if _is_charted(agent, name)},
        **{f"losses/{name}": value for name, value in metrics.items()},
        "charts/env_faults": float(collector.envs.faults),
        "charts/cut_episodes": float(collector.episodes.cut),
        "time/collect": collect,
        "time/update": update,
        **{f"info/{key}": value for key, value in mean_over(collector.envs.take_infos()).items()},
    }


def _is_charted(agent: PPOAgent, knob: str) -> bool:
    """Whether a number of the update is logged: what few anneal only where it changes."""
    return knob not in SELDOM_ANNEALED or agent.schedules[knob].final is not None
