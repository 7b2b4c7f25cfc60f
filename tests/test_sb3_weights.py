"""Runs that begin with the weights of Stable-Baselines3's files: the same actions and values, or a line."""

import json
import pickle
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

import ppo_cli

pytestmark = pytest.mark.filterwarnings("ignore")  # Stable-Baselines3's on images and on GPUs
TINY = (
    "n_envs=1", "n_steps=8", "total_timesteps=8", "n_epochs=1", "eval.episodes=0", "compile=false",
    "vectorization=sync", "network.shared=false",
)  # fmt: skip
SMALL = {"net_arch": [8, 8]}
# An environment's arguments, a policy and its options, and how our network for it is typed.
CASES = {
    "discrete": ("vector", "discrete", "MlpPolicy", {}, ()),
    "relu": ("vector", "discrete", "MlpPolicy", {**SMALL, "activation_fn": nn.ReLU},
             ("network.hidden_sizes=[8,8]", "network.activation=relu")),
    "box": ("vector", "box", "MlpPolicy", {"net_arch": {"pi": [8], "vf": [8]}},
            ("network.hidden_sizes=[8]",)),
    "linear": ("float64", "box", "MlpPolicy", {"net_arch": []}, ("network.hidden_sizes=[]",)),
    "index": ("lake", "discrete", "MlpPolicy", SMALL, ("network.hidden_sizes=[8,8]",)),
    "indices": ("vector", "multi_discrete", "MlpPolicy", SMALL, ("network.hidden_sizes=[8,8]",)),
    "bits": ("multi_binary", "multi_binary", "MlpPolicy", SMALL, ("network.hidden_sizes=[8,8]",)),
    "gsde": ("vector", "box", "MlpPolicy", {**SMALL, "use_sde": True},
             ("network.hidden_sizes=[8,8]", "use_sde=true")),
    "squashed": ("vector", "box", "MlpPolicy", {**SMALL, "use_sde": True, "squash_output": True},
                 ("network.hidden_sizes=[8,8]", "use_sde=true", "squash_actions=true")),
    "images": ("hwc", "discrete", "CnnPolicy", {}, ("network.hidden_sizes=[]",)),
    "channels_first": ("chw", "box", "CnnPolicy", {"net_arch": [8]}, ("network.hidden_sizes=[8]",)),
}  # fmt: skip


def make(observation, action):
    if observation == "lake":  # since theirs have no index below 0, as the zoo's
        return gym.make("FrozenLake-v1")
    return gym.make("zoo_envs:Zoo-v0", observation=observation, action=action)


def save(path, observation, action, policy, options):
    """Writes a file of Stable-Baselines3's with weights far from those of its initialisation."""
    options = dict(options)
    use_sde = options.pop("use_sde", False)
    model = PPO(
        policy, make(observation, action), n_steps=8, batch_size=8, seed=3, use_sde=use_sde,
        policy_kwargs=options, device="cpu",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.policy.parameters():
            spread = 0.1 if policy == "MlpPolicy" else 0.01  # with which sums over images stay small
            weights.add_(spread * torch.randn(weights.shape, generator=generator))
    model.save(path)
    return model


def typed(observation, action, ours):
    if observation == "lake":
        return ("env.id=FrozenLake-v1", *TINY, *ours)
    return (
        "env.id=zoo_envs:Zoo-v0", f"+env.kwargs.observation={observation}", f"+env.kwargs.action={action}",
        *TINY, *ours,
    )  # fmt: skip


QUICK = ("relu", "box", "squashed", "images")  # with every option once


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_actions_and_values_are_the_same(case, tmp_path, monkeypatch):
    observation, action, policy, options, ours = CASES[case]
    monkeypatch.chdir(tmp_path)
    theirs = save("sb3.zip", observation, action, policy, options)
    run = ppo_cli.train(*typed(observation, action, ours), init_from="sb3.zip", folder="run", verbose=False)
    assert run.config.init_from.startswith("sb3.zip@")
    loaded = ppo_cli.load(run, 0)
    space = theirs.observation_space if observation != "hwc" else make(observation, action).observation_space
    space.seed(0)
    rows = np.stack([space.sample() for _ in range(20)])
    seen = rows.transpose(0, 3, 1, 2) if observation == "hwc" else rows
    expected, _ = theirs.predict(seen, deterministic=True)
    np.testing.assert_allclose(loaded.act(rows), expected, rtol=1e-6, atol=1e-6)
    tensors, _ = theirs.policy.obs_to_tensor(seen)
    stored = torch.from_numpy(loaded._read(rows, None)[0])
    model = loaded.batch.model
    with torch.no_grad():
        values, logits = model.value(stored), model.policy(stored)
        expected = theirs.policy.predict_values(tensors)[:, 0]
        torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-6)
        actions = loaded.batch.distribution.mode(logits)
        probability = theirs.policy.evaluate_actions(tensors, actions)[1]
        if not run.config.squash_actions:  # of which theirs is the density behind the tanh
            own = loaded.batch.distribution.log_prob(logits, actions)
            torch.testing.assert_close(own, probability, rtol=1e-6, atol=2e-6)


