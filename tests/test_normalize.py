"""Running normalisation against whole-data statistics and Stable-Baselines3's VecNormalize."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from ppo_cli.normalize import ObservationNormalizer, RewardNormalizer, RunningMeanStd
from ppo_cli.runs.checkpoint import load_checkpoint, save_checkpoint


class RandomEnv(gym.Env):
    """Observations of several scales, skewed rewards, and episodes that end at random."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action):
        reward = 5 + 3 * self.np_random.standard_exponential()
        return self.observe(), reward, bool(self.np_random.random() < 0.1), False, {}

    def observe(self) -> np.ndarray:
        return self.np_random.standard_normal(3) * [1.0, 100.0, 1e-3] + [0.0, -50.0, 7.0]


def batches(shape: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    """Batches of uneven sizes whose distribution drifts."""
    rng = np.random.default_rng(seed)
    return [rng.normal(3 + i / 20, 1 + i / 50, (1 + i % 7 * 40, *shape)) for i in range(200)]


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_running_statistics_are_those_of_the_whole_data(shape: tuple[int, ...]) -> None:
    statistics, data = RunningMeanStd(shape), batches(shape)
    for batch in data:
        statistics.update(batch)
    whole = np.concatenate(data)
    assert statistics.count == pytest.approx(len(whole))
    np.testing.assert_allclose(statistics.mean, whole.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.var, whole.var(axis=0), rtol=1e-6)


def test_float32_and_bytes_are_summed_in_float64() -> None:
    statistics = RunningMeanStd(())
    data = np.full(1_000_000, 200, np.uint8)
    data[0] = 100
    statistics.update(data)
    assert statistics.mean == pytest.approx(200 - 1e-4, rel=1e-9)
    assert statistics.var == pytest.approx(0.01, rel=1e-2)


def test_statistics_survive_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    for shape in [(), (2, 4)]:
        data = batches(shape)
        statistics, restored = RunningMeanStd(shape), RunningMeanStd(shape)
        for batch in data[:100]:
            statistics.update(batch)
        save_checkpoint(tmp_path / "statistics.pt", {"statistics": statistics.state_dict()})
        restored.load_state_dict(load_checkpoint(tmp_path / "statistics.pt")["statistics"])
        for batch in data[100:]:
            statistics.update(batch)
            restored.update(batch)
        assert np.array_equal(statistics.mean, restored.mean)
        assert np.array_equal(statistics.var, restored.var)
        assert statistics.count == restored.count


def test_a_stored_state_does_not_follow_later_updates() -> None:
    statistics = RunningMeanStd((2,))
    statistics.update(np.ones((5, 2)))
    stored = statistics.state_dict()
    copy = {key: np.array(value) for key, value in stored.items()}
    statistics.update(np.full((5, 2), 9.0))
    assert all(np.array_equal(stored[key], copy[key]) for key in copy)


@pytest.mark.parametrize("clip", [1.2, 10.0])
def test_streams_match_vec_normalize(clip: float) -> None:
    n_envs, gamma = 4, 0.97
    theirs = VecNormalize(
        DummyVecEnv([RandomEnv] * n_envs), clip_obs=clip, clip_reward=clip, gamma=gamma, epsilon=1e-8
    )
    theirs.seed(3)
    observations = ObservationNormalizer((3,), clip)
    rewards = RewardNormalizer(n_envs, gamma, clip)
    normalized = theirs.reset()
    clipped = ended = 0
    for _ in range(300):
        raw = theirs.get_original_obs()
        observations.update(raw)
        np.testing.assert_allclose(observations(raw), normalized, rtol=1e-6, atol=1e-6)
        normalized, scaled, dones, _ = theirs.step(np.zeros(n_envs, int))
        np.testing.assert_allclose(
            rewards(theirs.get_original_reward(), dones, np.ones(n_envs, bool)), scaled, rtol=1e-6, atol=1e-6
        )
        clipped += int((np.abs(normalized) == np.float32(clip)).sum())
        ended += int(dones.sum())
    assert ended > 50
    assert (clipped > 0) == (clip == 1.2)


def test_normalised_observations_are_float32_of_any_leading_shape() -> None:
    normalizer = ObservationNormalizer((3,), 10.0)
    normalizer.update(np.random.default_rng(0).normal(5, 2, (100, 3)))
    single, block = np.array([5.0, 5.0, 1e9]), np.full((4, 2, 3), 5.0)
    assert normalizer(single).dtype == normalizer(block).dtype == np.float32
    assert normalizer(block).shape == (4, 2, 3)
    assert normalizer(single)[2] == 10.0
    np.testing.assert_array_equal(normalizer(block)[1, 1, :2], normalizer(single)[:2])


def test_normalising_leaves_statistics_and_input_alone() -> None:
    normalizer = ObservationNormalizer((3,), 10.0)
    normalizer.update(np.ones((4, 3)))
    before = (
        normalizer.statistics.mean.copy(),
        normalizer.statistics.var.copy(),
        normalizer.statistics.count,
    )
    raw = np.full((2, 3), 40.0)
    normalizer(raw)
    assert np.array_equal(before[0], normalizer.statistics.mean)
    assert np.array_equal(before[1], normalizer.statistics.var)
    assert before[2] == normalizer.statistics.count
    assert (raw == 40).all()


def test_a_constant_stream_stays_finite() -> None:
    observations, rewards = ObservationNormalizer((2,), 10.0), RewardNormalizer(2, 0.99, 10.0)
    for _ in range(50):
        observations.update(np.full((2, 2), 3.0))
        seen = observations(np.full((2, 2), 3.0))
        scaled = rewards(np.zeros(2), np.array([False, True]), np.ones(2, bool))
    assert np.abs(seen).max() < 10
    assert (scaled == 0).all()


def test_reward_normalizer_keeps_sign_and_input() -> None:
    normalizer = RewardNormalizer(3, 0.99, 10.0)
    raw = np.array([-2.0, 0.0, 4.0])
    for _ in range(20):
        scaled = normalizer(raw, np.array([False, False, True]), np.ones(3, bool))
    assert raw.tolist() == [-2.0, 0.0, 4.0]
    assert np.sign(scaled).tolist() == [-1, 0, 1]  # divided, never shifted
    assert scaled[2] / scaled[0] == pytest.approx(-2)


def test_an_ended_episode_restarts_its_own_return_alone() -> None:
    normalizer = RewardNormalizer(2, 0.5, 10.0)
    normalizer(np.array([8.0, 8.0]), np.array([True, False]), np.ones(2, bool))
    normalizer(np.array([1.0, 1.0]), np.array([False, False]), np.ones(2, bool))
    assert normalizer.returns.tolist() == [1.0, 5.0]
