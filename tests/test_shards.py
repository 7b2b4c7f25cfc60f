"""A run that is cut into shards, and the processes that have them."""

import csv
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from run_hooks import INTERRUPTIBLE

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.agent import flatten_parameters
from ppo_cli.collective import ALONE, Collective
from ppo_cli.distributions import make_distribution
from ppo_cli.normalize import RunningMeanStd
from ppo_cli.rollout import Batch, sequences
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.runs.following import follow
from ppo_cli.seeding import spawn_seeds, stream_generator
from ppo_cli.sharded import Data, make_sharded_step, sharded_minibatches, weighted_sum
from ppo_cli.shards import joined, split
from ppo_cli.spaces import Spaces
from ppo_cli.update import Hyperparameters, first_state, make_step, parameter_shapes
from gymnasium.spaces import Box, Discrete

TINY = (
    "env=CartPole-v1", "preset=none", "n_envs=4", "n_steps=16", "total_timesteps=192", "batch_size=32",
    "n_epochs=2", "eval.episodes=2", "vectorization=sync", "compile=false", "checkpoint.every=1", "shards=4",
    "network.hidden_sizes=[8]",
)  # fmt: skip
SCALED = ("normalize.observations=true", "normalize.rewards=true", "normalize.values=true")
KNOBS = {"learning_rate": 1e-3, "clip_ratio": 0.2, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5}
SHARDS, ROWS, OBSERVATION = 4, 24, 3


def learnt(folder):
    """All of a run that no clock has a part in: the checkpoint's weights and states, and the rows of the CSV."""
    saved = load_checkpoint(folder / "checkpoints" / "last.pt")
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows = [{k: v for k, v in row.items() if not k.startswith("time/") and k != "charts/SPS"} for row in rows]
    return {key: saved[key] for key in saved if key not in ("log", "versions", "config", "format")} | {"rows": rows}


def assert_same(first, second, where=""):
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for i, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}.{i}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


@pytest.fixture
def start(ppo_train, monkeypatch):
    """A function that runs `ppo-train` as several processes, of which the first is this one."""
    ports = iter(range(29_600 + 40 * os.getpid() % 20_000, 60_000))

    def call(processes, *arguments):
        if processes == 1:
            return ppo_train(*arguments)
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(next(ports)))
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        others = []
        for rank in range(1, processes):
            pid = os.fork()
            if not pid:
                os.environ["RANK"] = str(rank)
                try:
                    follow()
                finally:
                    os._exit(0)
            others.append(pid)
        monkeypatch.setenv("RANK", "0")
        outcome = ppo_train(*arguments)
        for pid in others:
            assert os.waitpid(pid, 0)[1] == 0
        monkeypatch.delenv("WORLD_SIZE")
        return outcome

    return call


def test_two_processes_have_the_bits_of_one_also_of_a_run_that_goes_on(start, interrupt, tmp_path):
    typed = (*TINY, *SCALED, INTERRUPTIBLE)
    assert start(1, *typed, "hydra.run.dir=whole").status == 0
    interrupt(2)
    assert start(2, *typed, "hydra.run.dir=cut").status == 143
    interrupt(None)
    assert start(1, "resume=cut").status == 0
    assert_same(learnt(tmp_path / "whole"), learnt(tmp_path / "cut"))
