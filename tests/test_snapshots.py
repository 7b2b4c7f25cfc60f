"""Saving never touches what is trained; what can't be brought back begins new episodes, and says so."""

import signal

import numpy as np
import pytest
from run_ends import assert_same_end, differences, rows
from run_hooks import INTERRUPTIBLE

from ppo_cli.envs import snapshot
from ppo_cli.envs.make import env_fn
from ppo_cli.envs.snapshot import OwnGenerators, find_kind
from ppo_cli.envs.vector import SyncVector
from ppo_cli.runs.checkpoint import load_checkpoint

SMALL = (
    "n_envs=3",
    "n_steps=64",
    "total_timesteps=1536",
    "n_epochs=1",
    "eval.episodes=2",
    "compile=false",
    INTERRUPTIBLE,
)
OF_EACH_KIND = {
    "replay": ("env=CartPole-v1",),
    "seed": ("env.id=broken_envs:OwnGenerator-v0",),
    "none": ("env.id=stubborn_envs:Late-v0", "normalize.observations=true", "normalize.rewards=true"),
    "levels": ("env.id=stubborn_envs:Levels-v0",),
    "BipedalWalker": ("env=BipedalWalker-v3", "preset=none"),
    "anew": ("env.id=stubborn_envs:Late-v0", "checkpoint.exact=true"),
    "EnvPool": ("env=CartPole-v1", "vectorization=envpool"),
    "entry point": ("env=CartPole-v1", "vectorization=entry_point"),
}
SLOW = ("BipedalWalker", "levels", "none")


@pytest.mark.parametrize(
    "task",
    [pytest.param(each, marks=[pytest.mark.slow] if each in SLOW else []) for each in OF_EACH_KIND],
)
def test_a_run_is_the_same_whether_it_saves_or_not(ppo_train, tmp_path, monkeypatch, task):
    if task == "EnvPool":
        pytest.importorskip("envpool")
    monkeypatch.setattr("ppo_cli.envs.snapshot.RESEED_STEPS", 200)  # within the run
    arguments = (*OF_EACH_KIND[task], *SMALL)
    assert ppo_train(*arguments, "checkpoint.every=1", "hydra.run.dir=often").status == 0
    assert ppo_train(*arguments, "checkpoint.every=1000000", "hydra.run.dir=never").status == 0
    often, never = tmp_path / "often", tmp_path / "never"
    found = differences(*(load_checkpoint(run / "checkpoints" / "last.pt") for run in (often, never)))
    assert found == ["/config/checkpoint/every"]
    assert rows(often) == rows(never)
    assert any(row["charts/episodic_return"] for row in rows(often))
    assert (often / "eval.json").read_text() == (never / "eval.json").read_text()


def test_making_environments_anew_leaves_episodes_whole(ppo_train, tmp_path, monkeypatch):
    monkeypatch.setattr("ppo_cli.envs.snapshot.RESEED_STEPS", 200)
    arguments = ("env.id=stubborn_envs:Late-v0", "checkpoint.exact=true", "checkpoint.every=1", *SMALL)
    assert ppo_train(*arguments, "hydra.run.dir=run").status == 0
    ended = [row for row in rows(tmp_path / "run") if row["charts/episodic_return"]]
    assert len(ended) == 3  # 512 steps of each environment
    assert {(row["charts/episodic_length"], row["charts/episodic_return"]) for row in ended} == {
        ("150.0", "100.0")
    }


@pytest.mark.parametrize("vectorization", ["sync", "async", "envpool", "entry_point"])
def test_what_can_not_be_brought_back_begins_new_episodes(ppo_train, tmp_path, interrupt, vectorization):
    env = (
        ("env=CartPole-v1",)
        if vectorization in ("envpool", "entry_point")
        else ("env.id=stubborn_envs:Late-v0",)
    )
    if vectorization == "envpool":
        pytest.importorskip("envpool")
    arguments = (*env, *SMALL, f"vectorization={vectorization}", "normalize.rewards=true")
    interrupt(3)
    stopped = ppo_train(*arguments, "hydra.run.dir=run")
    assert stopped.status == 128 + signal.SIGTERM
    assert "snapshots: none of" in stopped.out
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["iteration"] == 3
    interrupt(None)
    resumed = ppo_train("resume=run")
    assert resumed.status == 0, resumed.err
    assert "not exact from here on: all environments begin new episodes" in resumed.out
    table = rows(tmp_path / "run")
    assert [row["charts/cut_episodes"] for row in table] == ["0.0"] * 3 + ["3.0"] * (len(table) - 3)
    assert [int(row["iteration"]) for row in table] == list(range(1, len(table) + 1))


