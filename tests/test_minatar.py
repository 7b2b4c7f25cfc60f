"""MinAtar: grids of truth values as small images, their network, and the games where they are installed."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.nn import functional

from ppo_cli.config.compose import load
from ppo_cli.encoders import EncoderChoice, MinAtarCNN, make_encoder
from ppo_cli.envs.make import env_fn, make_env
from ppo_cli.envs.minatar import MinAtarImage
from ppo_cli.envs.snapshot import find_kind
from ppo_cli.envs.vector import SyncVector
from ppo_cli.spaces import image_layout

GAMES = {"Asterix": 4, "Breakout": 4, "Freeway": 7, "Seaquest": 10, "SpaceInvaders": 6}  # channels


class Grid(gym.Env):
    """Shows truth values as MinAtar's environments do, and colours from 0 to 1."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as Gymnasium has it
    action_space = spaces.Discrete(2)

    def __init__(self, channels, render_mode=None):
        self.observation_space = spaces.Box(0, 1, (10, 12, channels), bool)
        self.render_mode = render_mode
        self.game = SimpleNamespace(last_action=3)
        self.state = np.random.default_rng(0).random((10, 12, channels)) < 0.3

    def reset(self, *, seed=None, options=None):
        return self.state, {}

    def step(self, action):
        return self.state, 0.0, False, False, {}

    def render(self):
        return self.state[..., :3] * 0.5 if self.render_mode else None


@pytest.mark.parametrize("channels", [4, 10])
def test_a_grid_is_an_image_with_channels_first_whatever_their_number(channels):
    env = MinAtarImage(Grid(channels))
    image, _ = env.reset()
    assert env.observation_space == spaces.Box(0, 255, (channels, 10, 12), np.uint8)
    assert image_layout(env.observation_space) == (0, 1, 2)
    assert env.observation_space.contains(image)
    assert image.flags.c_contiguous
    assert np.array_equal(image.transpose(1, 2, 0) == 255, env.unwrapped.state)
    assert set(np.unique(image)) == {0, 255}
    assert np.array_equal(env.step(0)[0], image)
    assert env.unwrapped.game.last_action == 0  # nothing of the episode before


def test_the_network_sees_zeros_and_ones():
    space = MinAtarImage(Grid(4)).observation_space
    encoder = make_encoder(space, EncoderChoice("minatar_cnn"))
    seen = encoder.input(torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 240).view(1, 4, 10, 12))
    assert seen.unique().tolist() == [0.0, 1.0]


def test_the_network_is_a_convolution_and_a_linear_layer():
    space = spaces.Box(0, 255, (4, 10, 10), np.uint8)
    encoder = make_encoder(space, EncoderChoice("minatar_cnn"))
    assert isinstance(encoder, MinAtarCNN)
    shapes = [tuple(parameter.shape) for parameter in encoder.parameters()]
    assert shapes == [(16, 4, 3, 3), (16,), (128, 16 * 8 * 8), (128,)]
    image = torch.randint(0, 256, (3, 4, 10, 10), dtype=torch.uint8)
    weight, bias, *linear = encoder.parameters()
    patches = functional.unfold(image / 255, 3).transpose(1, 2)  # [B, 64, 4 * 9]
    planes = functional.relu(patches @ weight.flatten(1).T + bias).transpose(1, 2)
    expected = functional.relu(functional.linear(planes.flatten(1), *linear))
    torch.testing.assert_close(encoder(image), expected)
    assert (
        make_encoder(
            space, EncoderChoice(by_key={"observation": {"name": "minatar_cnn", "features": 9}})
        ).size
        == 9
    )


def test_what_is_no_game_or_too_small_is_refused():
    with pytest.raises(TypeError, match="expected one of MinAtar's games"):
        MinAtarImage(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="at least 3 pixels a side, given 2 x 40; use flatten"):
        make_encoder(spaces.Box(0, 255, (4, 2, 40), np.uint8), EncoderChoice("minatar_cnn"))


def test_a_film_shows_every_cell_in_bytes():
    frame = MinAtarImage(Grid(4, render_mode="rgb_array")).render()
    assert frame.dtype == np.uint8
    assert frame.shape == (160, 192, 3)
    assert set(np.unique(frame)) == {0, 127}
    assert MinAtarImage(Grid(4)).render() is None


@pytest.mark.parametrize("game", GAMES)
def test_the_games_are_made_as_their_presets_say(game):
    pytest.importorskip("minatar")
    config = load(f"env=MinAtar/{game}-v1").env
    env = make_env(config.id, config.kwargs, config.wrappers)
    assert env.reset(seed=2**32 - 1)[0].shape == (GAMES[game], 10, 10)
    assert env.observation_space.contains(env.step(0)[0])
    env.close()


def test_games_come_back_by_their_seeds_though_actions_stick():
    pytest.importorskip("minatar")
    config = load("env=MinAtar/Breakout-v1").env
    makes = [env_fn(config.id, config.kwargs, config.wrappers, training=True)] * 64
    assert find_kind(makes[0]) == "seed"
    envs, again = SyncVector(makes, "seed"), SyncVector(makes, "seed")
    envs.reset(seed=list(range(64)))
    actions = np.random.default_rng(0).integers(0, 3, (300, 64))
    for each in actions:
        envs.step(each)
    assert again.restore(envs.snapshot(), list(range(64))) == []
    for each in actions[:20]:
        assert np.array_equal(envs.step(each)[0], again.step(each)[0])
