"""One training run of TorchRL with our settings: `python -m peers.run_torchrl torchrl CONFIG.json`.

TorchRL is a library of parts; they are put together here as its own PPO scripts do, with `torch.compile` for
acting and for the update.
"""

import math
from typing import Any

import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from tensordict.nn import AddStateIndependentNormalScale, TensorDictModule
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.envs import GymWrapper
from torchrl.modules import IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from peers.common import Clock, annealed, make_vector, mlp, read, rollouts, rows
from peers.table import PEERS


def make_networks(config: dict[str, Any], env: GymWrapper) -> tuple[ProbabilisticActor, ValueOperator]:
    """Actor and critic, which share nothing."""
    inputs = env.observation_spec["observation"].shape[-1]
    space = env.action_spec_unbatched
    if space.domain == "discrete":
        network: torch.nn.Module = mlp(config, inputs, space.space.n, gain=0.01)
        parameters, distribution = ["logits"], torch.distributions.Categorical
    else:
        scale = math.exp(config["network"]["log_std_init"])
        network = torch.nn.Sequential(
            mlp(config, inputs, space.shape[-1], gain=0.01),
            AddStateIndependentNormalScale(space.shape[-1], init_value=scale),
        )
        parameters, distribution = ["loc", "scale"], IndependentNormal
    actor = ProbabilisticActor(
        TensorDictModule(network, in_keys=["observation"], out_keys=parameters),
        in_keys=parameters,
        spec=env.full_action_spec_unbatched,
        distribution_class=distribution,
        return_log_prob=True,
    )
    return actor, ValueOperator(mlp(config, inputs, 1), in_keys=["observation"])


def main() -> None:
    """Trains and prints."""
    config = read()
    clock = Clock()
    env = GymWrapper(make_vector(config, AutoresetMode.DISABLED), categorical_action_encoding=True)
    env.set_seed(config["seed"])
    actor, critic = make_networks(config, env)
    advantages = GAE(gamma=config["gamma"], lmbda=config["gae_lambda"], value_network=critic)
    loss = ClipPPOLoss(actor, critic, loss_critic_type="l2", **PEERS["torchrl"].settings(config))
    optimizer = torch.optim.Adam(loss.parameters(), lr=config["learning_rate"], eps=1e-5)
    schedule = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1.0, 0.0 if annealed(config) else 1.0, total_iters=rollouts(config)
    )
    collector = Collector(
        env, actor, frames_per_batch=rows(config), total_frames=rollouts(config) * rows(config),
        compile_policy=True,
    )  # fmt: skip
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(rows(config)),
        sampler=SamplerWithoutReplacement(),
        batch_size=config["batch_size"],
    )

    @torch.compile
    def update(minibatch: TensorDict) -> None:
        optimizer.zero_grad()
        losses = loss(minibatch)
        (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), config["max_grad_norm"])
        optimizer.step()

    clock.note(0)
    for rollout in collector:
        with torch.no_grad():
            advantages(rollout)
        buffer.extend(rollout.reshape(-1))
        for _ in range(config["n_epochs"]):
            for minibatch in buffer:
                update(minibatch)
        schedule.step()
        collector.update_policy_weights_()
        clock.note(len(clock.marks) * rows(config))
    collector.shutdown()
    clock.report()


if __name__ == "__main__":
    main()