def test_a_network_of_hidden_layers_that_policy_and_value_share_is_taken_too(tmp_path, monkeypatch):
    """Versions before 1.8 wrote them by other names."""
    monkeypatch.chdir(tmp_path)
    save("sb3.zip", "vector", "discrete", "MlpPolicy", SMALL)
    policy = read(Path("sb3.zip"))["policy.pth"]
    shared = {
        name.replace("policy_net", "shared_net"): weights for name, weights in policy.items()
        if "mlp_extractor.value_net" not in name
    }  # fmt: skip
    rewrite(Path("sb3.zip"), policy=shared)
    ours = ("network.hidden_sizes=[8,8]", "network.shared=true")
    run = ppo_cli.train(*typed("vector", "discrete", ours), init_from="sb3.zip", folder="run", verbose=False)
    model = ppo_cli.load(run, 0).batch.model
    torch.testing.assert_close(model.trunk.linears[1].weight, policy["mlp_extractor.policy_net.2.weight"])


def read(path):
    with zipfile.ZipFile(path) as archive:
        return {
            "data": json.loads(archive.read("data")),
            "policy.pth": torch.load(archive.open("policy.pth"), weights_only=True),
        }


def rewrite(path, policy=None, **data):
    """Changes a file's weights, or what it says beside them."""
    found = read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps(found["data"] | data))
        with archive.open("policy.pth", "w") as file:
            torch.save(found["policy.pth"] if policy is None else policy, file)


def refused(arguments):
    with pytest.raises(ppo_cli.ConfigError) as error:
        ppo_cli.train(*arguments, init_from="sb3.zip", folder="run", verbose=False)
    assert not Path("run").exists() and "\n" not in str(error.value)
    return str(error.value)


OURS = ("network.hidden_sizes=[8,8]",)


def test_what_does_not_fit_is_said_in_our_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("sb3.zip", "vector", "discrete", "MlpPolicy", {**SMALL, "activation_fn": nn.ReLU})
    line = refused(typed("vector", "discrete", OURS))
    assert "network.activation=relu there and tanh here" in line
    line = refused(typed("vector", "discrete", ("network.shared=true",)))
    assert "network.hidden_sizes=[8,8] there and [64,64] here" in line and "network.shared=false" in line
    rewrite(Path("sb3.zip"), policy_kwargs={"use_expln": True})
    assert "use_expln=True" in refused(typed("vector", "discrete", OURS))
    save("sb3.zip", "hwc", "discrete", "MlpPolicy", SMALL)
    line = refused(typed("hwc", "discrete", (*OURS, "network.image_encoder=flatten")))
    assert "bytes without a CNN" in line


def test_a_critic_of_other_widths_is_said_as_it_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"net_arch": {"pi": [], "vf": [8]}, "activation_fn": nn.ReLU}
    save("sb3.zip", "vector", "discrete", "MlpPolicy", options)
    line = refused(typed("vector", "discrete", ("network.hidden_sizes=[]",)))
    assert "network.critic.hidden_sizes=[8] there and null here" in line
    ours = ("network.hidden_sizes=[]", "network.critic.hidden_sizes=[8]")
    assert "network.activation=relu there and tanh here" in refused(typed("vector", "discrete", ours))
    line = refused(typed("vector", "discrete", (*ours, "network.activation=relu", "value_loss=symlog")))
    assert "value_loss=mse there and symlog here" in line


