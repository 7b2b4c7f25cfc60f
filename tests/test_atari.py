"""Atari's wrappers: lives as episodes, whole games in the log, and games brought back from a snapshot."""

import numpy as np
import pytest

from ppo_cli.config.compose import load
from ppo_cli.envs.make import env_fn, make_env
from ppo_cli.envs.snapshot import find_kind
from ppo_cli.envs.vector import SyncVector
from ppo_cli.envs.workers import AsyncVector
from ppo_cli.episodes import EpisodeStatistics

pytest.importorskip("ale_py")
pytest.importorskip("cv2")

FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def published(env_id):
    """Id, arguments and wrappers of a preset."""
    config = load(f"env={env_id}")
    return env_id, config.env.kwargs, config.env.wrappers


BREAKOUT = published("ALE/Breakout-v5")


def ram(env):
    return env.unwrapped.ale.getRAM().tobytes()


def play(env, actions):
    """The emulator's memory after each action and the reset that it brings, and what the steps returned."""
    env.reset(seed=3)
    states, rewards, ends = [ram(env)], [], []
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        ends.append((terminated or truncated, info.get("episode", {}).get("r")))
        if terminated or truncated:
            env.reset()
        states.append(ram(env))
    env.close()
    return states, rewards, ends


def test_training_and_evaluation_play_the_same_game_and_see_it_differently():
    actions = np.random.default_rng(0).integers(0, 4, 500)
    states, rewards, ends = play(make_env(*BREAKOUT, training=True), actions)
    same, raw, games = play(make_env(*BREAKOUT), actions)
    assert states == same  # FIRE included, after each lost life
    assert rewards == np.sign(raw).tolist()
    lives, over = (np.flatnonzero([ended for ended, _ in each]) for each in (ends, games))
    assert len(over) >= 1
    assert len(lives) >= 5 * len(over)  # five lives a game
    assert set(over) <= set(lives)
    scores = [score for _, score in games if score is not None]
    assert [score for _, score in ends if score is not None] == scores
    whole = np.split(np.array(raw), over + 1)[: len(over)]
    assert [game.sum() for game in whole] == scores


def test_observations_are_the_last_four_frames():
    env = make_env(*BREAKOUT, training=True)
    first, _ = env.reset(seed=0)
    second, *_ = env.step(2)
    assert first.shape == (4, 84, 84)
    assert first.dtype == np.uint8
    assert np.array_equal(first[1:], second[:-1])
    env.close()


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "PongNoFrameskip-v4"])
def test_both_names_of_a_game_are_the_same_environment(env_id):
    name, kwargs, wrappers = published(env_id)
    env = make_env(name, kwargs, wrappers)
    assert env.unwrapped._frameskip == 1
    assert env.unwrapped.ale.getFloat("repeat_action_probability") == 0.0
    assert env.action_space.n == 6  # not all 18
    env.close()


def test_a_game_without_fire_is_left_as_it_is():
    wrappers = [{"name": "FireReset"}]
    env = make_env("ALE/MsPacman-v5", {"repeat_action_probability": 0.0}, wrappers)
    bare = make_env("ALE/MsPacman-v5", {"repeat_action_probability": 0.0})
    assert np.array_equal(env.reset(seed=0)[0], bare.reset(seed=0)[0])
    env.close()
    bare.close()


def trace(envs, actions):
    """Everything that steps give, and how often a game and a life ended."""
    rows, games, lives = [], 0, 0
    for action in actions:
        obs, rewards, terminated, truncated, info = envs.step(action)
        ended = terminated | truncated
        rows += [obs.tobytes(), rewards.tobytes(), terminated.tobytes(), truncated.tobytes()]
        if info:
            rows += [info["final_obs"][ended].tobytes(), info["returns"][ended].tobytes()]
            games += int(info["env_over"][ended].sum())
            lives += int(ended.sum())
    return rows, games, lives


@FORKS
@pytest.mark.parametrize("vector", ["sync", pytest.param("async", marks=pytest.mark.slow)])
def test_a_snapshot_between_two_lives_brings_back_the_game(monkeypatch, vector):
    monkeypatch.setattr("ppo_cli.envs.snapshot.RESEED_STEPS", 250)
    makes = [env_fn(*BREAKOUT, training=True)] * 2

    def new_vector():
        return SyncVector(makes, "seed") if vector == "sync" else AsyncVector(makes, 2, "seed")

    actions = np.random.default_rng(1).integers(0, 4, (900, 2))
    first = new_vector()
    first.reset(seed=[1, 2])
    _, games, lives = trace(first, actions[:600])
    assert games >= 2
    assert lives > 3 * games
    snapshot = first.snapshot()
    assert max(start["number"] for start in snapshot["starts"]) >= 1  # a second seed was given
    assert all(0 < len(taken) < 600 for taken in snapshot["actions"])
    rest = trace(first, actions[600:])
    first.close()
    second = SyncVector(makes, "seed")
    assert second.restore(snapshot, [3, 4]) == []
    assert trace(second, actions[600:]) == rest
    second.close()


def test_the_log_shows_whole_games_with_their_own_scores():
    episodes = EpisodeStatistics(2)
    everywhere, nan = np.ones(2, bool), np.nan
    dones = [[False, False], [True, True], [False, True], [True, False]]
    over = [[False, False], [False, True], [False, True], [True, False]]
    told = [[nan, nan], [nan, nan], [nan, 40.0], [70.0, nan]]
    for done, real, returns in zip(dones, over, told, strict=True):
        info = {"env_over": np.array(real), "returns": np.array(returns)} if any(done) else {}
        episodes.step(np.ones(2), np.array(done), everywhere, info)
    ended = episodes.take()
    assert ended.returns == [2.0, 40.0, 70.0]  # the sum where nothing was told
    assert ended.lengths == [2, 1, 4]  # the learner's steps, over lives


def test_a_preset_that_does_not_fit_is_refused_in_a_line(ppo_train, tmp_path):
    refused = ppo_train("env=ALE/Breakout-v5", "env.kwargs.obs_type=ram")
    assert refused.status == 2
    assert "ppo-train: env.wrappers: the wrapped environment can't be reset: RuntimeError" in refused.err
    assert refused.err.count("\n") == 1  # and no banner of ALE's
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("ram_only", [True, False])
def test_ale_comes_back_by_seeds(ram_only):
    plain = ("ALE/Pong-v5", {"obs_type": "ram"}, [])  # with sticky actions, which draw from ALE's generator
    assert find_kind(env_fn(*(plain if ram_only else BREAKOUT), training=True)) == "seed"
