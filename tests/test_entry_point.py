"""`vectorization=entry_point`: vectors of environments as they come, in every autoreset mode."""

from contextlib import closing

import gymnasium as gym
import numpy as np
import pytest
import torch
import vector_envs
from gymnasium.vector import AutoresetMode

from ppo_cli.collector import Collector
from ppo_cli.envs.batches import ObservationBatch, chosen
from ppo_cli.envs.choose import make_vector
from ppo_cli.envs.entry_point import EntryPointVector
from ppo_cli.envs.group import EnvFaultError
from ppo_cli.envs.make import env_fn, resolve_env_id, spaces_of
from ppo_cli.envs.vector import Recipe, SyncVector
from ppo_cli.episodes import EpisodeStatistics
from ppo_cli.errors import EnvError
from ppo_cli.rollout import Rollout
from ppo_cli.runs.checkpoint import load_checkpoint

N = 3
MANY, CONSTANT = "vector_envs:Vectors-v0", "vector_envs:Constants-v0"
WALKS = "vector_envs:Walks-v0"
MODES = [mode.value for mode in AutoresetMode]
TASKS = {
    "CartPole": {"inner": "CartPole-v1"},
    "infos": {"inner": "info_envs:Parts-v0", "shortest": 2},
    "indices": {"inner": "zoo_envs:Zoo-v0", "observation": "discrete", "action": "start"},
    "float64": {"inner": "zoo_envs:Zoo-v0", "observation": "float64", "action": "multi_discrete"},
    "Dict": {"inner": "zoo_envs:Zoo-v0", "observation": "dict", "action": "product"},
    "Tuple": {"inner": "zoo_envs:Zoo-v0", "observation": "tuple", "action": "box"},
    "mask": {"inner": "zoo_envs:Zoo-v0", "observation": "dict", "action": "discrete", "mask": "key"},
}


def recipe(env_id, kwargs, n=N, infos=None):
    resolve_env_id(env_id)  # imports what registers it
    make = env_fn(env_id, kwargs)
    return Recipe(env_id, [make] * n, spaces_of(make), infos=infos, kwargs=kwargs)


def entry_point(env_id, kwargs, n=N):
    return make_vector(recipe(env_id, kwargs, n), "entry_point")[0]


def check(wanted):
    with closing(wanted.makes[0]()) as env:
        EntryPointVector.check(wanted, env)


def action_for(envs, obs):
    """An action that depends on the observation alone."""
    space = envs.single_action_space
    if (
        masks := [leaf for leaf in getattr(envs.single_observation_space, "leaves", ()) if leaf.is_mask]
    ) != []:
        return int(np.argmax(obs[masks[0].start : masks[0].stop]))
    space.seed(int(np.abs(obs).sum() * 1000) % 2**31)
    return space.sample()


def episodes(envs, steps):
    """Every transition of each environment, filler rows left out, and the infos of its ended episodes."""
    found = [[] for _ in range(envs.num_envs)]
    obs = np.array(envs.reset(seed=5)[0])
    for _ in range(steps):
        actions = np.stack([action_for(envs, row) for row in obs])
        after, rewards, terminated, truncated, info = envs.step(actions)
        for i in range(envs.num_envs):
            if "filler" in info and info["filler"][i]:
                continue
            ended = bool(terminated[i] | truncated[i])
            reached = info["final_obs"][i] if ended and "final_obs" in info else after[i]
            found[i].append(
                (obs[i].tobytes(), rewards[i], np.array(reached).tobytes(), terminated[i], truncated[i])
            )
        obs = np.array(after)
    infos = envs.take_infos()
    envs.close()
    return found, sorted(sorted(each.items()) for each in infos)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", TASKS)
def test_episodes_are_those_of_single_environments_in_every_autoreset_mode(task, mode):
    kwargs = TASKS[task]
    fillers = mode == "NextStep"
    reference = SyncVector([env_fn(MANY, kwargs)] * N, infos=None)
    expected, told = episodes(reference, 60)
    envs = entry_point(MANY, {**kwargs, "mode": mode})
    assert (envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP) is fillers
    found, infos = episodes(envs, 60)
    for one, other in zip(found, expected, strict=True):
        assert len(one) > 30 if fillers else len(one) == 60
        assert one == other[: len(one)]
    assert infos == told or fillers
    assert (task == "infos") is bool(infos)
    assert all(each in told for each in infos)


