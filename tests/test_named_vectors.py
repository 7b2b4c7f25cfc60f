"""Environments of which there are vectors alone: named by an import path, or given from Python."""

import importlib
import json
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
import vector_envs
from gymnasium.vector import AutoresetMode

import ppo_cli
from ppo_cli.envs.batch_infos import told_of
from ppo_cli.envs.entry_point import EntryPointVector
from ppo_cli.envs.group import EnvFaultError
from ppo_cli.envs.make import make_env, resolve_env_id
from ppo_cli.envs.named import make_vectors, maker_of
from ppo_cli.errors import ConfigError, EnvError
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.spaces import Spaces

TINY = {
    "n_steps": 30,
    "total_timesteps": 60,
    "batch_size": 60,
    "n_epochs": 1,
    "compile": False,
    "verbose": False,
}


class Keep(ppo_cli.Hook):
    """Keeps the first rollout and what is learnt from it."""

    def __init__(self):
        self.seen = None

    def after_rollout(self, run, rollout):
        names = ("observations", "valid", "rewards", "terminated", "truncated", "states")
        self.seen = self.seen or {name: getattr(rollout, name).clone() for name in names}

    def before_update(self, run, batch):
        self.seen.setdefault("returns", batch.returns.clone())


def of_worlds(mode, **knobs):
    """The first rollout of two worlds, and the run."""
    kept = Keep()
    env = {"id": vector_envs.Worlds, "kwargs": {"mode": mode}}
    run = ppo_cli.train(env=env, n_envs=6, hooks=[kept], **{**TINY, **knobs})
    return kept.seen, run


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Two worlds in the two autoreset modes that agents can have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("worlds"))
        yield {mode: of_worlds(mode, eval={"episodes": 7}) for mode in ("NextStep", "SameStep")}


@pytest.mark.parametrize(("mode", "period"), [("NextStep", 6), ("SameStep", 5)])
def test_who_has_died_is_no_part_of_losses_and_statistics(worlds, mode, period):
    seen, run = worlds[mode]
    time = np.arange(30)[:, None] % period
    lives = np.tile(vector_envs.Worlds.LIVES, 2)
    assert np.array_equal(seen["valid"].numpy(), time < lives)
    assert np.array_equal(seen["terminated"].numpy(), (time + 1 == lives) & (lives < 5))
    assert np.array_equal(seen["truncated"].numpy(), (time + 1 == lives) & (lives == 5))
    assert np.array_equal(seen["rewards"].numpy(), np.where(time < lives, [1, 2, 3] * 2, 0))
    assert run.metrics["step"][0] == (time < lives).sum()
    assert run.metrics["charts/episodic_return"][0] == (2 * 1 + 3 * 2 + 5 * 3) / 3
    assert run.metrics["charts/episodic_length"][0] == 10 / 3
    assert run.metrics["info/place"][0] == 1


def test_what_is_learnt_of_agents_is_the_same_in_both_modes(worlds):
    targets = []
    for seen, _ in worlds.values():
        rows = torch.cat([seen["observations"][:-1].flatten(0, 1), seen["returns"][:, None]], dim=1)
        targets.append(np.unique(rows[seen["valid"].flatten()].numpy().round(5), axis=0))
    assert len(targets[0]) == 10  # of each number at each time
    np.testing.assert_allclose(*targets, atol=1e-4)


def test_an_evaluation_is_the_first_episodes_of_each_environment(worlds):
    for _, run in worlds.values():
        found = run.evaluation
        assert found.returns == [2, 6, 15, 2, 6, 15, 2]
        assert found.lengths == [2, 3, 5, 2, 3, 5, 2]
        assert found.infos == {"place": pytest.approx(6 / 7)}
        assert ppo_cli.evaluate(run).returns == found.returns
    assert ppo_cli.evaluate(run, episodes=12).returns == [2, 6, 15] * 4


