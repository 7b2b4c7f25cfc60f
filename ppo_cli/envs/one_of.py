"""A single environment, as one of a vector of which there are no single ones."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.vector.utils import concatenate, create_empty_array

from ppo_cli.envs.batch_infos import told_of
from ppo_cli.envs.batches import row_of
from ppo_cli.envs.named import Maker, Vectors, make_vectors


class OneOf(gym.Env[Any, Any]):
    """The first environment of a vector, for whoever looks at a single one: its spaces, its observation.

    Where it is the only one, episodes can be played in it.

    Attributes:
        envs: The vector.
    """

    def __init__(self, envs: Vectors) -> None:
        """Takes a vector, which it closes at the end."""
        self.envs = envs
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space
        self.metadata = dict(envs.metadata or {})
        self.render_mode = getattr(envs, "render_mode", None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        super().reset(seed=seed)
        observations, infos = self.envs.reset(seed=seed, options=options)
        return self._first(observations), told_of(infos, 0, self.envs.num_envs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Steps it; after an end only a reset follows.

        Raises:
            ValueError: there are others, which need actions too.
        """
        if self.envs.num_envs != 1:
            raise ValueError(f"one of {self.envs.num_envs} environments can't be stepped alone")
        space = self.action_space
        actions = concatenate(space, [action], create_empty_array(space, 1))
        observations, rewards, terminated, truncated, infos = self.envs.step(actions)
        over = bool(terminated[0]), bool(truncated[0])
        if any(over) and "final_obs" in infos:  # the observation beside is the next episode's
            observations, infos = infos["final_obs"], infos.get("final_info", {})
        return self._first(observations), float(rewards[0]), *over, told_of(infos, 0, 1)

    def render(self) -> Any:  # noqa: ANN401
        """The picture of it."""
        pictures = self.envs.render()
        return pictures[0] if isinstance(pictures, (tuple, list)) else pictures

    def close(self) -> None:
        """Closes the vector."""
        self.envs.close()

    def _first(self, observations: Any) -> Any:  # noqa: ANN401
        return row_of(self.observation_space, observations, 0)


def make_one_of(env_id: str, maker: Maker, n: int, kwargs: Mapping[str, Any]) -> OneOf:
    """The first one of N environments.

    Raises:
        EnvError: they can't be made.
    """
    return OneOf(make_vectors(env_id, maker, n, kwargs))
