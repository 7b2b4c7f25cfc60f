"""MinAtar's games as images (Young & Tian 2019, https://arxiv.org/abs/1903.03176)."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

SCALE = 16  # pixels of a film a side of each of the grid's cells


class MinAtarImage(gym.ObservationWrapper[Any, Any, Any]):
    """A grid of truth values [H, W, C] as an image of bytes [C, H, W], 0 and 255.

    Channels come first, because a grid of Seaquest has as many of them as rows, so that its shape does not
    say which is which. Films show the colours of MinAtar's own display. An episode begins as if no action had
    been taken before, so that its seed and its actions bring it back: MinAtar's sticky actions would repeat
    the last one of the episode before.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Wraps one of MinAtar's environments.

        Raises:
            TypeError: it is none.
        """
        super().__init__(env)
        self._game: Any = getattr(env.unwrapped, "game", None)
        if not hasattr(self._game, "last_action"):
            raise TypeError("expected one of MinAtar's games, whose observations are grids of truth values")
        *grid, channels = env.observation_space.shape or ()
        self.observation_space = gym.spaces.Box(0, 255, (channels, *grid), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Starts a game."""
        self._game.last_action = 0
        return super().reset(seed=seed, options=options)

    def observation(self, observation: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
        """[H, W, C] -> [C, H, W]."""
        image: npt.NDArray[np.uint8] = np.multiply(observation.transpose(2, 0, 1), np.uint8(255), order="C")
        return image

    def render(self) -> Any:  # noqa: ANN401 - None where nothing is rendered
        """The grid in colours, [16 H, 16 W, 3]."""
        shown = self.env.render()
        if not isinstance(shown, np.ndarray) or not np.issubdtype(shown.dtype, np.floating):
            return shown
        pixels = (255 * shown).astype(np.uint8)
        return pixels.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
