"""What Stable-Baselines3 returns with our settings, on the episodes that our runs are evaluated on.

    python benchmarks/returns.py env=Hopper-v5 seed=0 eval.episodes=100

It trains for the preset's budget, in this process; the policy then plays our evaluation's own episodes, with
its normalisation frozen. Prints a line of JSON as in eval.json.
"""

import json
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peers.run_sb3 import make_peer
from stable_baselines3.common.vec_env import VecNormalize

from ppo_cli.config.compose import load
from ppo_cli.config.convert import to_dict
from ppo_cli.distributions import Distribution, make_distribution
from ppo_cli.runs.build import check_environment, env_maker, evaluation_plan
from ppo_cli.runs.evaluation import evaluate


@dataclass(frozen=True)
class PeerPolicy:
    """The peer's agent with the interface of `ppo_cli.policy.BatchPolicy`."""

    agent: Any
    distribution: Distribution
    initial_state: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    def act(
        self, observations: npt.NDArray[Any], generator: torch.Generator | None, states: torch.Tensor
    ) -> tuple[npt.NDArray[Any], torch.Tensor]:
        """Actions for raw observations; sampled where there is a generator."""
        envs = self.agent.get_env()
        if isinstance(envs, VecNormalize):
            observations = envs.normalize_obs(observations)
        actions, _ = self.agent.predict(observations, deterministic=generator is None)
        return np.asarray(actions), states


def main() -> None:
    """Trains, evaluates and prints."""
    config = check_environment(load(*sys.argv[1:])).config
    agent = make_peer("sb3", to_dict(config))
    agent.learn(config.total_timesteps)
    env = env_maker(config.env)()
    policy: Any = PeerPolicy(agent, make_distribution(env.action_space))
    env.close()
    found = evaluate(policy, evaluation_plan(config))
    print(json.dumps({"mean": found.mean, "std": found.std, "iqm": found.iqm, "returns": found.returns}))


if __name__ == "__main__":
    main()