def test_an_agents_memory_and_statistics_begin_with_its_episode(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for mode in ("NextStep", "SameStep"):
        knobs = {"network": {"memory": "lstm", "memory_size": 8}, "normalize": {"observations": True}}
        seen, run = of_worlds(mode, **knobs, eval={"episodes": 4}, total_timesteps=1)
        time = np.arange(30)[:, None] % (6 if mode == "NextStep" else 5)
        begins = (seen["states"][:-1] == 0).all(-1).numpy()
        valid = seen["valid"].numpy()
        assert np.array_equal(begins[valid], np.broadcast_to(time == 0, valid.shape)[valid])
        saved = load_checkpoint(run.folder / "checkpoints" / "last.pt")["observation_statistics"]
        assert saved["count"] == pytest.approx(valid.sum() + 6, abs=0.01)  # and those that are acted on next


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"odd": "gone"}, "an active_mask without environment 0, whose episode has not ended"),
        ({"odd": "shape"}, "an active_mask of shape (5,), where (6,) is expected"),
        ({"mode": "Disabled", "odd": "late"}, "an active_mask, which goes with autoreset modes NEXT_STEP"),
    ],
)
def test_an_active_mask_that_can_not_be_is_a_fault(kwargs, said):
    worlds = vector_envs.Worlds(6, **kwargs)
    spaces = Spaces(worlds.single_observation_space, worlds.single_action_space)
    envs = EntryPointVector("vector_envs:Worlds", worlds, spaces)
    envs.reset(seed=0)
    with pytest.raises(EnvFaultError) as fault:
        envs.step(np.zeros(6, np.int64))
    assert said in str(fault.value)


def test_a_path_a_registered_vector_and_an_id_are_told_apart():
    gym.register("Lonely-v0", vector_entry_point=vector_envs.Walks)
    assert resolve_env_id("vector_envs:Walks") == "vector_envs:Walks"  # the class, and not Walks-v0
    with pytest.raises(EnvError, match="Constant is a class of single environments: register it"):
        resolve_env_id("vector_envs:Constant")
    assert maker_of(resolve_env_id("Lonely-v0")) is not None
    assert maker_of(resolve_env_id("vector_envs:many")) is vector_envs.many
    assert maker_of(resolve_env_id("CartPole-v1")) is None
    gym.registry.pop("Lonely-v0")
    with pytest.raises(EnvError, match=r"neither a subclass of gymnasium.vector.VectorEnv nor a fun"):
        resolve_env_id("vector_envs:one")
    with pytest.raises(EnvError, match="nor has vector_envs a VectorEnv of that name"):
        resolve_env_id("vector_envs:Nothing")


def short(num_envs):
    return vector_envs.Constants(num_envs + 1)


def nothing(num_envs):
    return None


def bare(num_envs):
    made = vector_envs.Constants(num_envs)
    del made.single_action_space
    return made


@pytest.mark.parametrize(
    ("maker", "kwargs", "said"),
    [
        (vector_envs.Worlds, {}, "x can't be made with num_envs=4: ValueError: three agents a world"),
        (
            vector_envs.Constants,
            {"wide": 1},
            "x can't be made with num_envs=4 and env.kwargs={'wide': 1}: ",
        ),
        (short, {}, "x: its vector has num_envs=5, where n_envs / shards is 4"),
        (nothing, {}, "x makes a NoneType: expected a gymnasium.vector.VectorEnv"),
        (bare, {}, "x: its vector has no single_action_space"),
    ],
)
def test_what_is_no_vector_of_so_many_is_refused_in_a_line(maker, kwargs, said):
    with pytest.raises(EnvError) as refused:
        make_vectors("x", maker, 4, kwargs)
    assert str(refused.value).startswith(f"env.id={said}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        (
            ["vectorization=sync"],
            "vectorization=sync: of vector_envs:Walks there are vectors alone; ",
        ),
        (["env.on_error=restart"], "env.on_error=restart: vectorization=entry_point can't restart an env"),
        (
            ["+env.kwargs.mode=never"],
            "env.id=vector_envs:Walks can't be made with num_envs=1 and env.",
        ),
        (
            ["env=vector_envs:Worlds", "n_envs=6", "shards=3", "batch_size=6"],
            "env.id=vector_envs:Worlds can",
        ),
    ],
)
def test_what_a_named_vector_can_not_do_is_said_before_a_folder_is_made(ppo_train, tmp_path, knobs, said):
    outcome = ppo_train("env=vector_envs:Walks", *knobs)
    assert outcome.status == 2
    assert outcome.err.startswith(f"ppo-train: {said}"), outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_import_path_trains_goes_on_and_acts(ppo_train, tmp_path):
    typed = [
        "n_epochs=1",
        "n_envs=4",
        "n_steps=16",
        "batch_size=64",
        "compile=false",
        "eval.episodes=2",
        "eval.every=1",
    ]
    run = tmp_path / "run"
    outcome = ppo_train(
        "env=vector_envs:Walks",
        *typed,
        "total_timesteps=100",
        f"hydra.run.dir={run}",
        "+env.kwargs.mode=Disabled",
    )
    assert outcome.status == 0, outcome.err
    assert "vectorization=auto: entry_point (of vector_envs:Walks there are vectors alone)" in outcome.out
    assert ppo_train(f"resume={run}", "total_timesteps=200").status == 0
    policy = ppo_cli.load(run)
    env = policy.make_env()
    observation, _ = env.reset(seed=0)
    for step in range(1, 5):
        observation, reward, terminated, _, info = env.step(1)
        assert (observation[0], reward, info["ones"]) == (step, 1.5, min(step, 3))
        if terminated:
            break
    assert step == 3
    found = json.loads((run / "eval.json").read_text())
    assert found["returns"] == ppo_cli.evaluate(run).returns