def test_statistics_that_a_pickle_has_begin_anew_and_that_is_said(ppo_train):
    save("sb3.zip", "vector", "discrete", "MlpPolicy", SMALL)
    begun = ppo_train(*typed("vector", "discrete", OURS), "init_from=sb3.zip", "normalize.observations=true")
    assert begun.status == 0, begun.err
    assert "statistics of observations begin anew (those of VecNormalize are a pickle" in begun.out


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    "where", ["policy", "data", "extractors", "names", "lstm", "infinite", "dqn", "nothing"]
)
def test_a_damaged_or_hostile_file_is_one_line_and_nothing_of_it_runs(tmp_path, monkeypatch, capfd, where):
    monkeypatch.chdir(tmp_path)
    path = Path("sb3.zip")
    save(path, "vector", "discrete", "MlpPolicy", SMALL)
    policy = read(path)["policy.pth"]
    said = "sb3.zip"
    if where == "policy":
        rewrite(path, policy={**policy, "action_net.weight": Evil()})
        said = "is not a readable file of Stable-Baselines3's: UnpicklingError"
    elif where == "data":  # which nothing looks at
        rewrite(
            path, policy_kwargs={":type:": "x", ":serialized:": pickle.dumps(Evil()).hex()}, num_timesteps="x"
        )
        ppo_cli.train(*typed("vector", "discrete", OURS), init_from="sb3.zip", folder="run", verbose=False)
        assert "executed" not in capfd.readouterr().out
        return
    elif where == "extractors":
        rewrite(path, policy={**policy, "vf_features_extractor.linear.0.weight": torch.ones(2)})
        said = "share_features_extractor=False"
    elif where == "names":
        rewrite(path, policy={**policy, "\x1b[2J" + 400 * "x": torch.ones(2)})
        said = "are none of an MlpPolicy or CnnPolicy"
    elif where == "lstm":
        rewrite(path, policy={**policy, "lstm_actor.weight_ih_l0": torch.ones(2)})
        said = "its weights lstm_actor.weight_ih_l0 are none of an MlpPolicy or CnnPolicy"
    elif where == "infinite":
        rewrite(path, policy={**policy, "value_net.bias": torch.tensor([float("inf")])})
        said = "its weights value_net.bias are no finite 32-bit numbers"
    elif where == "dqn":
        DQN("MlpPolicy", make("vector", "discrete"), buffer_size=10).save(path)
        said = "are none of an MlpPolicy or CnnPolicy"
    else:
        rewrite(path, policy={})
        said = "it holds no actor and critic"
    line = refused(typed("vector", "discrete", OURS))
    assert said in line and "\x1b" not in line and len(line) < 600
    assert "executed" not in capfd.readouterr().out


def test_the_pickle_of_statistics_is_no_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8)
    VecNormalize(theirs.get_env()).save("stats.pkl")
    with pytest.raises(ppo_cli.ConfigError, match=r"stats\.pkl is not a readable checkpoint"):
        ppo_cli.train("env.id=CartPole-v1", *TINY, init_from="stats.pkl", folder="run", verbose=False)


@pytest.mark.slow
def test_a_run_goes_on_from_a_file_and_is_better_than_that(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = PPO("MlpPolicy", "CartPole-v1", n_steps=512, batch_size=64, seed=0, device="cpu")
    theirs.learn(3_000)
    theirs.save("sb3.zip")
    run = ppo_cli.train(
        env="CartPole-v1", init_from="sb3.zip", total_timesteps=30_000, folder="run", verbose=False,
        eval={"episodes": 20}, checkpoint={"keep": 99}, compile=False,
    )  # fmt: skip
    before = ppo_cli.evaluate(run, checkpoint=0)
    steps = [theirs.predict(np.zeros(4, np.float32), deterministic=True)[0]]
    assert ppo_cli.load(run, 0).act(np.zeros(4, np.float32)) == steps[0]
    assert before.mean > 20  # it had learnt something, which a fresh policy has not
    assert run.evaluation.mean > before.mean + 100
