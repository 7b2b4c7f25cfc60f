"""MinAtar's games as images (Young & Tian 2019, https://arxiv.org/abs/1903.03176)."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

SCALE = 16  # pixels of a film a side of each of the grid's cells


class MinAtarImage(gym.ObservationWrapper[Any, Any, Any]):
    """A grid of truth values [H, W, C] as an image of bytes [C, H, W], 0 and 255.

    Channels come first, because a grid of Seaquest has as many of them as rows, so that its shape does not
    say which is which. Films show the colours of MinAtar's own display.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Wraps one of MinAtar's environments.

        Raises:
            TypeError: its observations are no grid of truth values.
        """
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gym.spaces.Box) or space.dtype != np.bool_ or len(space.shape) != 3:
            raise TypeError("expected a grid of truth values with channels, as MinAtar's games have it")
        *grid, channels = space.shape
        self.observation_space = gym.spaces.Box(0, 255, (channels, *grid), np.uint8)

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
