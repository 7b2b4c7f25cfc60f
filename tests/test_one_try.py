"""What a run makes before its first step: each environment once, and none beside another without need."""

import multiprocessing as mp

import pytest

from ppo_cli.config.compose import load
from ppo_cli.runs.caller import Caller
from ppo_cli.runs.run import run

FORKS = pytest.mark.skipif("fork" not in mp.get_all_start_methods(), reason="needs fork")
N = 4
KINDS = {
    "plain": [],
    "masked": ["+env.kwargs.masked=true"],
    "wrapped": ["env.wrappers=[{name:FlattenObservation}]"],
    "a Dict": ["+env.kwargs.nested=true"],
    "a masked Dict in a wrapper": [
        "+env.kwargs.nested=true", "+env.kwargs.masked=true",
        "env.wrappers=[{name:RecordEpisodeStatistics}]",
    ],
}  # fmt: skip


def lived_through(tmp_path, monkeypatch, typed):
    """How many environments a run made, and how many there were at once at the most."""
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted"))
    config = load(
        "env=counting_envs:Counting-v0", f"n_envs={N}", "n_steps=8", "total_timesteps=32", "compile=false",
         "eval.episodes=0", "env.timeout=60", *typed,
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    run(config, tmp_path / "run", caller=Caller(live=False))
    alive, most, made = 0, 0, 0
    for event in (tmp_path / "counted").read_text().split():
        made += event == "made"
        alive += 1 if event == "made" else -1
        most = max(most, alive)
    assert alive == 0
    return made, most


@FORKS
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_is_tried_one_is_compared_with_and_n_are_trained_in(tmp_path, monkeypatch, kind, vectorization):
    made, most = lived_through(tmp_path, monkeypatch, [*KINDS[kind], f"vectorization={vectorization}"])
    assert made == 2 + N
    assert most == N


def test_wrappers_of_training_alone_take_one_more_whose_spaces_evaluation_has(tmp_path, monkeypatch):
    wrappers = "env.wrappers=[{name:ClipReward,min_reward:0,max_reward:0.5,when:train}]"
    made, most = lived_through(tmp_path, monkeypatch, [wrappers, "vectorization=sync"])
    assert made == 3 + N
    assert most == N


def test_exactness_is_tried_once(tmp_path, monkeypatch):
    made, most = lived_through(tmp_path, monkeypatch, ["checkpoint.exact=true", "vectorization=sync"])
    assert made == 2 + N
    assert most == N
