"""Making environments: retired ids, what is missing said in one line, user modules and seeds."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from vectors import vector

from ppo_cli.envs.make import env_fn, make_env, resolve_env_id
from ppo_cli.errors import EnvError
from ppo_cli.seeding import spawn_seeds

MODULE = '''
import gymnasium as gym
import numpy as np

class Corridor(gym.Env):
    observation_space = gym.spaces.Discrete(5)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length=5, render_mode=None):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 1, 1.0, True, False, {}

class Reusing(gym.Env):
    """Counts its steps to 3, always in the same array."""

    observation_space = gym.spaces.Box(0, 9, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.observation = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation[:] = 0
        return self.observation, {}

    def step(self, action):
        self.observation += 1
        return self.observation, 1.0, bool(self.observation[0] == 3), False, {}

gym.register("PpoCliCorridor-v3", entry_point=Corridor)
gym.register("PpoCliReusing-v0", entry_point=Reusing)
'''


def refusal(call, *args: object) -> str:
    """The message of the EnvError that a call must end in: one line."""
    with pytest.raises(EnvError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert "\x1b" not in message  # no colours
    return message


@pytest.fixture
def corridor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an importable module that registers environments."""
    (tmp_path / "ppo_cli_corridor.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "ppo_cli_corridor"
    sys.modules.pop("ppo_cli_corridor", None)
    for name in ("PpoCliCorridor-v3", "PpoCliReusing-v0"):
        gym.registry.pop(name, None)


@pytest.mark.parametrize(
    ("asked", "runs"),
    [
        ("LunarLander-v2", "LunarLander-v3"),
        ("LunarLanderContinuous-v2", "LunarLanderContinuous-v3"),
        ("BipedalWalker-v2", "BipedalWalker-v3"),
        ("CartPole-v1", "CartPole-v1"),
        ("CartPole-v0", "CartPole-v0"),  # out of date, but it still runs
        ("CartPole", "CartPole-v1"),
        ("HalfCheetah-v5", "HalfCheetah-v5"),
    ],
)
def test_resolved_id(asked: str, runs: str) -> None:
    assert resolve_env_id(asked) == runs


@pytest.mark.parametrize("asked", ["HalfCheetah-v2", "HalfCheetah-v3"])
def test_an_id_that_is_registered_only_to_fail_runs_its_newest_version(asked: str) -> None:
    newest = max(spec.version for spec in gym.registry.values() if spec.name == "HalfCheetah")
    assert resolve_env_id(asked) == f"HalfCheetah-v{newest}"


def test_a_retired_id_can_be_trained_on() -> None:
    env = make_env(resolve_env_id("LunarLander-v2"))
    assert env.spec is not None
    assert env.spec.id == "LunarLander-v3"
    assert env.reset(seed=0)[0].shape == (8,)
    env.close()


@pytest.mark.parametrize(
    ("typo", "suggestion"),
    [
        ("CartPol-v1", "Did you mean: `CartPole`"),
        ("cartpole-v1", "Did you mean: `CartPole`"),
        ("LunarLandr-v3", "Did you mean: `LunarLander`"),
        ("CartPole-v9", "`v1`"),
        ("Nothing/Of-This-Name-v0", "Namespace Nothing not found"),
        ("not an id", "Malformed"),
        ("", "Malformed"),
    ],
)
def test_typos_carry_gymnasiums_suggestion(typo: str, suggestion: str) -> None:
    message = refusal(resolve_env_id, typo)
    assert suggestion in message
    assert f"env.id={typo}" in message


@pytest.mark.parametrize(
    ("package", "env_id", "said"),
    [
        ("ale_py", "ALE/Breakout-v5", "pip install 'ppo-cli[atari]'"),
        ("ale_py", "BreakoutNoFrameskip-v4", "pip install 'ppo-cli[atari]'"),
        ("ale_py", "PongDeterministic-v4", "pip install 'ppo-cli[atari]'"),
        ("minigrid", "MiniGrid-Empty-5x5-v0", "pip install 'ppo-cli[minigrid]'"),
        ("minatar", "MinAtar/Breakout-v1", "pip install 'ppo-cli[minatar]'"),
        ("mujoco", "HalfCheetah-v5", "pip install"),
    ],
)
def test_a_missing_package_is_named_with_its_install(package: str, env_id: str, said: str) -> None:
    program = (  # a process of its own, in which the package has never been imported and can't be
        f"import sys; sys.modules[{package!r}] = None\n"
        "from ppo_cli.envs.make import EnvError, make_env, resolve_env_id\n"
        f"try: make_env(resolve_env_id({env_id!r}))\n"
        "except EnvError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert env_id in done.stdout
    assert said in done.stdout


def test_missing_module_says_what_to_install() -> None:
    for call in (resolve_env_id, make_env):
        message = refusal(call, "no_such_module_at_all:Thing-v0")
        assert "pip install no_such_module_at_all" in message
        assert "PYTHONPATH" in message


def test_module_of_ones_own(corridor: str) -> None:
    resolved = resolve_env_id(f"{corridor}:PpoCliCorridor-v3")
    assert resolved == f"{corridor}:PpoCliCorridor-v3"
    env = make_env(resolved, {"length": 3})
    assert env.unwrapped.length == 3
    assert env.reset(seed=0)[0] == 0


def test_retired_id_of_a_module(corridor: str) -> None:
    assert resolve_env_id(f"{corridor}:PpoCliCorridor-v2") == f"{corridor}:PpoCliCorridor-v3"


def test_unknown_id_of_a_module(corridor: str) -> None:
    message = refusal(resolve_env_id, f"{corridor}:PpoCliCorrido-v3")
    assert "PpoCliCorridor" in message


def test_a_module_that_needs_a_missing_package_names_that_package(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "ppo_cli_needy.py").write_text("import no_such_package_either")
    monkeypatch.syspath_prepend(tmp_path)
    assert "no_such_package_either" in refusal(resolve_env_id, "ppo_cli_needy:Thing-v0")


@pytest.mark.parametrize(
    ("env_id", "kwargs", "named"),
    [
        ("CartPole-v1", {"gravitas": 1}, "gravitas"),
        ("FrozenLake-v1", {"map_name": "5x5"}, "5x5"),
        ("LunarLander-v3", {"gravity": 5.0}, "gravity"),  # an assertion inside the environment
    ],
)
def test_refused_arguments_are_shown(env_id: str, kwargs: dict, named: str) -> None:
    message = refusal(make_env, env_id, kwargs)
    assert env_id in message
    assert named in message


def test_arguments_reach_the_environment() -> None:
    env = env_fn("CartPole-v1", {"max_episode_steps": 7, "sutton_barto_reward": True})()
    assert env.spec is not None
    assert env.spec.max_episode_steps == 7
    assert env.unwrapped._sutton_barto_reward is True
    assert env.render_mode is None
    env.close()


FORKS = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # Python 3.12+
STREAMS = ["env", "eval", "model", "action", "minibatch", "hooks"]


def test_seeds_of_streams_and_runs_never_meet() -> None:
    seeds = [seed for run in range(5) for stream in STREAMS for seed in spawn_seeds(run, stream, 100)]
    assert len(set(seeds)) == len(seeds)
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)


def test_seeds_repeat_and_more_of_them_begin_alike() -> None:
    assert spawn_seeds(7, "env", 8) == spawn_seeds(7, "env", 8)
    assert spawn_seeds(7, "env", 8)[:3] == spawn_seeds(7, "env", 3)
    assert spawn_seeds(7, "env", 0) == []


def test_seeds_are_those_of_earlier_versions() -> None:
    # a change here changes every published run: "same config, same weights"
    assert spawn_seeds(1, "env", 2) == [917752063, 865519474]


def trace(vectorization: str) -> list[np.ndarray]:
    """Everything that 120 steps of two environments give, over several episodes."""
    envs, _ = vector("CartPole-v1", 2, vectorization, {"max_episode_steps": 20})
    seen = [envs.reset(seed=spawn_seeds(0, "env", 2))[0].copy()]
    rng = np.random.default_rng(0)
    for _ in range(120):
        obs, rewards, terminated, truncated, info = envs.step(rng.integers(0, 2, 2))
        seen += [obs.copy(), rewards.copy(), terminated.copy(), truncated.copy()]
        for env in np.flatnonzero(terminated | truncated):
            seen.append(np.array(info["final_obs"][env]))
    envs.close()
    return seen


@FORKS
def test_sync_and_async_give_the_same_bits() -> None:
    sync, parallel = trace("sync"), trace("async")
    assert len(sync) == len(parallel) > 1 + 4 * 120
    assert all(map(np.array_equal, sync, parallel))


def test_an_environment_resets_in_the_step_in_which_its_episode_ends(corridor: str) -> None:
    envs, _ = vector(f"{corridor}:PpoCliCorridor-v3", 3, "sync")
    envs.reset(seed=[1, 2, 3])
    for _ in range(2):  # never a filler row in between
        obs, rewards, terminated, _, info = envs.step(np.zeros(3, int))
        assert obs.tolist() == [0, 0, 0]
        assert info["final_obs"].tolist() == [1, 1, 1]
        assert rewards.tolist() == [1.0, 1.0, 1.0]
        assert terminated.all()
    envs.close()


@FORKS
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_final_observation_of_an_environment_that_reuses_its_array(corridor: str, vectorization) -> None:
    envs, _ = vector(f"{corridor}:PpoCliReusing-v0", 2, vectorization)
    envs.reset(seed=[1, 2])
    for _ in range(3):
        obs, _, terminated, _, info = envs.step(np.zeros(2, int))
    assert terminated.all()
    assert obs.tolist() == [[0, 0], [0, 0]]
    assert [final.tolist() for final in info["final_obs"]] == [[3, 3], [3, 3]]
    envs.close()
