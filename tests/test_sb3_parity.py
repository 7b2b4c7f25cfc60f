"""The maths against Stable-Baselines3: same weights, same rollout, same minibatch order, same result."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.agent import PPOAgent
from ppo_cli.compiled_step import compile_step
from ppo_cli.distributions import make_distribution
from ppo_cli.rollout import Batch, Rollout
from ppo_cli.schedules import Schedule
from ppo_cli.update import Hyperparameters

N_ENVS, N_STEPS = 3, 50
ROWS = N_ENVS * N_STEPS
RAGGED = 32  # 150 rows: the last minibatch has 22
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
CASES = [("CartPole-v1", False), ("Pendulum-v1", False), ("Pendulum-v1", True)]
# our names of the parameters -> Stable-Baselines3's
NAMES = {
    "trunk.layers.0": "mlp_extractor.policy_net.0",
    "trunk.layers.1": "mlp_extractor.policy_net.2",
    "value_trunk.layers.0": "mlp_extractor.value_net.0",
    "value_trunk.layers.1": "mlp_extractor.value_net.2",
    "value_head": "value_net",
}


class Recorder(BaseCallback):
    """Copies what Stable-Baselines3 collects into our rollout, before it folds V(final) into the reward."""

    def _init_callback(self) -> None:
        space, distribution = self.model.observation_space, make_distribution(self.model.action_space)
        self.t = 0
        self.rollout = Rollout(
            N_STEPS, N_ENVS, space.shape, torch.float32, distribution.action_shape, distribution.action_dtype
        )

    def _on_step(self) -> bool:
        step = self.locals
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in step["infos"]])
        actions = step["actions"].reshape(N_ENVS, *self.rollout.actions.shape[2:])
        self.rollout.observations[self.t] = torch.from_numpy(self.model._last_obs)
        self.rollout.add(
            self.t,
            actions,
            step["rewards"].copy(),
            step["dones"] & ~truncated,
            truncated,
            step["new_obs"],
            np.ones(N_ENVS, bool),
        )
        for env in np.flatnonzero(step["dones"]):
            self.rollout.add_final(self.t, np.array([env]), step["infos"][env]["terminal_observation"][None])
        self.t += 1
        return True


def collect(env_id: str, use_sde: bool, **knobs: object) -> tuple[PPO, Rollout]:
    """A Stable-Baselines3 agent after one rollout under a short time limit, and that rollout."""
    envs = DummyVecEnv([lambda: gym.make(env_id, max_episode_steps=13) for _ in range(N_ENVS)])
    settings = {"batch_size": RAGGED, "n_epochs": 3, "learning_rate": 2e-3, **knobs}
    sb3 = PPO(
        "MlpPolicy", envs, n_steps=N_STEPS, gamma=0.97, gae_lambda=0.9, ent_coef=0.03, vf_coef=0.6,
        clip_range=0.15, seed=3, use_sde=use_sde, sde_sample_freq=4 if use_sde else -1, device="cpu",
        **settings,
    )  # fmt: skip
    recorder = Recorder()
    _, callback = sb3._setup_learn(10_000, recorder)
    assert sb3.collect_rollouts(sb3.env, callback, sb3.rollout_buffer, n_rollout_steps=N_STEPS)
    return sb3, recorder.rollout


def ours(sb3: PPO) -> PPOAgent:
    """Our agent with Stable-Baselines3's weights and knobs."""
    model = make_actor_critic(sb3.observation_space, sb3.action_space, use_sde=sb3.use_sde, shared=False)
    model.load_state_dict(weights(sb3))
    knobs = {"learning_rate": sb3.learning_rate, "clip_ratio": 0.15, "ent_coef": 0.03, "vf_coef": 0.6,
             "gamma": 0.97, "gae_lambda": 0.9, "max_grad_norm": 0.5, "target_kl": sb3.target_kl}  # fmt: skip
    return PPOAgent(
        model,
        make_distribution(sb3.action_space),
        Hyperparameters(batch_size=sb3.batch_size, n_epochs=sb3.n_epochs),
        {name: Schedule(value) for name, value in knobs.items() if value is not None},
        [torch.Generator().manual_seed(0)],
        N_ENVS,
        torch.device("cpu"),
    )


