"""The wrappers of the published Atari settings that Gymnasium lacks (Mnih et al. 2015).

All treat a life as Stable-Baselines3 and OpenAI's baselines do, from which the order of the steps is taken.
"""

from typing import Any

import gymnasium as gym
import numpy as np

Reset = tuple[Any, dict[str, Any]]
Step = tuple[Any, float, bool, bool, dict[str, Any]]
NOOP, FIRE, SECOND = 0, 1, 2  # actions; some games need the second as well before they start


class EpisodicLife(gym.Wrapper[Any, Any, Any, Any]):
    """Ends the learner's episode with every lost life, while the game goes on until it is over.

    `reset` starts a new game only where the last one was over, or where a seed asks for it; else it steps
    once without an action. Belongs inside `FireReset` and outside of frame skipping, in training only.

    Attributes:
        was_real_done: Whether the last step ended the game itself.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Wraps one of ALE's environments.

        Raises:
            TypeError: it is none.
        """
        super().__init__(env)
        _check_ale(env)
        self.was_real_done = True
        self._lives = 0

    def step(self, action: Any) -> Step:  # noqa: ANN401
        """Steps; a lost life terminates."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.was_real_done = terminated or truncated
        lives = _lives(self)
        # Qbert shows no lives for some frames before its game is over: that is no second loss
        terminated = terminated or 0 < lives < self._lives
        self._lives = lives
        return observation, float(reward), terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Starts a new game, or only the next life."""
        over = self.was_real_done or seed is not None
        if not over:
            observation, _, terminated, truncated, info = self.env.step(NOOP)
            over = terminated or truncated
        if over:
            observation, info = self.env.reset(seed=seed, options=options)
            self.was_real_done = True
        self._lives = _lives(self)
        return observation, info


class FireReset(gym.Wrapper[Any, Any, Any, Any]):
    """Presses FIRE, which some games wait for, at a game's start and after every lost life.

    A policy that was trained with `EpisodicLife` never has to press it, so without that wrapper, as in
    evaluation, it is pressed in the step that loses the life, after one step without an action: the same
    actions as between two episodes of training. Games without FIRE are left as they are.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Wraps one of ALE's environments.

        Raises:
            TypeError: it is none.
        """
        super().__init__(env)
        _check_ale(env)
        meanings = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
        self._needed = meanings[1:2] == ["FIRE"] and len(meanings) > SECOND
        self._lives = 0

    def step(self, action: Any) -> Step:  # noqa: ANN401
        """Steps, and starts the next life where one was lost that did not end the episode."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        total, lost = float(reward), 0 < _lives(self) < self._lives
        for start in (NOOP, FIRE, SECOND) if lost and self._needed else ():
            if terminated or truncated:
                break
            observation, reward, terminated, truncated, info = self.env.step(start)
            total += float(reward)
        self._lives = _lives(self)
        return observation, total, terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Resets, and starts the game."""
        observation, info = self.env.reset(seed=seed, options=options)
        for start in (FIRE, SECOND) if self._needed else ():
            observation, _, terminated, truncated, info = self.env.step(start)
            if terminated or truncated:
                observation, info = self.env.reset(options=options)
        self._lives = _lives(self)
        return observation, info


class SignReward(gym.RewardWrapper[Any, Any]):
    """Rewards of 1, 0 and −1, by their sign: one step size for all games. In training only."""

    def reward(self, reward: Any) -> float:  # noqa: ANN401
        """The sign."""
        return float(np.sign(float(reward)))


def _lives(env: gym.Env[Any, Any]) -> int:
    return int(env.unwrapped.ale.lives())  # type: ignore[attr-defined]


def _check_ale(env: gym.Env[Any, Any]) -> None:
    if not hasattr(env.unwrapped, "ale"):
        raise TypeError("expected an Atari game of ALE, which counts lives")
