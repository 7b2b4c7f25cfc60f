"""PPO learns each probe environment: value, policy, credit over time and the bootstrap of a truncation."""

import numpy as np
import pytest
import torch

from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.runs.policy import load_policy

GAMMA = 0.9
KNOBS = (
    "preset=none", "n_envs=8", "n_steps=32", "batch_size=64", "n_epochs=8", "learning_rate=5e-3",
    f"gamma={GAMMA}", "ent_coef=0.001", "eval.episodes=0", "compile=false",
)  # fmt: skip


def learn(ppo_train, tmp_path, env, steps, *knobs):
    """Trains on a probe; returns V and the probability of action 1 as functions of the observation."""
    outcome = ppo_train(f"env=probe_envs:{env}-v0", f"total_timesteps={steps}", *KNOBS, *knobs)
    assert outcome.status == 0, outcome.err
    checkpoint = next(tmp_path.glob("outputs/*/*/checkpoints/last.pt"))
    assert load_checkpoint(checkpoint)["steps"] >= steps
    policy = load_policy(checkpoint).batch

    def value(observation):
        return policy.model.value(torch.tensor([[observation]])).item()

    def probability(observation):
        return policy.model.policy(torch.tensor([[observation]])).softmax(-1)[0, 1].item()

    return value, probability


@pytest.mark.parametrize("shared", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_constant_reward(ppo_train, tmp_path, shared):
    value, _ = learn(ppo_train, tmp_path, "ConstantReward", 5_000, f"network.shared={shared}")
    assert value(0.0) == pytest.approx(1.0, abs=0.05)


@pytest.mark.slow
def test_reward_from_observation(ppo_train, tmp_path):
    value, _ = learn(ppo_train, tmp_path, "ObservationReward", 5_000)
    assert value(1.0) == pytest.approx(1.0, abs=0.1)
    assert value(-1.0) == pytest.approx(-1.0, abs=0.1)


@pytest.mark.slow
def test_reward_from_action(ppo_train, tmp_path):
    _, probability = learn(ppo_train, tmp_path, "ActionReward", 5_000)
    assert probability(0.0) > 0.95


@pytest.mark.parametrize("shared", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_reward_from_both(ppo_train, tmp_path, shared):
    _, probability = learn(ppo_train, tmp_path, "BothReward", 8_000, f"network.shared={shared}")
    assert probability(1.0) > 0.95
    assert probability(-1.0) < 0.05


@pytest.mark.slow
def test_delayed_reward(ppo_train, tmp_path):
    value, probability = learn(ppo_train, tmp_path, "DelayedReward", 10_000)
    assert probability(-1.0) > 0.95
    assert value(-1.0) == pytest.approx(GAMMA, abs=0.1)


@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.slow)])
def test_truncation_bootstraps(ppo_train, tmp_path, vectorization):
    value, _ = learn(ppo_train, tmp_path, "TruncatedReward", 20_000, f"vectorization={vectorization}")
    assert value(0.0) == pytest.approx(1 / (1 - GAMMA), rel=0.1)
    assert not np.isclose(value(0.0), (1 - GAMMA**5) / (1 - GAMMA), rtol=0.1)
