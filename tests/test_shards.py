"""A run that is cut into shards."""

import csv

import torch

from ppo_cli.runs.checkpoint import load_checkpoint

TINY = (
    "env=CartPole-v1", "preset=none", "n_envs=4", "n_steps=32", "total_timesteps=384", "batch_size=64",
    "n_epochs=2", "eval.episodes=2", "vectorization=sync", "compile=false", "checkpoint.every=1", "shards=4",
)  # fmt: skip


def weights(folder):
    return load_checkpoint(folder / "checkpoints" / "last.pt")["model"]


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        found = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if not k.startswith("time/") and k != "charts/SPS"} for row in found
    ]


def test_a_sharded_run_goes_on_to_the_same_bits(ppo_train, interrupt, tmp_path):
    typed = (*TINY, "normalize.observations=true", "normalize.rewards=true", "normalize.values=true",
             "hooks=[{name: run_hooks.Interrupt}]")  # fmt: skip
    assert ppo_train(*typed, "hydra.run.dir=whole").status == 0
    interrupt(2)
    assert ppo_train(*typed, "hydra.run.dir=cut").status == 143
    interrupt(None)
    out = ppo_train("resume=cut")
    assert out.status == 0, out
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")
