"""A run's policy acts on what Gymnasium gives, one observation or many, as its evaluation does."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from ppo_cli.runs.policy import load_policy
from ppo_cli.seeding import spawn_seeds

TINY = (
    "env=zoo_envs:Zoo-v0", "preset=none", "total_timesteps=64", "n_envs=2", "n_steps=32", "n_epochs=1",
    "eval.episodes=3", "network.hidden_sizes=[8]", "compile=false", "vectorization=sync", "hydra.run.dir=run",
)  # fmt: skip
SETTINGS = {
    "vector": (),
    "dict and masks in info": ("dict", "multi_discrete", "info"),
    "tuple, nested actions": ("tuple", "product", "none"),
    "discrete and a mask": ("discrete", "start", "info"),
    "mask as a key": ("vector", "discrete", "key"),
    "box": ("float64", "box", "none"),
}


def trained(ppo_train, setting, *more):
    names = ("observation", "action", "mask")
    kwargs = [f"+env.kwargs.{name}={value}" for name, value in zip(names, setting, strict=False)]
    outcome = ppo_train(*TINY, *kwargs, *more)
    assert outcome.status == 0, outcome.err
    return load_policy(Path("run/checkpoints/last.pt"))


@pytest.mark.parametrize(
    ("setting", "memory"),
    [(setting, ("none", "gru")[number % 2]) for number, setting in enumerate(SETTINGS.values())],
    ids=SETTINGS,
)
def test_episodes_played_by_hand_are_those_of_the_evaluation(ppo_train, setting, memory):
    policy = trained(ppo_train, setting, f"network.memory={memory}", "normalize.observations=true")
    saved = json.loads(Path("run/eval.json").read_text())
    masked = policy.config.env.action_mask is True
    env = policy.make_env()
    assert env.observation_space == policy.observation_space
    for seed, expected in zip(spawn_seeds(1000, "eval", 3), saved["returns"], strict=True):
        observation, info = env.reset(seed=seed)
        policy.reset()
        total, over = 0.0, False
        while not over:
            action = policy.act(observation, info["action_mask"] if masked else None)
            assert env.action_space.contains(action)
            observation, reward, terminated, truncated, info = env.step(action)
            total, over = total + reward, terminated or truncated
        assert total == pytest.approx(expected, abs=1e-5)  # a batch of another size rounds otherwise


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_batch_of_a_vector_environment_gets_the_actions_that_each_would(ppo_train, setting):
    policy = trained(ppo_train, setting)
    envs = gym.vector.SyncVectorEnv([policy.make_env] * 3)
    observations, infos = envs.reset(seed=[1, 2, 3])
    masked = policy.config.env.action_mask is True
    masks = infos["action_mask"] if masked else [None] * 3
    actions = policy.act(observations, masks if masked else None)
    each = list(gym.vector.utils.iterate(envs.action_space, actions))
    envs.step(actions)
    for env, mask, action in zip(envs.envs, masks, each, strict=True):
        env.reset(seed=1 + envs.envs.index(env))
        alone, _ = env.reset(seed=1 + envs.envs.index(env))
        assert spaces.utils.flatten(policy.action_space, action).tolist() == pytest.approx(
            spaces.utils.flatten(policy.action_space, policy.act(alone, mask)).tolist(), abs=1e-6
        )


def test_a_memory_is_kept_passed_or_forgotten(ppo_train):
    policy = trained(ppo_train, (), "network.memory=lstm")
    first, second = np.float32([[1, 0, 1], [0, 2, 0]])
    assert policy.state is None
    policy.act(first)
    after_first = policy.state
    policy.act(second)
    after_second = policy.state
    assert (after_first != after_second).any()
    policy.act(second, state=after_first)
    assert (policy.state == after_second).all()
    policy.reset()
    policy.act(first)
    assert (policy.state == after_first).all()
    with pytest.raises(ValueError, match=r"for 2 observations: expected \[2, 256\]; reset\(\) begins"):
        policy.act(np.stack([first, second]))
    policy.reset()
    policy.act(np.stack([first, second]))
    policy.reset(ended=[True, False])
    assert not policy.state[0].any() and policy.state[1].any()


def test_sampling_is_seeded(ppo_train):
    policy = trained(ppo_train, ())
    observations = np.zeros((50, 3), np.float32)
    drawn = policy.act(observations, deterministic=False)
    assert len(set(drawn.tolist())) > 1
    assert (policy.act(observations, deterministic=False) != drawn).any()
    policy.seed(0)
    assert (policy.act(observations, deterministic=False) == drawn).all()
    assert len(set(policy.act(observations).tolist())) == 1


@pytest.mark.parametrize(
    ("setting", "observation", "mask", "message"),
    [
        ((), np.zeros(4, np.float32), None, r"of shape \(4,\), where its space says \(3,\)"),
        ((), np.full(3, np.nan, np.float32), None, "a NaN or an infinity in the observation"),
        ((), np.zeros(3, np.float32), [1, 1, 1, 1], "a mask is given, and the policy was trained without"),
        (("dict",), {"speed": np.zeros(2)}, None, "an observation without 'gear'"),
        (("discrete", "discrete", "info"), 1, None, r"act\(observation, mask=info\['action_mask'\]\)"),
        (("discrete", "discrete", "info"), 1, [1, 1], r"a mask of shape \[2\]: expected \[4\] a row"),
        (("discrete",), 7, None, "an observation of 7, where its space has 2 to 6"),
    ],
)  # fmt: skip
def test_what_is_no_observation_is_said_in_a_line(ppo_train, setting, observation, mask, message):
    policy = trained(ppo_train, setting)
    with pytest.raises(ValueError, match=message) as found:
        policy.act(observation, mask)
    assert "\n" not in str(found.value)
