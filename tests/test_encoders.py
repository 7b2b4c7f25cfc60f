"""Encoders: what an image is, what a leaf gets, and one line for what does not fit."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.nn import functional

from ppo_cli.encoders import (
    EncoderChoice,
    FlattenEncoder,
    ImpalaCNN,
    MlpEncoder,
    NatureCNN,
    OneHotEncoder,
    UserEncoder,
    make_encoder,
)
from ppo_cli.encoders.images import ImageInput
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.spaces import PackedObservations, image_layout


def image(*shape, dtype=np.uint8, high=255):
    return spaces.Box(0, high, shape, dtype)


@pytest.mark.parametrize(
    ("space", "channels"),
    [
        (image(40, 48, 3), 3),  # HWC
        (image(3, 40, 48), 3),  # CHW
        (image(4, 40, 48), 4),  # a stack of gray ones
        (image(40, 48), 1),  # HW
        (image(4, 40, 48, 3), 12),  # a stack of HWC
        (image(4, 3, 40, 48), 12),  # a stack of CHW
        (image(40, 48, 2, dtype=np.float32, high=1), 2),
    ],
    ids=str,
)
def test_images_of_every_layout_are_seen_upright(space, channels):
    given = ImageInput(space)
    assert (given.channels, given.height, given.width) == (channels, 40, 48)
    obs = np.stack([space.sample() for _ in range(2)])
    seen = given(torch.from_numpy(obs))
    assert seen.dtype == torch.float32
    assert seen.shape == (2, channels, 40, 48)
    moved = {(40, 48, 3): (0, 3, 1, 2), (40, 48, 2): (0, 3, 1, 2), (4, 40, 48, 3): (0, 1, 4, 2, 3)}
    upright = obs.transpose(moved[space.shape]) if space.shape in moved else obs
    scale = 255 if space.dtype == np.uint8 else 1
    np.testing.assert_allclose(seen, upright.reshape(2, channels, 40, 48) / scale, rtol=1e-5)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (5,)),
        image(7),
        image(10, 12),  # a table of bytes
        spaces.Box(-1, 1, (4, 5, 6)),
        image(40, 40, 3, high=9),  # codes, no colours
        spaces.Box(-5, 5, (40, 40, 3), np.int32),
        spaces.MultiBinary((40, 40)),
        spaces.Discrete(3),
    ],
    ids=str,
)
def test_what_is_no_image(space):
    assert image_layout(space) is None
    assert isinstance(make_encoder(space), (FlattenEncoder, OneHotEncoder))
    with pytest.raises(ValueError, match="needs an image"):
        make_encoder(space, EncoderChoice(by_key={"observation": "nature_cnn"}))


@pytest.mark.parametrize(
    ("images", "side", "expected"),
    [
        ("auto", 36, NatureCNN),
        ("auto", 35, FlattenEncoder),
        ("nature_cnn", 40, NatureCNN),
        ("impala_cnn", 8, ImpalaCNN),
        ("impala_cnn", 84, ImpalaCNN),
        ("flatten", 84, FlattenEncoder),
    ],
)
def test_the_encoder_of_images(images, side, expected):
    space = image(side, side, 3)
    encoder = make_encoder(space, EncoderChoice(images))
    assert isinstance(encoder, expected)
    obs = torch.from_numpy(np.stack([space.sample(), space.sample()]))
    features = encoder(obs)
    assert features.shape == (2, encoder.size)
    assert torch.isfinite(features).all()
    assert not torch.equal(features[0], features[1])


def test_published_sizes():
    assert sum(p.numel() for p in NatureCNN(image(4, 84, 84)).parameters()) == 1_684_128
    # IMPALA's of 3 x (1 + 4) convolutions and one linear layer, on 4 x 84 x 84: 3872 = 11 * 11 * 32
    convolutions = (4 * 16 + 16 * 32 + 32 * 32) * 9 + 4 * 9 * (16 * 16 + 2 * 32 * 32) + 5 * (16 + 32 + 32)
    assert sum(p.numel() for p in ImpalaCNN(image(4, 84, 84)).parameters()) == convolutions + 3872 * 256 + 256


CAMERA = spaces.Dict(
    {
        "camera": image(36, 36, 3),
        "near": spaces.Dict({"speed": spaces.Box(-1, 1, (2,)), "gear": spaces.Discrete(3)}),
    }
)


def test_each_leaf_may_have_its_own():
    tree = {"camera": {"name": "impala_cnn", "channels": [4, 4], "features": 7}, "near": {"speed": "mlp"}}
    packed = PackedObservations(CAMERA)
    encoder = make_encoder(packed, EncoderChoice(by_key=tree))
    leaves = [packed.leaves[i].key for i in encoder.leaves]
    kinds = dict(zip(leaves, encoder.encoders, strict=True))
    assert isinstance(kinds["camera"], ImpalaCNN)
    assert isinstance(kinds["near.speed"], MlpEncoder)
    assert isinstance(kinds["near.gear"], OneHotEncoder)
    assert encoder.size == 7 + 64 + 3


class NoModule:
    def __init__(self, space):
        raise AssertionError("called")


class Bare(nn.Module):
    def __init__(self, space):
        super().__init__()

    def forward(self, obs):
        return obs.float().mean()


class Breaks(Bare):
    def __init__(self, space):
        raise KeyError("what")


class BreaksLater(Bare):
    def forward(self, obs):
        raise IndexError("no\nway")


class Doubles(Bare):
    """Insists on the dtype that it was tried with, and on a batch."""

    def forward(self, obs):
        assert len(obs) > 0
        assert obs.dtype == torch.float32
        return obs.reshape(len(obs), -1) * 2


class Normed(Bare):
    def __init__(self, space):
        super().__init__(space)
        self.norm = nn.BatchNorm1d(36 * 36 * 3)

    def forward(self, obs):
        return self.norm(obs.flatten(1).float())


class Wide(Bare):
    def forward(self, obs):
        return torch.ones(len(obs), 3, dtype=torch.float64)


class Varying(Bare):
    def forward(self, obs):
        return torch.ones(len(obs), len(obs))


class Nothing(Bare):
    def forward(self, obs):
        return torch.ones(len(obs), 0)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"camra": "flatten"}, ("network.encoders.camra: no such observation", "camera, near")),
        ({"near": "mlp"}, ("network.encoders.near=mlp", "gear, speed")),
        ({"near": {"sped": "mlp"}}, ("network.encoders.near.sped: no such observation", "gear, speed")),
        ({"camera": "nature_cn"}, ("network.encoders.camera=nature_cn", "did you mean 'nature_cnn'?")),
        (
            {"camera": {"features": 7}},
            ("network.encoders.camera: expected a name or {name: ..., OPTION: ...}",),
        ),
        (
            {"camera": {"name": "nature_cnn", "feature": 7}},
            ("network.encoders.camera=nature_cnn", "'feature'"),
        ),
        ({"camera": "nowhere.Class"}, ("importing nowhere raised ModuleNotFoundError",)),
        ({"camera": "test_encoders.Absent"}, ("test_encoders has no 'Absent'",)),
        ({"camera": "test_encoders.NoModule"}, ("NoModule is no subclass of torch.nn",)),
        ({"camera": "test_encoders.Bare"}, ("must return features [B, F], given () for B = 1",)),
        ({"camera": "test_encoders.Wide"}, ("must return float32 features, given torch.float64",)),
        ({"camera": "test_encoders.Varying"}, ("as many features for B = 2 as for B = 1",)),
        ({"camera": "test_encoders.Nothing"}, ("must return features [B, F], given (1, 0) for B = 1",)),
        ({"camera": "test_encoders.Doublse"}, ("has no 'Doublse'; did you mean 'Doubles'?",)),
        (
            {"camera": {"name": "mlp", "hidden_sizes": 3}},
            ("hidden_sizes: expected a list of integers", "given 3"),
        ),
        ({"camera": {"name": "impala_cnn", "channels": [0]}}, ("channels: expected integers", "given 0")),
        ({"camera": {"name": "impala_cnn", "features": 0}}, ("features: expected integers", "given 0")),
        (
            {"camera": "test_encoders.Breaks"},
            ("network.encoders.camera=test_encoders.Breaks", "KeyError", "what"),
        ),
        ({"camera": "test_encoders.BreaksLater"}, ("can't encode a batch of 1 of Box", "IndexError: no")),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_a_value_error_that_says_so(tree, words):
    with pytest.raises(ValueError, match=r"network\.encoders\.") as refused:
        make_encoder(PackedObservations(CAMERA), EncoderChoice(by_key=tree))
    for word in words:
        assert word in str(refused.value)


def test_trying_an_encoder_leaves_its_statistics_alone():
    encoder = make_encoder(image(36, 36, 3), EncoderChoice(by_key={"observation": "test_encoders.Normed"}))
    assert not encoder.module.training
    assert encoder.module.norm.num_batches_tracked == 0


def test_an_image_that_is_too_small():
    with pytest.raises(
        ValueError, match="at least 36 pixels a side, given 20 x 30; use impala_cnn or flatten"
    ):
        make_encoder(image(20, 30, 3), EncoderChoice("nature_cnn"))


@pytest.mark.parametrize(
    ("space", "given"),
    [
        (spaces.Box(-5, 5, (3,), np.int32), torch.int32),
        (spaces.Box(-5, 5, (3,), np.float64), torch.float64),
        (spaces.MultiBinary(3), torch.int8),
        (spaces.MultiBinary(3), torch.uint8),  # as it is packed
    ],
    ids=str,
)
def test_a_users_encoder_gets_the_dtype_that_it_was_tried_with(space, given):
    encoder = make_encoder(space, EncoderChoice(by_key={"observation": "test_encoders:Doubles"}))
    assert isinstance(encoder, UserEncoder)
    assert encoder.size == 3
    assert encoder(torch.ones(4, 3, dtype=given)).eq(2).all()


class Looks(torch.nn.Module):
    """A table with a row for each index."""

    def __init__(self, space):
        super().__init__()
        self.start, self.table = int(space.start), torch.nn.Embedding(int(space.n), 3)

    def forward(self, indices):
        return self.table(indices - self.start)


@pytest.mark.parametrize("start", [4, -9])
def test_a_users_encoder_is_tried_with_an_index_of_its_space(start):
    space = spaces.Discrete(3, start=start)
    encoder = make_encoder(space, EncoderChoice(by_key={"observation": "test_encoders:Looks"}))
    assert encoder(torch.full((2,), start)).shape == (2, 3)


DICT = ("env.id=zoo_envs:Zoo-v0", "+env.kwargs.observation=dict", "total_timesteps=64", "eval.episodes=0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("+network.encoders.lidar=mlp",),
            "network.encoders.lidar: no such observation; there are camera, gear",
        ),
        (("+network.encoders.camera=impala",), "did you mean 'impala_cnn'?"),
        (("network.encoders.camera=impala_cnn",), "takes a plus, +network.encoders.camera=VALUE"),
        (("+network.encoders.camera=test_encoders.BreaksLater",), "IndexError: no way"),
        (("network.image_encoder=nature_cn",), "did you mean 'nature_cnn'?"),
        (("network.memory=ltsm",), "did you mean 'lstm'?"),
    ],
)
def test_a_command_line_is_refused_in_one_line(ppo_train, tmp_path, arguments, words):
    outcome = ppo_train(*DICT, *arguments)
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1, outcome.err
    assert words in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_users_encoder_sees_no_empty_batch(ppo_train):
    """No episode ends in this rollout, so that there are no final observations to value."""
    outcome = ppo_train(
        "env=CartPole-v1", "preset=none", "n_steps=4", "total_timesteps=4", "eval.episodes=0",
        "+network.encoders.observation=test_encoders.Doubles",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err


class Frozen(torch.nn.Linear):
    """Weights that came from elsewhere and stay as they are, under a bias that learns."""

    def __init__(self, space):
        super().__init__(space.shape[0], 3)
        torch.nn.init.constant_(self.weight, 0.5).requires_grad_(False)
        torch.nn.init.zeros_(self.bias)


@pytest.mark.parametrize("compiled", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_frozen_parameters_stay_as_they_are(ppo_train, tmp_path, compiled):
    outcome = ppo_train(
        "env=CartPole-v1", "preset=none", "n_steps=32", "total_timesteps=64", "eval.episodes=0",
        "+network.encoders.observation=test_encoders.Frozen", f"compile={compiled}", "hydra.run.dir=run",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "can't be compiled" not in outcome.err
    weights = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["model"]
    (frozen,) = [
        value for name, value in weights.items() if name.endswith("weight") and value.shape == (3, 4)
    ]
    (bias,) = [value for name, value in weights.items() if name.endswith("bias") and value.shape == (3,)]
    assert torch.equal(frozen, torch.full((3, 4), 0.5))
    assert not torch.equal(bias, torch.zeros(3))


def blocks_of_the_recipe():
    """Files of the recipe in docs/extending.md: fenced blocks that begin with `# name`."""
    from test_docs import FENCE, ROOT

    page = (ROOT / "docs" / "extending.md").read_text()
    (section,) = page.split("## An environment and an encoder\n")[1:]
    section = section.split("\n## ")[0]
    files = {}
    for language, block in FENCE.findall(section):
        if language in ("python", "yaml"):
            first, rest = block.split("\n", 1)
            files[first.removeprefix("# ")] = rest
        elif language == "sh":
            (files["command"],) = [line for line in block.splitlines() if line.startswith("ppo-train ")]
    return files


def test_the_recipe_in_the_docs_trains_with_no_change_to_ours(tmp_path):
    import shlex

    files = blocks_of_the_recipe()
    command = shlex.split(files.pop("command"))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    tiny = ("total_timesteps=64", "n_steps=16", "eval.episodes=2", "vectorization=sync", "hydra.run.dir=run")
    start = [sys.executable, "-c", "from ppo_cli.cli.train import main; main()"]
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [*start, *command[1:], *tiny],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "eval.json").is_file()
    assert "shop.encoders" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize("name", ["nature_cnn", "impala_cnn", "minatar_cnn", "flatten"])
def test_floats_with_the_bounds_of_bytes_are_seen_as_the_bytes_would_be(name):
    pictures = torch.randint(0, 256, (4, 36, 40, 3), dtype=torch.uint8)
    seen = []
    for dtype in (np.uint8, np.float32):
        torch.manual_seed(0)
        encoder = make_encoder(image(36, 40, 3, dtype=dtype), EncoderChoice(name))
        with torch.no_grad():
            seen.append(encoder(pictures.to(torch.float32) if dtype is np.float32 else pictures))
    torch.testing.assert_close(seen[1], seen[0])


def test_weights_that_were_trained_on_floats_from_0_to_255_go_on_so():
    space, pictures = image(36, 40, 3, dtype=np.float32), 255 * torch.rand(4, 36, 40, 3)
    old = make_encoder(image(36, 40, 3, dtype=np.float32, high=1), EncoderChoice("nature_cnn"))
    new = make_encoder(space, EncoderChoice("nature_cnn"))
    new.load_state_dict(old.state_dict())
    with torch.no_grad():
        assert torch.equal(new(pictures), old(pictures))
    again = make_encoder(space, EncoderChoice("nature_cnn"))
    fresh = make_encoder(space, EncoderChoice("nature_cnn"))
    again.load_state_dict(fresh.state_dict())
    with torch.no_grad():
        assert torch.equal(again(pictures), fresh(pictures))


@pytest.mark.parametrize("start", [0, -3])
def test_one_hots_are_those_of_pytorch(start):
    nvec = [3, 1, 5]
    indices = torch.stack([torch.randint(0, n, (20,)) for n in nvec], dim=1)
    expected = torch.cat([functional.one_hot(indices[:, i], n) for i, n in enumerate(nvec)], dim=1).float()
    encoder = OneHotEncoder(spaces.MultiDiscrete(nvec, start=[start] * 3))
    assert torch.equal(encoder(indices + start), expected)
    assert torch.equal(
        OneHotEncoder(spaces.Discrete(5, start=start))(indices[:, 2] + start),
        functional.one_hot(indices[:, 2], 5).float(),
    )