def weights(sb3: PPO, gradients: bool = False) -> dict[str, torch.Tensor]:
    """Stable-Baselines3's parameters, or their gradients, under our names."""
    theirs = {
        name: (parameter.grad if gradients else parameter.detach()).clone()
        for name, parameter in sb3.policy.named_parameters()
    }
    head = "policy_head.linear" if "log_std" in theirs else "policy_head"
    names = {**NAMES, head: "action_net"}
    found = {f"{a}.{kind}": theirs[f"{b}.{kind}"] for a, b in names.items() for kind in ("weight", "bias")}
    if "log_std" in theirs:
        found["policy_head.log_std"] = theirs["log_std"]
    return found


def env_major(batch: Batch) -> Batch:
    """Rows in the order in which Stable-Baselines3 numbers them: [T * N, ...] -> [N * T, ...]."""
    by_env = (column.unflatten(0, (N_STEPS, N_ENVS)).transpose(0, 1) for column in batch.columns)
    return Batch(*(column.flatten(0, 1) for column in by_env))


def share_shuffles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Stable-Baselines3 draw the permutations that our agent draws."""
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(np.random, "permutation", lambda n: torch.randperm(n, generator=generator).numpy())


@pytest.mark.parametrize(("env_id", "use_sde"), CASES)
def test_gae(env_id: str, use_sde: bool) -> None:
    sb3, rollout = collect(env_id, use_sde)
    assert rollout.truncated.any()
    batch = env_major(ours(sb3).compute_gae(rollout))
    buffer = sb3.rollout_buffer
    theirs = (buffer.log_probs, buffer.advantages, buffer.returns, buffer.values)
    for mine, their in zip(batch.columns[2:], theirs, strict=True):
        torch.testing.assert_close(
            mine, torch.from_numpy(buffer.swap_and_flatten(their)).flatten(), **TOLERANCE
        )


@pytest.mark.parametrize(("env_id", "use_sde"), CASES)
def test_gradient_of_one_full_batch(env_id: str, use_sde: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sb3, rollout = collect(env_id, use_sde, batch_size=ROWS, n_epochs=1)
    agent = ours(sb3)
    share_shuffles(monkeypatch)
    sb3.train()
    agent.update([env_major(agent.compute_gae(rollout))], [rollout.valid])
    gradient = agent.optimizer.exp_avg / 0.1  # after one step of Adam: (1 - β1) g
    names = [(name, parameter.shape) for name, parameter in agent.model.named_parameters()]
    pieces = gradient.split([shape.numel() for _, shape in names])
    theirs = weights(sb3, gradients=True)
    for (name, shape), piece in zip(names, pieces, strict=True):
        torch.testing.assert_close(piece.view(shape), theirs[name], **TOLERANCE)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("target_kl", [None, 1e-4])
@pytest.mark.parametrize(("env_id", "use_sde"), CASES)
def test_full_update(
    env_id: str,
    use_sde: bool,
    target_kl: float | None,
    compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    sb3, rollout = collect(env_id, use_sde, target_kl=target_kl)
    before = weights(sb3)
    agent = ours(sb3)
    if compiled:
        agent._step = compile_step(agent._step, tmp_path)
    share_shuffles(monkeypatch)
    sb3.train()
    metrics = agent.update([env_major(agent.compute_gae(rollout))], [rollout.valid])
    after = weights(sb3)
    for name, value in agent.model.state_dict().items():
        torch.testing.assert_close(value, after[name], **TOLERANCE)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    logged = sb3.logger.name_to_value
    assert metrics["policy_loss"] == pytest.approx(logged["train/policy_gradient_loss"], abs=1e-5)
    assert metrics["value_loss"] == pytest.approx(logged["train/value_loss"], rel=1e-5)
    assert metrics["entropy"] == pytest.approx(-logged["train/entropy_loss"], rel=1e-5)
    assert metrics["clipfrac"] == pytest.approx(logged["train/clip_fraction"], abs=1e-5)
    assert metrics["explained_variance"] == pytest.approx(logged["train/explained_variance"], abs=1e-5)
    if target_kl is not None:
        stopped = np.ceil(ROWS / RAGGED) * 3
        assert agent.optimizer.step.item() < stopped  # the stop fired
