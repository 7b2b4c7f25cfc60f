"""One training run of skrl with our settings: `python -m peers.run_skrl skrl CONFIG.json`."""

from typing import Any

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer

from peers.common import Clock, annealed, make_vector, minibatches, mlp, read, rollouts, rows
from peers.table import PEERS


class Network(Model):
    """Hidden layers of ours and an output."""

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[torch.Tensor, dict[str, Any]]:
        return self.network(inputs["observations"]), {}


class Categorical(CategoricalMixin, Network):
    """Actor for a finite number of actions."""

    def __init__(self, config: dict[str, Any], **spaces: Any) -> None:
        Network.__init__(self, **spaces)
        CategoricalMixin.__init__(self)
        self.network = mlp(config, self.num_observations, self.num_actions, gain=0.01)


class Gaussian(GaussianMixin, Network):
    """Actor for continuous actions."""

    def __init__(self, config: dict[str, Any], **spaces: Any) -> None:
        Network.__init__(self, **spaces)
        GaussianMixin.__init__(self, clip_actions=False)
        self.network = mlp(config, self.num_observations, self.num_actions, gain=0.01)
        log_std = torch.full((self.num_actions,), float(config["network"]["log_std_init"]))
        self.log_std = torch.nn.Parameter(log_std)

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[torch.Tensor, dict[str, Any]]:
        return self.network(inputs["observations"]), {"log_std": self.log_std}


class Value(DeterministicMixin, Network):
    """Critic."""

    def __init__(self, config: dict[str, Any], **spaces: Any) -> None:
        Network.__init__(self, **spaces)
        DeterministicMixin.__init__(self)
        self.network = mlp(config, self.num_observations, 1)


def settings(config: dict[str, Any]) -> PPO_CFG:
    """Our settings as skrl's, which steps its schedule once an epoch."""
    taken = PPO_CFG(
        **PEERS["skrl"].settings(config),
        mini_batches=minibatches(config),
        value_clip=config["vf_clip_ratio"] or 0.0,
        kl_threshold=config["target_kl"] or 0.0,
        time_limit_bootstrap=True,
    )
    if annealed(config):
        taken.learning_rate_scheduler = torch.optim.lr_scheduler.LinearLR
        epochs = rollouts(config) * config["n_epochs"]
        taken.learning_rate_scheduler_kwargs = {"start_factor": 1.0, "end_factor": 0.0, "total_iters": epochs}
    taken.experiment.write_interval = taken.experiment.checkpoint_interval = 0
    return taken


def main() -> None:
    """Trains and prints."""
    config = read()
    clock = Clock()

    class Timed(PPO):
        def update(self, **when: Any) -> None:
            super().update(**when)
            clock.note(len(clock.marks) * rows(config))

    env = wrap_env(make_vector(config, AutoresetMode.SAME_STEP), verbose=False)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space, "device": "cpu"}
    actor = Categorical if isinstance(env.action_space, gym.spaces.Discrete) else Gaussian
    agent = Timed(
        models={"policy": actor(config, **spaces), "value": Value(config, **spaces)},
        memory=RandomMemory(memory_size=config["n_steps"], num_envs=config["n_envs"], device="cpu"),
        cfg=settings(config),
        **spaces,
    )
    steps = rollouts(config) * config["n_steps"]
    settled = {"timesteps": steps, "headless": True, "disable_progressbar": True}
    trainer = SequentialTrainer(env=env, agents=agent, cfg=settled)
    clock.note(0)
    trainer.train()
    clock.report()


if __name__ == "__main__":
    main()
