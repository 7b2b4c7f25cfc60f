"""The memory of a rollout: what is computed beforehand is what it takes, and it never exists twice."""

import gymnasium as gym
import pytest
import torch
import vector_envs  # noqa: F401 - registers ids

from ppo_cli.collector import make_collector
from ppo_cli.config.compose import load
from ppo_cli.envs.choose import make_vector
from ppo_cli.envs.vector import Recipe
from ppo_cli.errors import ConfigError
from ppo_cli.runs import capacity
from ppo_cli.runs.build import build_agent, build_normalizers, check_environment, env_maker
from ppo_cli.runs.capacity import UPDATE_BYTES, check_rollout, step_bytes

N, T = 64, 64


def parts(*knobs):
    """Config, spaces, agent and collector of a run."""
    config = load(*knobs, f"n_envs={N}", f"n_steps={T}", "compile=false", "n_epochs=1")
    checked = check_environment(config, watchdog=False)
    config, spaces = checked.config, checked.spaces
    make = env_maker(config.env, training=True)
    envs = make_vector(
        Recipe(config.env.id, [make] * N, spaces, kwargs=config.env.kwargs), config.vectorization
    )[0]
    agent = build_agent(config, spaces)
    normalizers = build_normalizers(config, spaces.observation_space)
    return config, spaces, agent, make_collector(envs, agent, T, *normalizers, torch.Generator())


@pytest.mark.parametrize(
    "knobs",
    [
        ("env=CartPole-v1", "preset=none", "vectorization=entry_point"),
        ("env=Pendulum-v1", "preset=none", "vectorization=sync", "normalize.observations=true"),
        ("env=FrozenLake-v1", "preset=none", "vectorization=sync"),
        ("env=zoo_envs:Zoo-v0", "+env.kwargs.observation=dict", "vectorization=sync", "network.memory=lstm"),
    ],
    ids=lambda knobs: knobs[0],
)
def test_the_bytes_of_a_step_are_those_of_the_buffers(knobs):
    config, spaces, agent, collector = parts(*knobs)
    collector.envs.close()
    rollout, size = collector.rollout, agent.model.state_size
    tensors = [value for value in vars(rollout).values() if isinstance(value, torch.Tensor)]
    last = rollout.observations[-1].nbytes + rollout.states[-1].nbytes  # where the next rollout begins
    assert sum(each.nbytes for each in tensors) - last == N * T * step_bytes(config, spaces, size)


def test_a_rollout_that_this_machine_can_not_hold_is_refused_by_the_same_figure(monkeypatch):
    config, spaces, agent, collector = parts("env=CartPole-v1", "preset=none", "vectorization=entry_point")
    collector.envs.close()
    needed = N * T * (step_bytes(config, spaces, agent.model.state_size) + UPDATE_BYTES)
    monkeypatch.setattr(capacity.os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": needed}.get)
    check_rollout(config, spaces, 0)
    with pytest.raises(ConfigError, match=f"n_envs \\* n_steps = {N * T:,} steps would take 0.0 GiB"):
        check_rollout(config, spaces, 1)
    many = spaces._replace(action_space=gym.spaces.Discrete(UPDATE_BYTES // 4 + 1))  # noise for each action
    with pytest.raises(ConfigError):
        check_rollout(config, many, 0)


def resident(key):
    """The process's memory in bytes: VmRSS, now, or VmHWM, its peak."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(key))


def test_a_rollout_never_exists_twice():
    width = 4096
    _, _, agent, collector = parts(
        "env=vector_envs:Constants-v0", f"+env.kwargs.width={width}", "vectorization=entry_point",
        "batch_size=64", "network.hidden_sizes=[8]", "normalize.observations=true", "normalize.rewards=true",
    )  # fmt: skip
    collector.reset(list(range(N)))

    def iterate():
        collector.collect(agent)
        agent.update([agent.compute_gae(collector.rollout)], [collector.rollout.valid])

    iterate()  # what the first one allocates for good is there
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak begins anew
    except OSError:
        pytest.skip("this system tells no peak")
    before = resident("VmRSS")
    iterate()
    observations = collector.rollout.observations.nbytes
    assert observations > N * T * width * 4
    assert resident("VmHWM") - before < 0.3 * observations
    assert collector.rollout.observations.isfinite().all()