def test_environments_that_miss_their_observation_begin_new_episodes(
    ppo_train,
    tmp_path,
    monkeypatch,
    interrupt,
):
    arguments = ("env.id=stubborn_envs:Levels-v0", *SMALL, "hydra.run.dir=run")
    interrupt(7)
    assert "snapshots: an episode's start by its generator" in ppo_train(*arguments).out
    interrupt(None)
    resumed = ppo_train("resume=run")
    assert resumed.status == 0, resumed.err
    assert "did not come back to its saved observation" in resumed.out
    assert rows(tmp_path / "run")[-1]["charts/cut_episodes"] == "3.0"


@pytest.mark.slow
def test_a_run_goes_on_on_a_machine_that_rounds_otherwise(ppo_train, tmp_path, monkeypatch, interrupt):
    interrupt(2)
    assert ppo_train("env.id=stubborn_envs:OtherMachine-v0", *SMALL, "hydra.run.dir=run").status == 143
    interrupt(None)
    monkeypatch.setenv("OTHER_MACHINE", "1")
    resumed = ppo_train("resume=run")
    assert resumed.status == 0, resumed.err
    assert "not exact from here on" in resumed.out
    assert len(rows(tmp_path / "run")) == 8


def test_faults_are_counted_on_where_nothing_is_brought_back(ppo_train, tmp_path, interrupt):
    arguments = ("env.id=stubborn_envs:Fails-v0", *SMALL, "env.on_error=restart", "checkpoint.every=2")
    interrupt(4)
    assert ppo_train(*arguments, "eval.episodes=0", "hydra.run.dir=run").status == 143
    interrupt(None)
    assert ppo_train("resume=run").status == 0
    faults = [float(row["charts/env_faults"]) for row in rows(tmp_path / "run")]
    assert faults == sorted(faults)
    assert faults[3] > 0


def test_exactness_that_can_not_be_had_is_refused(ppo_train, tmp_path):
    refused = ppo_train("env.id=stubborn_envs:Unseeded-v0", *SMALL, "checkpoint.exact=true")
    assert refused.status == 2
    assert (
        "checkpoint.exact=true: stubborn_envs:Unseeded-v0 does not give the same observations" in refused.err
    )
    assert refused.err.count("\n") == 1
    refused = ppo_train("env=CartPole-v1", "vectorization=envpool", "checkpoint.exact=true")
    assert refused.status == 2
    assert "vectorization=envpool can't bring environments back" in refused.err
    assert not (tmp_path / "outputs").exists()


def test_an_endless_episode_is_replayed_up_to_a_bound(monkeypatch):
    monkeypatch.setattr("ppo_cli.envs.vector.MOST_REPLAYED", 500)
    vector = SyncVector([env_fn("stubborn_envs:Endless-v0"), env_fn("stubborn_envs:Levels-v0")], "replay")
    vector.reset(seed=[1, 2])
    actions = np.ones(2, np.int64)
    sizes = []
    for step in range(1, 3001):
        vector.step(actions)
        if step in (400, 1500, 3000):
            sizes.append([len(taken) for taken in vector.snapshot()["actions"]])
    assert sizes == [[400, 0], [0, 0], [0, 0]]
    assert len(vector._taken) <= 10
    saved = vector.snapshot()
    assert saved["starts"][0] is None
    assert saved["starts"][1] is not None


def test_global_generators_of_an_environments_own():
    first = [OwnGenerators(env_fn("stubborn_envs:Late-v0"), seed) for seed in (1, 1, 2)]
    looks = [[env.reset(seed=0)[0][1]] for env in first]
    for _ in range(5):  # side by side, and with draws of others between
        for env, look in zip(first, looks, strict=True):
            look.append(env.step(0)[0][1])
            np.random.random()
    assert looks[0] == looks[1]
    assert looks[0] != looks[2]


def test_the_kinds_that_exactness_allows():
    assert find_kind(env_fn("stubborn_envs:Late-v0"), exact=True) == "anew"
    assert find_kind(env_fn("stubborn_envs:Late-v0")) == "none"
    assert find_kind(env_fn("CartPole-v1"), exact=True) == "replay"
    assert snapshot.MOST_REPLAYED > snapshot.RESEED_STEPS


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_exact_where_it_is_asked_for(ppo_train, tmp_path, monkeypatch, interrupt, vectorization):
    monkeypatch.setattr("ppo_cli.envs.snapshot.RESEED_STEPS", 200)
    arguments = (
        "env.id=stubborn_envs:Late-v0", *SMALL, "checkpoint.exact=true", f"vectorization={vectorization}",
        "normalize.observations=true", "normalize.rewards=true",
    )  # fmt: skip
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    interrupt(4)
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    interrupt(None)
    resumed = ppo_train("resume=cut")
    assert resumed.status == 0
    assert "not exact" not in resumed.out
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