@pytest.mark.parametrize("mode", MODES)
def test_a_vector_may_write_into_what_it_returned_and_tell_odd_things(mode):
    def follow(envs):
        found, told = episodes(envs, 40)
        return found, [[number for number in each if number[0] == "ones"] for each in told]

    expected, told = follow(SyncVector([env_fn(WALKS, {})] * N, infos=None))
    found, infos = follow(entry_point(WALKS, {"mode": mode}))
    for one, other in zip(found, expected, strict=True):
        assert len(one) > 25
        assert one == other[: len(one)]
    assert infos
    assert infos == told or mode == "NextStep"
    assert all(each in told for each in infos)


def test_an_end_in_a_step_that_only_resets_is_refused():
    envs = entry_point(WALKS, {"odd": "stale"})
    envs.reset(seed=0)
    said = "the vector of environments returned an end in the step that only resets environment 0"
    with pytest.raises(EnvFaultError, match=said):
        for _ in range(4):
            envs.step(np.ones(N, np.int64))


def test_observations_that_can_not_be_written_to_are_copied_without_a_word(recwarn):
    envs = entry_point(WALKS, {"odd": "read-only"})
    rollout = Rollout(1, N, (2,), torch.float32, (), torch.int64)
    Collector(envs, rollout, EpisodeStatistics(N), None, None, None, None).reset([0] * N)
    assert not envs.observations.flags.writeable
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_what_a_wrapper_around_the_vector_reports_as_return_counts(mode):
    def many(num_envs, **kwargs):
        recorded = gym.wrappers.vector.RecordEpisodeStatistics(vector_envs.Walks(num_envs, **kwargs))
        return gym.wrappers.vector.TransformReward(recorded, lambda rewards: rewards * 100)

    gym.register("Recorded-v0", vector_envs.Walk, vector_entry_point=many)
    envs = entry_point("Recorded-v0", {"mode": mode, "odd": "recorded"})
    gym.registry.pop("Recorded-v0")
    envs.reset(seed=0)
    returns = [envs.step(np.ones(N, np.int64))[-1].get("returns") for _ in range(3)]
    assert returns[:2] == [None, None]
    assert returns[2].tolist() == [4.5] * N


def test_what_single_environments_report_as_their_return_counts():
    def many(num_envs, **_):
        def make():
            scaled = gym.wrappers.RecordEpisodeStatistics(gym.make("CartPole-v1"))
            return gym.wrappers.TransformReward(scaled, lambda reward: reward / 100)

        return gym.vector.SyncVectorEnv([make] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)

    gym.register("Reported-v0", "gymnasium.envs.classic_control:CartPoleEnv", vector_entry_point=many)
    envs = entry_point("Reported-v0", {})
    gym.registry.pop("Reported-v0")
    envs.reset(seed=0)
    for t in range(1, 20):
        *_, info = envs.step(np.ones(N, np.int64))
        if "returns" in info:
            ended = info["env_over"]
            assert (info["returns"][ended] == t).all()
            assert np.isnan(info["returns"][~ended]).all()
            return
    raise AssertionError("no episode ended")


def test_rows_that_only_reset_pay_nothing():
    class Paying(gym.vector.SyncVectorEnv):
        def step(self, actions):
            obs, rewards, *rest = super().step(actions)
            return (obs, rewards * 0 + 1, *rest)

    gym.register(
        "Paying-v0", "gymnasium.envs.classic_control:CartPoleEnv",
        vector_entry_point=lambda num_envs: Paying([lambda: gym.make("CartPole-v1")] * num_envs),
    )  # fmt: skip
    envs = entry_point("Paying-v0", {})
    gym.registry.pop("Paying-v0")
    envs.reset(seed=0)
    rows = [envs.step(np.ones(N, np.int64)) for _ in range(30)]
    fillers = np.array([info["filler"] for *_, info in rows])
    assert np.array_equal(np.array([rewards for _, rewards, *_ in rows]), ~fillers)
    assert fillers.any()


