"""Same config, same weights, bit for bit; whatever may not matter does not."""

import pytest
import torch

from ppo_cli.runs.checkpoint import load_checkpoint

SHORT = ("total_timesteps=900", "eval.episodes=3", "n_envs=3", "n_steps=100", "n_epochs=2")


def weights(ppo_train, tmp_path, *arguments):
    """Checkpoint of a fresh run."""
    before = set(tmp_path.glob("outputs/*/*/checkpoints/last.pt"))
    outcome = ppo_train(*arguments)
    assert outcome.status == 0, outcome.err
    (new,) = set(tmp_path.glob("outputs/*/*/checkpoints/last.pt")) - before
    return load_checkpoint(new)


def same(first, second):
    """Whether two checkpoints hold the same bits in everything that training changes."""
    names = ("model", "optimizer", "observation_statistics", "reward_statistics")
    return all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(second[name][key]))
        for name in names
        for key, value in first.get(name, {}).items()
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("env=CartPole-v1", *SHORT),
        ("env=CartPole-v1", *SHORT, "compile=true"),
        pytest.param(
            ("env=Pendulum-v1", *SHORT, "normalize.observations=true", "normalize.rewards=true"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("env=LunarLanderContinuous-v3", *SHORT, "use_sde=true", "sde_sample_freq=7"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["discrete", "compiled", "normalised", "gsde"],
)
def test_same_config_twice(ppo_train, tmp_path, arguments):
    first = weights(ppo_train, tmp_path, *arguments)
    second = weights(ppo_train, tmp_path, *arguments)
    assert same(first, second)
    assert not same(first, weights(ppo_train, tmp_path, *arguments, "seed=1"))


@pytest.mark.parametrize("env", ["CartPole-v1", "Acrobot-v1"])
def test_sync_and_async_agree(ppo_train, tmp_path, env):
    sync = weights(ppo_train, tmp_path, f"env={env}", *SHORT, "vectorization=sync")
    assert same(sync, weights(ppo_train, tmp_path, f"env={env}", *SHORT, "vectorization=async"))


def test_evaluation_does_not_touch_training(ppo_train, tmp_path):
    with_evaluation = weights(ppo_train, tmp_path, "env=CartPole-v1", *SHORT)
    without = weights(ppo_train, tmp_path, "env=CartPole-v1", *SHORT, "eval.episodes=0")
    assert same(with_evaluation, without)