class Poles(gym.vector.SyncVectorEnv):
    """CartPole, many times."""

    def __init__(self, num_envs):
        super().__init__([lambda: gym.make("CartPole-v1")] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def test_python_gives_a_class_or_a_vector_that_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    knobs = {**TINY, "eval": {"episodes": 3}}
    made = Poles(4)
    by_class, by_vector = ppo_cli.train(env=Poles, n_envs=4, **knobs), ppo_cli.train(env=made, **knobs)
    assert by_class.config.env.id == by_vector.config.env.id == "test_named_vectors:Poles"
    assert by_vector.config.n_envs == 4
    assert by_class.evaluation == by_vector.evaluation
    assert made.reset(seed=0)[0].shape == (4, 4)  # it is left open
    again = ppo_cli.resume(by_vector, env=made, total_timesteps=200)
    assert again.metrics["step"][-1] > 120


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"env": vector_envs.Walks(4), "n_envs": 5}, "its vector has num_envs=4, where n_envs / shards is 5"),
        ({"env": vector_envs.Walks(4), "shards": 2}, "its vector has num_envs=4, where n_envs / shards is 2"),
        (
            {"env": vector_envs.Walks(4), "eval": {"every": 1}},
            "eval.every=1: it would reset the vector",
        ),
        ({"env": {"id": vector_envs.Walks(4), "kwargs": {"a": 1}}}, "ValueError: it is made already"),
        ({"env": 3.5}, "env: expected an id, a VectorEnv, or the class or function of one, given 3.5"),
        ({"env": lambda num_envs: None}, "env: <lambda> is a lambda, replaced, or defined inside a function"),
    ],
)
def test_what_python_can_not_give_is_refused_in_a_line(tmp_path, monkeypatch, knobs, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        ppo_cli.train(**knobs)
    assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_masks_in_a_vectors_infos_are_obeyed(mode):
    env_id = resolve_env_id("vector_envs:Vectors-v0")
    kwargs = {"inner": "zoo_envs:Zoo-v0", "observation": "tuple", "action": "multi_discrete", "mask": "info"}
    one = make_env(env_id, kwargs, action_mask=True)
    spaces = Spaces(one.observation_space, one.action_space)
    envs = EntryPointVector(env_id, vector_envs.many(3, mode=mode, **kwargs), spaces)
    (mask,) = (leaf for leaf in spaces.observation_space.leaves if leaf.is_mask)
    observations, _ = envs.reset(seed=0)
    seen = set()
    for _ in range(30):
        masks = observations[:, mask.start : mask.stop]
        seen |= {each.tobytes() for each in masks}
        actions = np.stack([masks[:, :2].argmax(1), masks[:, 2:5].argmax(1)], axis=1)
        observations, *_ = envs.step(actions)  # which raises at an illegal one
    assert len(seen) > 5


@pytest.mark.parametrize("kind", [tuple, list, np.array])
def test_a_mask_for_each_environment_may_be_in_a_sequence(kind):
    told = told_of({"action_mask": kind([[1, 0], [0, 1], [1, 1]]), "names": ("a", "b", "c")}, 1, 3)
    assert list(told) == ["action_mask"]
    assert list(told["action_mask"]) == [0, 1]
    assert told_of({"action_mask": kind([[1, 0]])}, 0, 3) == {}  # of another number of environments


class Duel:
    """A parallel environment of PettingZoo's form: one agent dies after two steps, the other after four."""

    possible_agents = ("one", "two")

    def observation_space(self, agent):
        return gym.spaces.Dict({"time": gym.spaces.Box(0, 9, (1,))})

    def action_space(self, agent):
        return gym.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.time, self.seeds = (
            list(self.possible_agents),
            0,
            [*getattr(self, "seeds", ()), seed],
        )
        return self.of_all({"time": np.zeros(1, np.float32)}), self.of_all({"action_mask": np.array([1, 0])})

    def step(self, actions):
        assert list(actions) == self.agents
        assert not any(actions.values())
        self.time += 1
        over = {agent: self.time >= (2 if agent == "one" else 4) for agent in self.agents}
        seen = self.of_all({"time": np.full(1, self.time, np.float32)})
        told = (
            seen,
            self.of_all(1.0),
            over,
            self.of_all(False),
            self.of_all({"action_mask": np.array([1, 0])}),
        )
        self.agents = [agent for agent in self.agents if not over[agent]]
        return told

    def of_all(self, value):
        return dict.fromkeys(self.agents, value)

    def close(self):
        self.agents = None


@pytest.fixture
def agents(tmp_path, monkeypatch):
    """The module of the recipe in docs/recipes.md."""
    from test_docs import ROOT, blocks

    (block,) = (
        each for each in blocks(ROOT / "docs" / "recipes.md", "python") if each.startswith("# agents.py")
    )
    (tmp_path / "agents.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module("agents")
    del sys.modules["agents"]


def test_the_recipe_for_many_agents_leaves_the_dead_out(agents):
    worlds = agents.Agents(Duel, 4)
    agents.Duels = lambda num_envs: worlds
    run = ppo_cli.train(env="agents:Duels", n_envs=4, **{**TINY, "n_steps": 10}, eval={"episodes": 2})
    assert run.config.env.action_mask is True
    assert run.metrics["charts/episodic_return"].tolist() == [3.0] * len(run.metrics["step"])
    assert run.metrics["step"][0] == 2 * 2 * (2 + 4)  # two worlds, two of their episodes of five rows
    assert run.evaluation.returns == [2, 4]
    assert worlds.worlds[0].seeds[0] != worlds.worlds[1].seeds[0]
    with pytest.raises(ValueError, match="a world has 2 agents: expected a multiple of that"):
        agents.Agents(Duel, 3)


def test_the_recipe_for_many_agents_trains_in_pettingzoo(agents):
    pytest.importorskip("mpe2")
    knobs = {"n_envs": 6, **TINY, "n_steps": 25, "eval": {"episodes": 3}}
    run = ppo_cli.train(env={"id": "agents:spread", "kwargs": {"max_cycles": 10}}, **knobs)
    assert run.metrics["charts/episodic_length"][-1] == 10
    assert run.evaluation.lengths == [10] * 3


def test_agents_that_differ_are_made_alike_by_supersuit(agents):
    pytest.importorskip("mpe2")
    supersuit = pytest.importorskip("supersuit")
    from mpe2 import simple_tag_v3

    with pytest.raises(ValueError, match="agents differ in their observation_space: pad it with SuperSuit"):
        agents.Agents(simple_tag_v3.parallel_env, 4)

    def padded(num_envs):
        return agents.Agents(lambda: supersuit.pad_observations_v0(simple_tag_v3.parallel_env()), num_envs)

    observations, infos = padded(8).reset(seed=0)
    assert observations.shape == (8, 16)
    assert infos["active_mask"].all()
