"""One training run of Tianshou with our settings: `python -m peers.run_tianshou tianshou CONFIG.json`."""

from typing import Any

import gymnasium as gym
import torch
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy, ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactoryLinear
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import ModuleWithVectorOutput, Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

from peers.common import ACTIVATIONS, Clock, annealed, make_env, read, rollouts, rows
from peers.table import PEERS


def trunk(config: dict[str, Any], space: gym.spaces.Box) -> ModuleWithVectorOutput:
    """Tianshou's hidden layers, of our sizes."""
    network = config["network"]
    return Net(
        state_shape=space.shape,
        hidden_sizes=network["hidden_sizes"],
        activation=ACTIVATIONS[network["activation"]],
    )


def gaussian(parameters: tuple[torch.Tensor, torch.Tensor]) -> torch.distributions.Distribution:
    """The distribution of continuous actions, from mean and standard deviation."""
    return torch.distributions.Independent(torch.distributions.Normal(*parameters), 1)


def make_networks(config: dict[str, Any], env: gym.Env[Any, Any]) -> tuple[Any, torch.nn.Module]:
    """Policy and critic, which share nothing."""
    inner, outer = (trunk(config, env.observation_space) for _ in range(2))
    if isinstance(env.action_space, gym.spaces.Discrete):
        actor = DiscreteActor(preprocess_net=inner, action_shape=env.action_space.n, softmax_output=False)
        critic: torch.nn.Module = DiscreteCritic(preprocess_net=outer)
        policy: Any = DiscreteActorPolicy(actor=actor, action_space=env.action_space)
    else:
        actor = ContinuousActorProbabilistic(
            preprocess_net=inner, action_shape=env.action_space.shape, unbounded=True
        )
        torch.nn.init.constant_(actor.sigma_param, config["network"]["log_std_init"])
        critic = ContinuousCritic(preprocess_net=outer)
        policy = ProbabilisticActorPolicy(
            actor=actor, dist_fn=gaussian, action_space=env.action_space, action_scaling=False
        )
    if config["network"]["ortho_init"]:
        for layer in [*actor.modules(), *critic.modules()]:
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.orthogonal_(layer.weight, 2**0.5)
                torch.nn.init.zeros_(layer.bias)
    return policy, critic


def main() -> None:
    """Trains and prints."""
    config = read()
    clock = Clock()
    optimizer = AdamOptimizerFactory(lr=config["learning_rate"], eps=1e-5)
    if annealed(config):
        optimizer.with_lr_scheduler_factory(
            LRSchedulerFactoryLinear(rollouts(config), rows(config), rows(config))
        )
    policy, critic = make_networks(config, make_env(config))
    agent = PPO(
        policy=policy,
        critic=critic,
        optim=optimizer,
        value_clip=config["vf_clip_ratio"] is not None,
        **PEERS["tianshou"].settings(config),
    )
    envs = DummyVectorEnv([lambda: make_env(config)] * config["n_envs"])
    envs.seed(config["seed"])
    agent.run_training(
        OnPolicyTrainerParams(
            training_collector=Collector(agent, envs, VectorReplayBuffer(rows(config), config["n_envs"])),
            max_epochs=rollouts(config),
            epoch_num_steps=rows(config),
            collection_step_num_env_steps=rows(config),
            update_step_num_repetitions=config["n_epochs"],
            batch_size=config["batch_size"],
            training_fn=lambda _, steps: clock.note(steps),
            verbose=False,
            show_progress=False,
        )
    )
    clock.note(rollouts(config) * rows(config))
    clock.report()


if __name__ == "__main__":
    main()