def test_the_same_seeds_give_the_same_episodes():
    runs = []
    for seeds in ([7, 1, 2], [7, 8, 9], [8, 1, 2]):
        envs = entry_point("CartPole-v1", {})
        envs.reset(seed=seeds)
        runs.append(envs.step(np.zeros(N, np.int64))[0])
    assert np.array_equal(runs[0], runs[1])  # a vector takes one seed: the first
    assert not np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("env_id", "kwargs", "said"),
    [
        ("Acrobot-v1", {}, "Acrobot-v1 has no vector entry point"),
        (CONSTANT, {"wrong": "metadata"}, "does not say when it resets: expected metadata['autoreset_mode']"),
        (CONSTANT, {"wrong": "spaces"}, "has actions of Discrete(3), and a single environment"),
        (CONSTANT, {"wrong": "argument"}, "{'wrong': 'argument'}: ValueError: no such argument"),
    ],
)
def test_what_can_not_be_stepped_that_way_is_refused_in_a_line(env_id, kwargs, said):
    with pytest.raises(EnvError) as refused:
        check(recipe(env_id, kwargs))
    line = str(refused.value)
    assert line.startswith("vectorization=entry_point: ")
    assert said in line
    assert line.endswith("; use vectorization=auto, which steps single environments")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("raises", "raised ArithmeticError: the first step is cursed (vector_envs.py, line "),
        ("rewards", "returned rewards of shape (3, 1), where (3,) is expected"),
        ("nan", "returned a NaN or an infinity as the reward of environment 1"),
        ("infinity", "returned a NaN or an infinity in the observation of environment 2"),
        ("final", "returned an episode's end without 'final_obs' in infos, in autoreset mode SAME_STEP"),
        ("shape", "returned an observation of shape (3, 3), where its space says (3, 2)"),
    ],
)
def test_a_fault_of_the_vector_is_said_in_a_line(wrong, said):
    envs = entry_point(CONSTANT, {"wrong": wrong})
    with pytest.raises(EnvFaultError) as fault:
        envs.reset(seed=0)
        envs.step(np.zeros(N, np.int64))
    assert str(fault.value).startswith(f"the vector of environments {said}")


def test_a_mask_without_a_legal_action_is_refused_but_at_an_end():
    envs = entry_point(MANY, TASKS["mask"])
    envs.reset(seed=0)
    (mask,) = (leaf for leaf in envs.single_observation_space.leaves if leaf.is_mask)
    obs = {"camera": np.zeros((N, 36, 36, 3), np.uint8), "speed": np.zeros((N, 2), np.float32)}
    obs |= {"gear": np.zeros(N, np.int64), "action_mask": np.array([[0, 1, 0, 1], [0] * 4, [1] * 4])}
    batch = envs._batch(obs, np.array([False, True, False]))
    assert batch[:, mask.start : mask.stop].tolist() == [[0, 1, 0, 1], [0] * 4, [1] * 4]
    with pytest.raises(ValueError, match="an action_mask without a legal action for environment 1"):
        envs._batch(obs, np.zeros(N, bool))


def test_final_observations_are_looked_at_only_where_an_episode_ended():
    space = gym.spaces.Discrete(5, start=3)
    batch = ObservationBatch(space, gym.spaces.Discrete(2), N)
    ended, others = np.array([False, True, False]), np.array([3, 3, 7])
    for found in (np.array([0, 4, 0]), np.array([None, 4, None])):
        assert batch(chosen(space, found, ended, others), ended).tolist() == [3, 4, 7]
    with pytest.raises(ValueError, match="where its space has"):
        batch(chosen(space, np.array([0, 8, 0]), ended, others), ended)


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ("env=LunarLander-v3", "vectorization=entry_point: LunarLander-v3 has no vector entry point"),
        ("env.wrappers=[{name:FlattenObservation}]", "env.wrappers: vectorization=entry_point takes no wrap"),
        (
            "env.action_mask=true",
            "env.action_mask=true: CartPole-v1 has neither an 'action_mask' in its infos",
        ),
        (
            "checkpoint.exact=true",
            "checkpoint.exact=true: vectorization=entry_point can't bring environments",
        ),
        ("env.on_error=restart", "env.on_error=restart: vectorization=entry_point can't restart an env"),
    ],
)
def test_what_does_not_go_with_it_is_refused_before_a_folder_is_made(ppo_train, tmp_path, knob, said):
    outcome = ppo_train("env=CartPole-v1", "vectorization=entry_point", knob)
    assert outcome.status == 2
    assert outcome.err.startswith(f"ppo-train: {said}")
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_counts_only_transitions_and_takes_the_environments_arguments(ppo_train, tmp_path):
    outcome = ppo_train(
        "env=CartPole-v1", "vectorization=entry_point", "n_envs=64", "n_steps=32", "total_timesteps=4000",
        "+env.kwargs.max_episode_steps=10", "normalize.observations=true", "normalize.rewards=true",
        "n_epochs=1", "batch_size=512", "eval.episodes=2", "compile=false",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "at least 4,000 steps" in outcome.out
    checkpoint = load_checkpoint(next(tmp_path.glob("outputs/*/*/checkpoints/last.pt")))
    assert 4000 <= checkpoint["steps"] < 3 * 64 * 32  # less the rows that only reset
    assert checkpoint["observation_statistics"]["count"] < 3 * 64 * 32
    assert checkpoint["environments"] is None
