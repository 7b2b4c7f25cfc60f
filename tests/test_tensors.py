"""Environments that give tensors: the same transitions as arrays, and never an array on the way."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from test_docs import ROOT, blocks
from test_entry_point import MODES, TASKS, action_for, entry_point, recipe
from torch import Generator
from torch.utils._python_dispatch import TorchDispatchMode

import ppo_cli
from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.agent import PPOAgent
from ppo_cli.arrays import NUMPY, as_array
from ppo_cli.collector import make_collector
from ppo_cli.distributions import make_distribution
from ppo_cli.envs.choose import make_vector
from ppo_cli.envs.group import EnvFaultError
from ppo_cli.normalize import RewardNormalizer, make_observation_normalizer
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.schedules import Schedule
from ppo_cli.sharded import Data
from ppo_cli.shards import Shards
from ppo_cli.spaces import Spaces
from ppo_cli.tensors import Tensors
from ppo_cli.update import Hyperparameters, first_state

ARRAYS, TENSORS = "vector_envs:Vectors-v0", "torch_envs:InTensors-v0"


def slow(case):
    return pytest.param(case, marks=pytest.mark.slow)


CPU = torch.device("cpu")
WALKS = "torch_envs:Walks"
CONSTANTS = {
    "learning_rate": 1e-3, "clip_ratio": 0.2, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5,
    "gamma": 0.99, "gae_lambda": 0.95,
}  # fmt: skip


def in_arrays(value):
    if isinstance(value, dict):
        return {key: in_arrays(part) for key, part in value.items()}
    return as_array(value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "task", ["infos", "Dict", *map(slow, ("mask", "CartPole", "indices", "float64", "Tuple"))]
)
def test_a_step_in_tensors_is_the_step_in_arrays(task, mode):
    kwargs = {**TASKS[task], "mode": mode}
    one, other = entry_point(ARRAYS, kwargs), entry_point(TENSORS, kwargs)
    row, same = one.reset(seed=5)[0], other.reset(seed=5)[0]
    assert one.arrays is NUMPY
    assert isinstance(other.arrays, Tensors)
    for _ in range(40):
        assert isinstance(same, torch.Tensor)
        assert np.array_equal(row, same.numpy())
        actions = np.stack([action_for(one, each) for each in row])
        row, *numbers, told = one.step(actions.copy())
        same, *others, also = other.step(torch.from_numpy(actions))
        for number, tensor in zip(numbers, others, strict=True):
            assert np.array_equal(number, tensor.numpy())
        also = in_arrays(also)
        ended = numbers[1] | numbers[2]
        for key, value in told.items():
            rows = ended if key in ("final_obs", "returns") else slice(None)
            assert np.array_equal(value[rows], also[key][rows], equal_nan=True), key
    infos = one.take_infos()
    assert infos == other.take_infos()
    assert (task == "infos") is bool(infos)


def run_of(env_id, kwargs, n=3, steps=16, normalized=True, device=CPU, **network):
    """An agent, which acts in PyTorch whatever the environments give, and its collector."""
    torch.manual_seed(0)
    envs = make_vector(recipe(env_id, kwargs, n)._replace(device=str(device)), "entry_point")[0]
    spaces = Spaces(envs.single_observation_space, envs.single_action_space)
    model = make_actor_critic(*spaces, hidden_sizes=(8,), activation="elu", **network)
    agent = PPOAgent(
        model, make_distribution(spaces.action_space), Hyperparameters(batch_size=16, n_epochs=2),
        {name: Schedule(value) for name, value in CONSTANTS.items()}, [Generator().manual_seed(1)], n,
        device,
    )  # fmt: skip
    normalizers = None, None
    if normalized:
        observations = make_observation_normalizer(spaces.observation_space, 10.0)
        normalizers = observations, RewardNormalizer(n, 0.99, 10.0)
    collector = make_collector(envs, agent, steps, *normalizers, Generator().manual_seed(2))
    return agent, Shards([collector])


def learned(agent, shards, iterations=3):
    shards.reset(list(range(shards.n_envs)))
    told = []
    for _ in range(iterations):
        shards.collect(agent)
        shards.listen()
        agent.update(shards.compute_gae(agent), shards.valid)
        told.append(shards.told)
    return agent._params, told


@pytest.mark.parametrize("mode", ["SameStep", *map(slow, ("NextStep", "Disabled"))])
@pytest.mark.parametrize("task", [slow("infos"), "mask"])
def test_what_is_learned_from_tensors_is_what_is_learned_from_arrays(task, mode):
    kwargs = {**TASKS[task], "mode": mode}
    network = {"memory": "gru", "memory_size": 4} if task == "mask" else {}
    (params, told), (same, also) = (
        learned(*run_of(each, kwargs, normalized=False, **network)) for each in (ARRAYS, TENSORS)
    )
    assert torch.equal(params, same)
    assert told == also
    assert any(each.ended.returns for each in told)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", [slow("CartPole"), "Dict"])
def test_normalisation_by_tensors_is_normalisation_by_arrays(task, mode):
    kwargs = {**TASKS[task], "mode": mode}
    (agent, one), (other, also) = run_of(ARRAYS, kwargs), run_of(TENSORS, kwargs)
    other._params.copy_(agent._params)
    for shards, each in ((one, agent), (also, other)):
        shards.reset([4] * shards.n_envs)
        shards.collect(each)
    states = [shards.collectors[0].state_dict() for shards in (one, also)]
    for name in ("observation_statistics", "reward_statistics"):
        for key in ("mean", "var", "count"):
            assert np.allclose(*(as_array(state[name][key]) for state in states)), (name, key)
    assert np.allclose(*(as_array(state["discounted_returns"]) for state in states))
    frozen = also.collectors[0].observation_normalizer.in_numpy()
    seen = as_array(also.collectors[0].envs.observations)
    assert np.array_equal(
        frozen(seen), as_array(also.collectors[0].observe(also.collectors[0].envs.observations))
    )


class Conversions(TorchDispatchMode):
    """Counts what becomes an array or a number of Python, and what a device would be waited for."""

    METHODS = ("numpy", "__array__", "tolist", "item", "cpu", "__bool__")

    def __init__(self, monkeypatch):
        super().__init__()
        self.counts = Counter()
        for name in self.METHODS:
            monkeypatch.setattr(torch.Tensor, name, self.counted(name, getattr(torch.Tensor, name)))
        monkeypatch.setattr(torch, "from_numpy", self.counted("from_numpy", torch.from_numpy))

    def counted(self, name, function):
        def call(*args, **kwargs):
            self.counts[name] += 1
            return function(*args, **kwargs)

        return call

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero"):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_becomes_an_array_and_a_device_is_waited_for_where_the_mode_needs_it(monkeypatch, mode):
    steps = 16
    agent, shards = run_of(WALKS, {"mode": mode}, steps=steps)
    shards.reset([0] * shards.n_envs)
    shards.collect(agent)
    shards.listen()
    counted = Conversions(monkeypatch)
    with counted:
        shards.collectors[0].collect(agent)
    needed = {
        "NextStep": {},
        "SameStep": {"nonzero": steps},  # how many final observations there are
        "Disabled": {"__bool__": steps, "_local_scalar_dense": steps, "nonzero": counted.counts["nonzero"]},
    }[mode]
    assert counted.counts == needed
    assert counted.counts["nonzero"] <= steps
    counted.counts.clear()
    with counted:
        shards.collectors[0].envs.arrays.check()
        ended, infos = shards.collectors[0].episodes.take(), shards.collectors[0].envs.take_infos()
    assert len(ended.returns) == len(infos) > 0
    assert counted.counts == {"tolist": 3}  # of faults, of returns and lengths, of infos: one each


@pytest.mark.parametrize("network", [{}, slow({"memory": "gru", "memory_size": 4})], ids=["plain", "memory"])
def test_an_iteration_runs_on_a_device_from_which_nothing_comes_back(network):
    meta = torch.device("meta")
    agent, shards = run_of(WALKS, {"device": "meta"}, device=meta, **network)
    (collector,) = shards.collectors
    for _ in range(2):
        collector.reset([0])
        collector.collect(agent)
        batch = agent.compute_gae(collector.rollout)
        state = first_state(agent._params, agent.optimizer, agent.hyper, 1e-3)
        minibatch = [(torch.zeros(8, dtype=torch.int64), torch.ones(8))]  # drawn on the CPU
        knobs = torch.zeros(len(agent.knobs), device=meta)
        state = agent._step(state, Data([batch], [batch.advantages]), minibatch, knobs)
        assert state.params.device == meta


@pytest.mark.parametrize(
    ("wrong", "mode", "said"),
    [
        ("at", "NextStep", "a NaN or an infinity in the observation of environment 2"),
        ("last", "Disabled", "an observation 'last' of environment 2 outside its space's 0 to 1"),
        ("action_mask", "SameStep", "an action_mask without a legal action for environment 2"),
        ("rewards", "SameStep", "a NaN or an infinity as the reward of environment 1"),
        (
            "final",
            "SameStep",
            "an episode's end without 'final_obs' in infos, in autoreset mode SAME_STEP, of",
        ),
    ],
)
def test_a_fault_in_tensors_is_said_once_the_rollout_is_full(wrong, mode, said):
    agent, shards = run_of(WALKS, {"mode": mode, "wrong": wrong}, steps=8)
    shards.reset([0] * 3)
    shards.collect(agent)
    with pytest.raises(EnvFaultError, match=f"^the vector of environments returned {said}"):
        shards.listen()


def test_tensors_that_can_not_be_kept_are_refused_at_once():
    envs = entry_point(WALKS, {})
    observations = envs._envs.reset()[0]
    nobody = torch.zeros(3, dtype=torch.bool)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="'at' of shape \\(3, 1\\), where its space says \\(3, 2\\)"):
        envs._batch({**observations, "at": observations["at"][:, :1]}, nobody)
    with pytest.raises(ValueError, match=r"'last' of dtype torch.float32, where its space says torch.int64"):
        envs._batch({**observations, "last": observations["last"].float()}, nobody)


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """The modules of docs/recipes.md, in the current folder."""
    for block in blocks(ROOT / "docs" / "recipes.md", "python"):
        name = block.splitlines()[0].removeprefix("# ")
        if name in ("poles.py", "jax_envs.py"):
            (tmp_path / name).write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("poles",):
        sys.modules.pop(name, None)


TINY = {"n_steps": 16, "n_epochs": 1, "compile": False, "eval": {"episodes": 2, "max_steps": 20}}


def test_the_recipe_in_pytorch_trains_goes_on_and_is_evaluated(recipes):
    knobs = {**TINY, "normalize": {"observations": True, "rewards": True}, "checkpoint": {"every": 1}}
    run = ppo_cli.train(env="poles:Poles", n_envs=64, batch_size=256, total_timesteps=1500, **knobs)
    assert run.evaluation.lengths
    again = ppo_cli.evaluate(run.folder, episodes=2)
    assert again.returns == run.evaluation.returns
    longer = ppo_cli.resume(run.folder, total_timesteps=3000)
    assert longer.metrics["charts/cut_episodes"].tolist()[-1] == 64
    assert longer.metrics["step"].tolist()[-1] >= 3000


@pytest.mark.slow
def test_the_recipe_in_pytorch_learns(recipes):
    run = ppo_cli.train(
        env="poles:Poles", n_envs=1024, n_steps=32, batch_size=4096, total_timesteps=1e6, gamma=0.98,
        gae_lambda=0.8, learning_rate=2e-3, anneal={"learning_rate": {"final": 0}}, compile=False,
    )  # fmt: skip
    assert run.evaluation.mean >= 475


def test_the_recipe_in_jax_trains_as_tensors_by_dlpack_and_says_nothing_of_forks(recipes):
    pytest.importorskip("jax")
    typed = [
        "env=jax_envs:poles", "n_envs=8", "n_steps=16", "total_timesteps=256", "n_epochs=1", "compile=false",
        "eval.episodes=2", "eval.max_steps=20", "hydra.run.dir=run",
    ]  # fmt: skip
    command = [sys.executable, "-m", "ppo_cli", "train", *typed]  # of its own: who has JAX should not fork
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "device" not in done.stdout
    saved = load_checkpoint(Path("run/checkpoints/last.pt"))
    assert saved["steps"] == 256
