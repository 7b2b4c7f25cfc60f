"""One training run of rsl_rl with our settings: `python -m peers.run_rsl_rl rsl_rl CONFIG.json`.

rsl_rl has continuous actions only, so that LunarLander is made with ``continuous=True``; and it is written
for vectors of environments on a GPU, so that this wraps Gymnasium's vector as it wants one.
"""

import math
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from rsl_rl.algorithms import PPO
from rsl_rl.env import VecEnv
from rsl_rl.runners import OnPolicyRunner
from tensordict import TensorDict

from peers.common import Clock, make_env, make_vector, minibatches, read, rollouts, rows
from peers.table import PEERS


class Envs(VecEnv):
    """Gymnasium's vector of environments as rsl_rl steps one."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.envs = make_vector(config, AutoresetMode.SAME_STEP)
        space = self.envs.single_action_space
        self.low, self.high = space.low, space.high
        self.num_envs, self.num_actions = self.envs.num_envs, space.shape[0]
        self.device, self.cfg, self.max_episode_length = "cpu", {}, 0
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long)
        self.observations = self._grouped(self.envs.reset(seed=config["seed"])[0])

    def _grouped(self, observations: np.ndarray) -> TensorDict:
        rows = torch.as_tensor(observations, dtype=torch.float32)
        return TensorDict({"all": rows}, batch_size=[self.num_envs])

    def get_observations(self) -> TensorDict:
        return self.observations

    def step(self, actions: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict[str, Any]]:
        clipped = np.clip(actions.numpy(), self.low, self.high)
        observations, rewards, terminated, truncated, _ = self.envs.step(clipped)
        self.observations = self._grouped(observations)
        dones = torch.as_tensor(terminated | truncated).long()
        extras = {"time_outs": torch.as_tensor(truncated)}
        return self.observations, torch.as_tensor(rewards, dtype=torch.float32), dones, extras


def settings(config: dict[str, Any], agent: type[PPO]) -> dict[str, Any]:
    """Our settings as rsl_rl's."""
    network = {
        "class_name": "rsl_rl.models:MLPModel",
        "hidden_dims": config["network"]["hidden_sizes"],
        "activation": config["network"]["activation"],
    }
    std = math.exp(config["network"]["log_std_init"])
    distribution = {"class_name": "rsl_rl.modules:GaussianDistribution", "init_std": std, "std_type": "log"}
    return {
        "num_steps_per_env": config["n_steps"],
        "obs_groups": {"actor": ["all"], "critic": ["all"]},
        "actor": {**network, "distribution_cfg": distribution},
        "critic": network,
        "algorithm": {
            **PEERS["rsl_rl"].settings(config),
            "class_name": agent,
            "num_mini_batches": minibatches(config),
            "use_clipped_value_loss": config["vf_clip_ratio"] is not None,
            "schedule": "fixed",
        },
    }


def main() -> None:
    """Trains and prints."""
    config = read()
    if isinstance(make_env(config).action_space, gym.spaces.Discrete):
        if not config["env"]["id"].startswith("LunarLander-"):
            sys.exit("rsl_rl has continuous actions only")
        config["env"]["kwargs"]["continuous"] = True
    clock = Clock()

    class Timed(PPO):
        def update(self) -> dict[str, float]:
            losses: dict[str, float] = super().update()
            clock.note(len(clock.marks) * rows(config))
            return losses

    runner = OnPolicyRunner(Envs(config), settings(config, Timed))
    clock.note(0)
    runner.learn(rollouts(config))
    clock.report()


if __name__ == "__main__":
    main()
