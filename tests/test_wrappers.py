"""Wrappers from a config: found by name, applied in order, in training only where that is said."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import yaml

from ppo_cli.config.compose import load
from ppo_cli.envs.make import make_env
from ppo_cli.envs.wrappers import find_wrapper
from ppo_cli.errors import EnvError

STACK = {"name": "FrameStackObservation", "stack_size": 3}
PLAIN = ("env=CartPole-v1", "preset=none")
TINY = ("total_timesteps=300", "n_envs=2", "n_steps=50", "n_epochs=1", "eval.episodes=2")

MODULE = """
import gymnasium as gym

class Doubled(gym.RewardWrapper):
    def __init__(self, env, times=2):
        super().__init__(env)
        self.times = times

    def reward(self, reward):
        return reward * self.times

def not_a_class(env):
    return env
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of an importable module with a wrapper."""
    (tmp_path / "ppo_cli_own_wrappers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "ppo_cli_own_wrappers"
    sys.modules.pop("ppo_cli_own_wrappers", None)


def layers(env):
    """Class names from the outermost wrapper to the environment."""
    names = []
    while isinstance(env, gym.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    return names


def refusal(*wrappers, env_id="CartPole-v1"):
    """The line that wrappers are refused with."""
    with pytest.raises(EnvError) as caught:
        make_env(env_id, None, wrappers)
    message = str(caught.value)
    assert message.startswith("env.wrappers: ")
    assert "\n" not in message
    return message


def test_the_first_is_innermost():
    env = make_env("CartPole-v1", None, [STACK, {"name": "FlattenObservation"}])
    assert layers(env)[:2] == ["FlattenObservation", "FrameStackObservation"]
    assert env.observation_space.shape == (12,)
    assert env.reset(seed=0)[0].shape == (12,)
    env.close()


def test_some_are_for_training_only(own):
    doubled = {"name": f"{own}.Doubled", "times": 3, "when": "train"}
    for training, reward in ((True, 3.0), (False, 1.0)):
        env = make_env("CartPole-v1", None, [doubled], training=training)
        env.reset(seed=0)
        assert env.step(0)[1] == reward
        env.close()


def test_ones_own_are_named_with_their_module(own):
    assert find_wrapper(f"{own}.Doubled") is find_wrapper(f"{own}:Doubled")
    assert find_wrapper("gymnasium.wrappers.TimeLimit") is gym.wrappers.TimeLimit


def test_a_list_becomes_the_tuple_that_a_shape_is():
    resize = {"name": "ResizeObservation", "shape": [32, 24]}
    env = make_env("CarRacing-v3", None, [resize])
    assert env.observation_space.shape == (32, 24, 3)
    env.close()


@pytest.mark.parametrize(
    ("wrapper", "said"),
    [
        ({"name": "FrameStackObservtion"}, "did you mean 'FrameStackObservation'?"),
        ({"name": "EpisodicLif"}, "did you mean 'EpisodicLife'?"),
        ({"name": "Wrapper"}, "Wrapper: no wrapper of"),
        ({"name": "FrameStackObservation"}, "missing 1 required positional argument: 'stack_size'"),
        ({**STACK, "size": 2}, "unexpected keyword argument 'size'"),
        ({**STACK, "stack_size": 0}, "greater than zero"),
        ({"name": "EpisodicLife"}, "expected an Atari game"),
        ({"name": "FireReset"}, "expected an Atari game"),
        ({"name": "no_such_module_at_all.Thing"}, "No module named 'no_such_module_at_all'"),
        ({"name": "gymnasium.wrappers.Thing"}, "gymnasium.wrappers has no 'Thing'"),
        ({"name": "gymnasium.Env"}, "no subclass of gymnasium.core.Wrapper"),
        ({"name": "os.system"}, "no subclass of gymnasium.core.Wrapper"),
        ({"name": ""}, "no wrapper of"),
        ({"name": "."}, "no wrapper '.'"),
        ({"name": "..x"}, "importing . raised"),
    ],
)
def test_what_is_no_wrapper_is_refused_in_a_line(wrapper, said):
    assert said in refusal(wrapper)


def test_a_function_is_no_wrapper(own):
    assert "no subclass" in refusal({"name": f"{own}.not_a_class"})


def composed(*overrides):
    return load(*overrides)


def test_the_command_line_takes_a_list():
    config = composed(*PLAIN, "env.wrappers=[{name:FrameStackObservation,stack_size:3},{name:X,when:train}]")
    assert config.env.wrappers == [STACK, {"name": "X", "when": "train"}]
    assert composed("env=ALE/Pong-v5", "env.wrappers=[]").env.wrappers == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("env.wrappers=[FlattenObservation]", "expected a list of mappings such as {name: "),
        ("env.wrappers=FlattenObservation", "expected a list of mappings such as {name: "),
        ("env.wrappers=[{stack_size:4}]", "given {'stack_size': 4} without a name"),
        ("env.wrappers=[{name:FlattenObservation,when:never}]", "has when=never: expected train"),
        ("env.wrappers=[{name:FlattenObservatio}]", "did you mean 'FlattenObservation'?"),
        ("env.wrappers=[{name:FrameStackObservation,stack_size:2,when:train}]", "change the spaces"),
        ("env.wrappers=[{name:ppo_cli_own_wrappers.Failing}]", "can't be reset: ArithmeticError: cursed"),
        ("env.wrappers=[{name:ppo_cli_own_wrappers.Lying}]", "do not lie in the space"),
    ],
)
def test_ppo_train_refuses_before_it_makes_a_folder(ppo_train, tmp_path, own, typed, said):
    with (tmp_path / f"{own}.py").open("a") as file:
        file.write(
            "class Failing(gym.Wrapper):\n    def reset(self, **_): raise ArithmeticError('cursed')\n"
            "class Lying(gym.ObservationWrapper):\n    def observation(self, obs): return obs[:1]\n"
        )
    refused = ppo_train(*PLAIN, typed)
    assert refused.status == 2
    assert refused.err.count("\n") == 1
    assert refused.err.startswith("ppo-train: env.wrappers")
    assert said in refused.err
    assert not (tmp_path / "outputs").exists()


def test_envpool_takes_none(ppo_train):
    refused = ppo_train(*PLAIN, "vectorization=envpool", "env.wrappers=[{name:FlattenObservation}]")
    assert refused.err == (
        "ppo-train: env.wrappers: vectorization=envpool takes no wrappers; leave it out, or use "
        "vectorization=auto\n"
    )


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_run_trains_wrapped_and_is_evaluated_without_what_is_for_training(
    ppo_train, tmp_path, own, vectorization
):
    wrappers = f"env.wrappers=[{{name:{own}.Doubled,times:0,when:train}},{{name:FlattenObservation}}]"
    arguments = (*PLAIN, *TINY, wrappers, f"vectorization={vectorization}", "hydra.run.dir=run")
    done = ppo_train(*arguments)
    assert done.status == 0, done.err
    lines = [line.split(",") for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()]
    column = lines[0].index("charts/episodic_return")
    trained = [float(line[column]) for line in lines[1:] if line[column]]
    assert trained
    assert not any(trained)
    evaluation = yaml.safe_load((tmp_path / "run" / "eval.json").read_text())
    assert evaluation["returns"] == evaluation["lengths"]  # CartPole's own reward: 1 a step
    refused = ppo_train("resume=run", "env.wrappers=[]", "total_timesteps=600")
    assert refused.status == 2
    assert "env.wrappers can't change on resuming" in refused.err


def test_observations_are_stacked_for_the_network():
    env = make_env("CartPole-v1", None, [STACK])
    first, _ = env.reset(seed=0)
    second, *_ = env.step(0)
    assert np.array_equal(first[-1], second[-2])
    assert not np.array_equal(second[-1], second[-2])
    env.close()
