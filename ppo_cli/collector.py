"""How rollouts are collected: the agent's actions, the environments, and what stands between them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator

from ppo_cli.agent import PPOAgent
from ppo_cli.arrays import NUMPY, Array, Arrays
from ppo_cli.distributions import Distribution
from ppo_cli.envs.snapshot import Lost
from ppo_cli.envs.vector import Vector
from ppo_cli.episodes import EpisodeStatistics
from ppo_cli.normalize import ObservationNormalizer, RewardNormalizer, stored_observation
from ppo_cli.rollout import Rollout
from ppo_cli.spaces import fill_blank
from ppo_cli.tensors import Tensors

ALL = slice(None)  # environments


@dataclass
class Collector:
    """What turns the agent's actions into rollouts: the environments and what stands between them.

    All of it is arrays of NumPy on the CPU, or, where the environments give tensors, tensors on the device of
    the run, which go from the environments to the update without being anything else.

    Attributes:
        envs: N environments that reset in the step in which an episode ends.
        rollout: The buffers that `collect` fills.
        episodes: The statistics of the raw rewards.
        distribution: The way from stored actions to those that the environments take.
        generator: Draws the exploration noise, on the CPU.
        observation_normalizer: None leaves observations as they are.
        reward_normalizer: None leaves rewards as they are.
        arrays: What all of it is made of, as the first observations say.
    """

    envs: Vector
    rollout: Rollout
    episodes: EpisodeStatistics
    distribution: Distribution
    generator: Generator
    observation_normalizer: ObservationNormalizer | None
    reward_normalizer: RewardNormalizer | None
    arrays: Arrays = NUMPY

    def __post_init__(self) -> None:
        self._to_env: Callable[[Array], Array] = self.distribution.to_env

    def observe(self, observations: Array) -> Array:
        """Observations [..., *shape] as the agent sees them."""
        normalizer = self.observation_normalizer
        return self.arrays.as_float32(observations) if normalizer is None else normalizer(observations)

    @torch.no_grad()
    def reset(self, seeds: list[int]) -> None:
        """Starts the first episode of each environment with its seed."""
        self._begin(self._first_observations(seeds))

    def _first_observations(self, seeds: list[int]) -> Array:
        """Resets the environments, and becomes what they give: arrays or tensors."""
        observations = self.envs.reset(seed=seeds)[0]
        if self.arrays is not self.envs.arrays:
            self.arrays = self.envs.arrays
            for part in (self.episodes, *self.normalizers):
                part.take_kind(self.arrays)
            if isinstance(self.arrays, Tensors):
                self.rollout.take_tensors(self.arrays.device)
                self._to_env = self.distribution.to_env_module().to(self.arrays.device)
        return observations

    def _begin(self, observations: Array, environments: Sequence[int] | slice = ALL) -> None:
        """Takes in the first observations of episodes, [N, *shape], in some environments or all."""
        if self.observation_normalizer is not None:
            self.observation_normalizer.update(observations[environments])
        # the last row, because every rollout begins by taking over the last row of the one before
        self.rollout.begin_with(self.observe(observations[environments]), environments)
        self.rollout.states[-1, environments] = 0.0

    def take_statistics(
        self, observations: Mapping[str, Any] | None, rewards: Mapping[str, Any] | None
    ) -> None:
        """Has statistics of another run's in place of its own, which has seen nothing but first observations.

        Args:
            observations: The statistics of observations, or None.
            rewards: The statistics of rewards, or None.
        """
        if rewards is not None and self.reward_normalizer is not None:
            self.reward_normalizer.load_state_dict(rewards)
        if observations is not None and self.observation_normalizer is not None:
            self.observation_normalizer.load_state_dict(observations)
            self.rollout.begin_with(self.observe(self.envs.observations), ALL)

    @torch.no_grad()
    def collect(self, agent: PPOAgent) -> None:
        """Fills the rollout with the next T steps of each environment."""
        rollout, arrays = self.rollout, self.arrays
        rollout.begin()
        everywhere = ~arrays.zeros(rollout.n_envs, "bool")
        in_tensors = isinstance(arrays, Tensors)
        noises = agent.exploration_noise(rollout.n_steps, rollout.n_envs, self.generator, in_tensors)
        for t, noise in enumerate(noises):
            actions, outputs = agent.act(rollout.acting_on(t), noise, rollout.states[t])
            next_obs, rewards, terminated, truncated, info = self.envs.step(self._to_env(actions))
            dones = terminated | truncated
            valid = new = everywhere
            restarts = dones
            if "filler" in info:  # next-step autoreset: an end's next row is its final observation and filler
                valid, new = ~info["filler"], ~info["idle"]
                restarts = (dones | info["filler"]) & new
            self.episodes.step(rewards, dones, valid, info)
            if self.reward_normalizer is not None:
                rewards = self.reward_normalizer(rewards, dones, valid)
            if self.observation_normalizer is not None:
                self.observation_normalizer.update(next_obs, new)
            if "final_obs" in info:
                ended = arrays.flatnonzero(dones)
                rollout.add_final(t, ended, self.observe(info["final_obs"][ended]), outputs)
            if outputs is not None:
                rollout.record(t, outputs, restarts)
            rollout.add(t, actions, rewards, terminated, truncated, self.observe(next_obs), valid)

    @property
    def normalizers(self) -> list[ObservationNormalizer | RewardNormalizer]:
        """Those that there are."""
        both = (self.observation_normalizer, self.reward_normalizer)
        return [each for each in both if each is not None]

    def state_dict(self) -> dict[str, Any]:
        """Environments, running episodes, statistics and observations, as a checkpoint stores them."""
        state: dict[str, Any] = {
            "action_generator": self.generator.get_state(),
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

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any], seeds: list[int]) -> list[Lost]:
        """Goes on where `state_dict` was taken.

        Environments that do not come back begin new episodes. The running ones are cut: like truncated ones
        they were bootstrapped when the rollout before ended, and they stay out of the statistics.

        Args:
            state: The state that `state_dict` gave.
            seeds: The seed of each environment's new episode, if it begins one.

        Returns:
            The environments that did not come back.
        """
        if state["environments"] is None:
            self._first_observations(seeds)
            lost = [Lost(env, "it can't be brought back") for env in range(self.envs.num_envs)]
        else:
            lost = self.envs.restore(state["environments"], seeds)
        self.generator.set_state(state["action_generator"])
        _put(self.rollout.observations[-1], state["observations"], "observations")
        if "memory" in state:  # older checkpoints have none
            _put(self.rollout.states[-1], state["memory"], "memory")
        self.episodes.load_state_dict(state["episodes"])
        if self.observation_normalizer is not None:
            self.observation_normalizer.load_state_dict(state["observation_statistics"])
        if self.reward_normalizer is not None:
            self.reward_normalizer.load_state_dict(state["reward_statistics"])
            self.reward_normalizer.go_on(state["discounted_returns"])
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
    generator: Generator,
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
    fill_blank(rollout.observations[-1].numpy(), envs.single_observation_space)
    return Collector(
        envs,
        rollout,
        EpisodeStatistics(envs.num_envs),
        distribution,
        generator,
        observation_normalizer,
        reward_normalizer,
    )
