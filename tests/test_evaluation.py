"""Evaluation: each episode has its own seed and counts once, however many run side by side."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.distributions import make_distribution
from ppo_cli.episodes import Evaluation
from ppo_cli.normalize import ObservationNormalizer
from ppo_cli.policy import BatchPolicy
from ppo_cli.runs import evaluation
from ppo_cli.runs.evaluation import MAX_SLOTS, EvaluationPlan, evaluate
from ppo_cli.seeding import spawn_seeds

OBSERVATIONS = spaces.Box(-1, 1, (3,), np.float64)


class SeededEnv(gym.Env):
    """Episodes whose length, reward and observations depend on the seed of their reset alone.

    Short episodes pay a lot and long ones little, so that counting short ones too often shows.
    """

    observation_space = OBSERVATIONS
    action_space = spaces.Discrete(2)
    made: "list[SeededEnv]" = []  # noqa: RUF012 - shared on purpose

    def __init__(self) -> None:
        self.closed = False
        self.made.append(self)

    def reset(self, *, seed=None, options=None):
        assert seed is not None
        super().reset(seed=seed)
        self.left = int(self.np_random.choice([1, 2, 30]))
        self.pay = 100.0 / self.left
        return self.np_random.uniform(-1, 1, 3), {}

    def step(self, action):
        self.left -= 1
        end = self.left == 0
        cut = end and self.pay > 60  # some end by truncation
        reward = self.pay + float(action) / 8
        return self.np_random.uniform(-1, 1, 3), reward, end and not cut, cut, {}

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def forget_environments() -> None:
    SeededEnv.made.clear()


def make_policy(normalizer: ObservationNormalizer | None = None) -> BatchPolicy:
    torch.manual_seed(0)
    space = SeededEnv.action_space
    model = make_actor_critic(OBSERVATIONS, space, hidden_sizes=(8,))
    return BatchPolicy(model, make_distribution(space), normalizer)


def one_by_one(policy: BatchPolicy, seeds: list[int]) -> tuple[list[float], list[int]]:
    """Returns and lengths of single episodes with these seeds."""
    returns, lengths = [], []
    for seed in seeds:
        env, total, length, ended = SeededEnv(), 0.0, 0, False
        obs, _ = env.reset(seed=seed)
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(policy.act(obs[None])[0][0])
            total, length, ended = total + reward, length + 1, terminated or truncated
        returns.append(total)
        lengths.append(length)
    return returns, lengths


@pytest.mark.parametrize("slots", [1, 3, 16])
@pytest.mark.parametrize("episodes", [1, 7, 40])
def test_episodes_are_dealt_beforehand(episodes: int, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MAX_SLOTS", slots)
    policy = make_policy()
    result = evaluate(policy, EvaluationPlan(SeededEnv, episodes, seed=5, deterministic=True))
    returns, lengths = one_by_one(policy, spawn_seeds(5, "eval", episodes))
    assert result.lengths == lengths
    assert result.returns == pytest.approx(returns)


def test_both_actions_and_all_lengths_occur() -> None:
    # else the comparison above would compare nothing
    result = evaluate(make_policy(), EvaluationPlan(SeededEnv, 40, seed=5, deterministic=True))
    assert set(result.lengths) == {1, 2, 30}
    extra = [8 * (total - 100) / length for total, length in zip(result.returns, result.lengths, strict=True)]
    assert 0.2 < np.mean(extra) < 0.8


def test_returns_are_as_the_statistics_below_other_wrappers_see_them() -> None:
    def scaled(recorded: bool) -> gym.Env:
        env = SeededEnv()
        env = gym.wrappers.RecordEpisodeStatistics(env) if recorded else env
        return gym.wrappers.TransformReward(env, lambda reward: 1000 * reward)

    plain, above, below = (
        evaluate(make_policy(), EvaluationPlan(make, 20, seed=5, deterministic=True))
        for make in (SeededEnv, lambda: scaled(False), lambda: scaled(True))
    )
    assert above.returns == pytest.approx([1000 * each for each in plain.returns])
    assert below.returns == pytest.approx(plain.returns)
    cut, own = (
        evaluate(make_policy(), EvaluationPlan(make, 20, seed=5, deterministic=True, max_steps=9))
        for make in (lambda: scaled(True), SeededEnv)
    )
    assert max(cut.lengths) == 9
    assert cut.returns == pytest.approx(own.returns)


def test_fewer_episodes_are_the_first_of_more() -> None:
    policy = make_policy()
    few = evaluate(policy, EvaluationPlan(SeededEnv, 5, seed=1, deterministic=True))
    many = evaluate(policy, EvaluationPlan(SeededEnv, 33, seed=1, deterministic=True))
    assert few.lengths == many.lengths[:5]
    assert few.returns == pytest.approx(many.returns[:5])


@pytest.mark.parametrize("deterministic", [True, False])
def test_twice_is_the_same_whatever_the_global_generators_hold(deterministic: bool) -> None:
    policy = make_policy()
    torch.manual_seed(1)
    np.random.seed(1)
    first = evaluate(policy, EvaluationPlan(SeededEnv, 20, seed=3, deterministic=deterministic))
    torch.manual_seed(2)
    np.random.seed(2)
    state = torch.get_rng_state()
    assert evaluate(policy, EvaluationPlan(SeededEnv, 20, seed=3, deterministic=deterministic)) == first
    assert torch.equal(torch.get_rng_state(), state)  # and training's draws go on as without it


def test_seeds_and_sampling_make_a_difference() -> None:
    policy = make_policy()
    greedy = evaluate(policy, EvaluationPlan(SeededEnv, 20, seed=3, deterministic=True))
    sampled = evaluate(policy, EvaluationPlan(SeededEnv, 20, seed=3, deterministic=False))
    other = evaluate(policy, EvaluationPlan(SeededEnv, 20, seed=4, deterministic=True))
    assert greedy.returns != sampled.returns
    assert greedy.lengths == sampled.lengths  # the same episodes
    assert greedy.lengths != other.lengths


def test_no_more_environments_than_needed_and_all_closed() -> None:
    evaluate(make_policy(), EvaluationPlan(SeededEnv, 3, seed=0, deterministic=True))
    assert len(SeededEnv.made) == 3
    evaluate(make_policy(), EvaluationPlan(SeededEnv, 50, seed=0, deterministic=True))
    assert len(SeededEnv.made) == 3 + MAX_SLOTS
    assert all(env.closed for env in SeededEnv.made)


def test_normalisation_is_used_and_frozen() -> None:
    normalizer = ObservationNormalizer((3,), 10.0)
    normalizer.update(np.random.default_rng(0).normal(2, 0.1, (100, 3)))
    before = normalizer.statistics.mean.copy()
    with_it = evaluate(make_policy(normalizer), EvaluationPlan(SeededEnv, 20, seed=3, deterministic=True))
    without = evaluate(make_policy(), EvaluationPlan(SeededEnv, 20, seed=3, deterministic=True))
    assert np.array_equal(normalizer.statistics.mean, before)
    assert normalizer.statistics.count == pytest.approx(100, abs=1e-3)
    assert with_it.returns != without.returns


@pytest.mark.parametrize(
    ("env_id", "use_sde"),
    [("CartPole-v1", False), ("Pendulum-v1", False), ("Pendulum-v1", True), ("FrozenLake-v1", False)],
)
@pytest.mark.parametrize("deterministic", [True, False])
def test_real_environments(env_id: str, use_sde: bool, deterministic: bool) -> None:
    def make() -> gym.Env:
        return gym.make(env_id, max_episode_steps=30)

    env = make()
    model = make_actor_critic(env.observation_space, env.action_space, use_sde=use_sde)
    policy = BatchPolicy(model, make_distribution(env.action_space), None)
    result = evaluate(policy, EvaluationPlan(make, 3, seed=0, deterministic=deterministic))
    assert all(1 <= length <= 30 for length in result.lengths)
    if env_id == "CartPole-v1":
        assert result.returns == result.lengths


@pytest.mark.parametrize(
    ("returns", "iqm"),
    [
        ([8.0, 1, 7, 2, 6, 3, 5, 4], 4.5),  # 3 to 6 remain
        ([1000.0, 2, 1, 3, -1000], 2.0),  # a quarter of 5 is 1, rounded down
        ([0.0, 0, 1], 1 / 3),  # too few to leave any out
        ([5.0], 5.0),
        ([100.0, 1, 2, -100], 1.5),
    ],
)
def test_iqm_by_hand(returns: list[float], iqm: float) -> None:
    assert Evaluation(returns, [1] * len(returns)).iqm == pytest.approx(iqm)


def test_iqm_matches_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for n in range(1, 25):
        returns = np.random.default_rng(n).normal(size=n).tolist()
        assert Evaluation(returns, [1] * n).iqm == pytest.approx(stats.trim_mean(returns, 0.25))


def test_mean_and_population_deviation() -> None:
    result = Evaluation([1.0, 3.0, 8.0], [4, 5, 6])
    assert result.mean == pytest.approx(4.0)
    assert result.std == pytest.approx(math.sqrt((9 + 1 + 16) / 3))
    assert Evaluation([2.0], [1]).std == 0.0
