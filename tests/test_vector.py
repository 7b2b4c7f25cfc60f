"""The backends: same results from all that promise them, Gymnasium's semantics, faults said in a line."""

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from vectors import vector

from ppo_cli.envs import choose
from ppo_cli.envs.group import EnvFaultError
from ppo_cli.envs.make import env_fn
from ppo_cli.envs.vector import SyncVector
from ppo_cli.envs.workers import AsyncVector
from ppo_cli.runs.checkpoint import load_checkpoint

IDS = ["CartPole-v1", "Pendulum-v1", "LunarLander-v3", "FrozenLake-v1", "Blackjack-v1"]
SEEDS = [11, 5, 8]
POOL_STEPS = 300


def trace(envs, steps=POOL_STEPS):
    """Everything that a vector gives under the same random actions."""
    rows = [np.array(envs.reset(seed=SEEDS)[0])]
    envs.single_action_space.seed(0)
    for _ in range(steps):
        actions = np.stack([envs.single_action_space.sample() for _ in SEEDS])
        obs, rewards, terminated, truncated, info = envs.step(actions)
        ended = terminated | truncated
        finals = [np.array(info["final_obs"][i]) for i in np.flatnonzero(ended)]
        rows += [np.array(obs), np.array(rewards), np.array(terminated), np.array(truncated), *finals]
    envs.close()
    return rows


@pytest.mark.parametrize("env_id", [name for name in IDS if name != "Blackjack-v1"])
def test_sync_and_async_are_gymnasiums_vector(env_id):
    fns = [env_fn(env_id)] * len(SEEDS)
    reference = trace(SyncVectorEnv(fns, autoreset_mode=AutoresetMode.SAME_STEP))
    for envs in (SyncVector(fns), AsyncVector(fns, 1), AsyncVector(fns, 2), AsyncVector(fns, 3)):
        found = trace(envs)
        assert len(found) == len(reference)
        assert all(np.array_equal(a, b) for a, b in zip(found, reference, strict=True))


def test_seeds_as_gymnasium_takes_them():
    envs = SyncVector([env_fn("CartPole-v1")] * 3)
    first, second = (np.array(envs.reset(seed=seed)[0]) for seed in (4, [4, 5, 6]))
    assert np.array_equal(first, second)
    assert not np.array_equal(np.array(envs.reset()[0]), first)
    envs.close()


class Faulty(gym.Env):
    """Raises, or ends its process, at the fifth step; or, where ``kill`` is None, does neither."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, kill):
        self.kill = kill

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        if self.t == 5 and self.kill:
            os._exit(9)
        if self.t == 5 and self.kill is False:
            raise ArithmeticError("the fifth step is cursed")
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize(("kill", "said"), [(False, "the fifth step is cursed"), (True, "died")])
def test_a_fault_in_a_worker_reaches_the_caller(kill, said):
    envs = AsyncVector([lambda: Faulty(None), lambda: Faulty(kill)], 2)
    envs.reset(seed=0)
    with pytest.raises(EnvFaultError, match=said):
        for _ in range(5):
            envs.step(np.zeros(2, np.int64))
    envs.close()


def test_workers_end_with_their_parent():
    program = (
        "import os\nfrom ppo_cli.envs.make import env_fn\nfrom ppo_cli.envs.workers import AsyncVector\n"
        "envs = AsyncVector([env_fn('CartPole-v1')] * 3, 3)\n"
        "print(*[worker[0].pid for worker in envs._workers], flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in pids)


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_auto_says_what_it_took_and_why():
    envs, line = vector("CartPole-v1", 2, "auto")
    assert isinstance(envs, (SyncVector, AsyncVector))
    assert line.startswith("vectorization=auto: ")
    envs.close()
    envs, line = vector("CartPole-v1", 1, "auto")
    assert isinstance(envs, SyncVector)
    assert "one environment" in line
    envs.close()


@pytest.mark.parametrize(
    ("env_id", "taken"), [("CartPole-v1", AsyncVector), ("stubborn_envs:Late-v0", SyncVector)]
)
def test_autos_choice_changes_no_bit_of_what_draws_from_global_generators(monkeypatch, env_id, taken):
    monkeypatch.setattr("ppo_cli.envs.choose.TRIAL_SECONDS", 0.01)
    rate = choose._rate
    monkeypatch.setattr(
        choose, "_rate", lambda envs: rate(envs) * (9 if isinstance(envs, AsyncVector) else 1e-9)
    )
    envs, line = vector(env_id, 2, "auto")
    envs.close()
    assert isinstance(envs, taken)
    assert ("draw from the process's global generators" in line) == (taken is SyncVector)


needs_envpool = pytest.mark.skipif(find_spec("envpool") is None, reason="EnvPool has no wheel here")


@needs_envpool
def test_envpool_marks_the_rows_that_are_no_transitions():
    envs, _ = vector("CartPole-v1", 3, "envpool")
    envs.reset(seed=SEEDS)
    ended = np.zeros(3, bool)
    for _ in range(POOL_STEPS):
        obs, rewards, terminated, truncated, info = envs.step(np.zeros(3, np.int64))
        assert np.array_equal(info["filler"], ended)
        assert (rewards[ended] == 0).all()  # CartPole pays 1 for every real step
        assert (rewards[~ended] == 1).all()
        assert (np.abs(obs[ended]) <= 0.05).all()  # CartPole starts within 0.05 of the centre
        ended = terminated | truncated


@needs_envpool
def test_envpool_repeats_with_its_seeds():
    runs = []
    for seeds in (SEEDS, SEEDS, [1, 2, 3]):
        envs, _ = vector("Pendulum-v1", 3, "envpool")
        envs.reset(seed=seeds)
        runs.append([envs.step(np.full((3, 1), 0.5, np.float32))[0] for _ in range(250)])
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@needs_envpool
def test_a_run_on_envpool_counts_only_transitions(ppo_train, tmp_path):
    outcome = ppo_train("env=CartPole-v1", "vectorization=envpool", "total_timesteps=4000", "compile=false")
    assert outcome.status == 0, outcome.err
    steps = load_checkpoint(next(tmp_path.glob("outputs/*/*/checkpoints/last.pt")))["steps"]
    assert steps >= 4000
    assert steps % 256 != 0  # rows of 8 x 32, less those that were filler


@needs_envpool
def test_all_environments_may_end_together(ppo_train, tmp_path):
    outcome = ppo_train(
        "env=Pendulum-v1", "vectorization=envpool", "total_timesteps=2000", "n_steps=250", "compile=false",
        "normalize.observations=true", "normalize.rewards=true", "eval.episodes=2",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    checkpoint = load_checkpoint(next(tmp_path.glob("outputs/*/*/checkpoints/last.pt")))
    assert checkpoint["observation_statistics"]["mean"].isfinite().all()


@needs_envpool
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("env=probe_envs:ConstantReward-v0",), "EnvPool has no"),
        (
            ("env=CartPole-v1", "+env.kwargs.sutton_barto_reward=true"),
            "env.kwargs: vectorization=envpool takes no arguments",
        ),
    ],
)
def test_envpool_refuses_what_it_can_not_make(ppo_train, tmp_path, arguments, said):
    outcome = ppo_train(*arguments, "vectorization=envpool")
    assert outcome.status == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
