"""Encoders: from an observation to a vector of features, for every kind of space.

An encoder is a module with an attribute ``size``, the length of its vectors. `make_encoder` chooses one for
a space; a Dict or Tuple has one a leaf, whose vectors stand side by side.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from ppo_cli.import_path import load_class
from ppo_cli.spaces import (
    Leaf,
    PackedObservations,
    has_byte_range,
    image_layout,
    nested_value,
    unsupported,
)
from ppo_cli.text import flat

DTYPES = {"float32": torch.float32, "int64": torch.int64, "uint8": torch.uint8}  # of a packed leaf
NATURE_SMALLEST = 36  # pixels a side that its three convolutions need


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoders the config asks for.

    Attributes:
        images: encoder of images without one of their own: auto, nature_cnn, impala_cnn or flatten.
        by_key: a tree like the Dict observation's, with a name or a mapping ``{name: ..., option: ...}`` at a
            leaf; the key of an observation that is no Dict is ``observation``.
    """

    images: str = "auto"
    by_key: Mapping[str, Any] = field(default_factory=dict)


class ByteScale(nn.Module):
    """Values from 0 to 255 to [0, 1], for images whose bytes come as floats.

    The factor is kept with the weights: those of before there was one are used as they were trained.
    """

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(1 / 255))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        state = {f"{prefix}factor": torch.tensor(1.0), **state_dict}
        super()._load_from_state_dict(state, prefix, *args)

    def forward(self, values: Tensor) -> Tensor:
        """[B, ...] -> [B, ...]."""
        return values * self.factor


def _float_scale(space: spaces.Space[Any]) -> ByteScale | None:
    """What brings an image of floats from 0 to 255 to [0, 1]; None for any other observation."""
    if not isinstance(space, spaces.Box) or image_layout(space) is None or space.dtype == np.uint8:
        return None
    return ByteScale() if has_byte_range(space) else None


class FlattenEncoder(nn.Module):
    """Box and MultiBinary observations as float vectors; full-range bytes are scaled to [0, 1].

    So are images of floats with the bounds of bytes.
    """

    def __init__(self, space: spaces.Box | spaces.MultiBinary) -> None:
        super().__init__()
        self.size = math.prod(space.shape)
        self.is_vector = len(space.shape) == 1
        self.full_bytes = isinstance(space, spaces.Box) and bool((space.high == 255).all())
        self.float_scale = _float_scale(space)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, size]."""
        if self.is_vector and obs.dtype == torch.float32:
            return obs
        flat = obs.reshape(obs.shape[0], self.size).to(torch.float32)
        if self.float_scale is not None:
            flat = self.float_scale(flat)
        return flat / 255 if self.full_bytes and obs.dtype == torch.uint8 else flat


class OneHotEncoder(nn.Module):
    """Discrete and MultiDiscrete observations as one-hot vectors, side by side."""

    columns: Tensor  # of an index 0 of each

    def __init__(self, space: spaces.Discrete[Any] | spaces.MultiDiscrete[Any]) -> None:
        super().__init__()
        if isinstance(space, spaces.Discrete):
            self.nvec, starts = [int(space.n)], [int(space.start)]
        else:
            self.nvec, starts = space.nvec.flatten().tolist(), space.start.flatten().tolist()
        firsts = [0, *itertools.accumulate(self.nvec)]
        self.size = firsts.pop()
        columns = torch.tensor(firsts) - torch.tensor(starts)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] integers -> [B, size]."""
        columns = obs.reshape(obs.shape[0], len(self.nvec)).to(torch.int64) + self.columns
        # not `functional.one_hot`, whose integers take three times the memory of these floats again
        return torch.zeros((obs.shape[0], self.size), device=obs.device).scatter_(1, columns, 1.0)


class MlpEncoder(nn.Module):
    """A vector of its own layers for one leaf, ReLU behind each."""

    def __init__(self, space: spaces.Space[Any], hidden_sizes: Sequence[int] = (64,)) -> None:
        super().__init__()
        self.inner = make_simple_encoder(space)
        sizes = [self.inner.size, *_checked_sizes("hidden_sizes", hidden_sizes)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.size = sizes[-1]

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, size]."""
        x: Tensor = self.inner(obs)
        for layer in self.layers:
            x = functional.relu(layer(x))
        return x


def _checked_sizes(name: str, sizes: Sequence[int]) -> Sequence[int]:
    """Widths of layers, as a config gives them."""
    if not isinstance(sizes, Sequence):
        raise ValueError(f"{name}: expected a list of integers, given {sizes}")
    return [_checked_size(name, size) for size in sizes]


def _checked_size(name: str, size: int) -> int:
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"{name}: expected integers of at least 1, given {size}")
    return size


class ImageInput(nn.Module):
    """Images as float tensors [B, C, H, W]; bytes are scaled to [0, 1] here, on the network's device.

    So are floats with the bounds of bytes.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        layout = image_layout(space)
        if layout is None or not isinstance(space, spaces.Box):
            shown = flat(space)
            raise ValueError(f"an image encoder needs an image, given {shown}")
        self.order = tuple(axis + 1 for axis in layout)
        *channels, self.height, self.width = (space.shape[axis] for axis in layout)
        self.channels = math.prod(channels)
        self.scale = 1 / 255 if space.dtype == "uint8" else 1.0
        self.float_scale = _float_scale(space)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, C, H, W] float32."""
        images = obs.permute(0, *self.order).to(torch.float32)
        images = images.reshape(obs.shape[0], self.channels, self.height, self.width)
        # channels last in memory: a quarter less time in the convolutions' backward pass
        images = images.contiguous(memory_format=torch.channels_last)
        if self.float_scale is not None:
            images = self.float_scale(images)
        return images * self.scale if self.scale != 1.0 else images


class NatureCNN(nn.Module):
    """Three convolutions and a linear layer (Mnih et al. 2015, https://doi.org/10.1038/nature14236)."""

    def __init__(self, space: spaces.Space[Any], features: int = 512) -> None:
        super().__init__()
        self.size = _checked_size("features", features)
        self.input = ImageInput(space)
        smallest = min(self.input.height, self.input.width)
        if smallest < NATURE_SMALLEST:
            raise ValueError(
                f"nature_cnn needs images of at least {NATURE_SMALLEST} pixels a side, given "
                f"{self.input.height} x {self.input.width}; use impala_cnn or flatten"
            )
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(self.input.channels, 32, 8, stride=4),
                nn.Conv2d(32, 64, 4, stride=2),
                nn.Conv2d(64, 64, 3, stride=1),
            ]
        )
        flat = self._flat(torch.zeros(1, self.input.channels, self.input.height, self.input.width))
        self.linear = nn.Linear(flat.shape[1], features)

    def _flat(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = functional.relu(convolution(x))
        return x.flatten(1)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, size]."""
        return functional.relu(self.linear(self._flat(self.input(obs))))


class ImpalaCNN(nn.Module):
    """Residual network of IMPALA (Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, fig. 3)."""

    def __init__(
        self, space: spaces.Space[Any], channels: Sequence[int] = (16, 32, 32), features: int = 256
    ) -> None:
        super().__init__()
        self.size = _checked_size("features", features)
        self.input = ImageInput(space)
        widths = [self.input.channels, *_checked_sizes("channels", channels)]
        self.entries = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.blocks = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for c in channels for _ in range(4))
        with torch.no_grad():
            shape = (1, self.input.channels, self.input.height, self.input.width)
            flat = self._flat(torch.zeros(shape))
        self.linear = nn.Linear(flat.shape[1], features)

    def _flat(self, x: Tensor) -> Tensor:
        for stage, entry in enumerate(self.entries):
            x = functional.max_pool2d(entry(x), 3, stride=2, padding=1)
            for first in (4 * stage, 4 * stage + 2):  # two residual blocks of two convolutions
                inner = self.blocks[first](functional.relu(x))
                x = x + self.blocks[first + 1](functional.relu(inner))
        return functional.relu(x).flatten(1)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, size]."""
        return functional.relu(self.linear(self._flat(self.input(obs))))


class EncoderError(RuntimeError):
    """A module of the user's raised, or returned something else than when it was tried; one line."""


class UserEncoder(nn.Module):
    """A module of the user's own, whose vector's length is found out by calling it."""

    def __init__(self, module: nn.Module, space: spaces.Space[Any], name: str) -> None:
        super().__init__()
        # as it is always called: batch statistics need more than one row to train
        self.module = module.eval()
        self.name = name
        self.dtype = torch.uint8 if space.dtype == "uint8" else torch.float32
        if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
            self.dtype = torch.int64
        self.size = self._try(1, space, name)
        if self._try(2, space, name) != self.size:
            raise ValueError(f"{name} must return as many features for B = 2 as for B = 1")

    def _try(self, batch: int, space: spaces.Space[Any], name: str) -> int:
        """The number of features that the module returns."""
        try:
            with torch.no_grad():
                out = self.module(torch.zeros((batch, *(space.shape or ())), dtype=self.dtype))
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
            raise ValueError(f"{name} can't encode a batch of {batch} of {space}: {raised}") from error
        if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != batch or not out.shape[1]:
            shown = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(f"{name} must return features [B, F], given {shown} for B = {batch}")
        if out.dtype != torch.float32:
            raise ValueError(f"{name} must return float32 features, given {out.dtype}")
        return out.shape[1]

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, size]; normalised bytes are floats, all else has the dtype that was tried.

        Raises:
            EncoderError: the module raised, or returned something else than when it was tried.
        """
        try:
            features = self.module(obs if obs.dtype == torch.float32 else obs.to(self.dtype))
        except Exception as error:
            raised = flat(f"{type(error).__name__}: {error}")
            raise EncoderError(
                f"the encoder {self.name} raised {raised}, given {tuple(obs.shape)}"
            ) from error
        if not isinstance(features, Tensor) or features.dim() != 2 or features.shape[1] != self.size:
            shown = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise EncoderError(f"the encoder {self.name} returned {shown}, expected [B, {self.size}]")
        return features


class PackedEncoder(nn.Module):
    """An encoder for each leaf of a packed observation; their vectors side by side."""

    def __init__(
        self, space: PackedObservations, encoders: Sequence[tuple[int, nn.Module]], mask: Sequence[int]
    ) -> None:
        """Takes the leaves' encoders.

        Args:
            space: lays out the rows.
            encoders: number of a leaf, and its encoder.
            mask: numbers of the leaves that are the action mask; none where they are not.
        """
        super().__init__()
        self.space = space
        self.leaves = [leaf for leaf, _ in encoders]
        self.encoders = nn.ModuleList(encoder for _, encoder in encoders)
        self.mask_leaves = list(mask)
        self.size = sum(cast("int", encoder.size) for encoder in self.encoders)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, bytes] -> [B, size]."""
        return self.encode_leaves(_unpack(self.space, rows))

    def encode_leaves(self, values: Sequence[Tensor]) -> Tensor:
        """The leaves in the order of packing, each [B, *shape] -> [B, size]."""
        columns = [encoder(values[leaf]) for leaf, encoder in zip(self.leaves, self.encoders, strict=True)]
        return torch.cat(columns, dim=1)

    def mask(self, rows: Tensor) -> Tensor | None:
        """Which of the policy's logits stand for legal actions, bool [B, P]; None where all do."""
        return self.mask_of_leaves(_unpack(self.space, rows)) if self.mask_leaves else None

    def mask_of_leaves(self, values: Sequence[Tensor]) -> Tensor | None:
        """`mask` of the leaves in the order of packing, each [B, *shape]."""
        if not self.mask_leaves:
            return None
        return torch.cat([values[leaf].flatten(1) for leaf in self.mask_leaves], dim=1) > 0


def _unpack(space: PackedObservations, rows: Tensor) -> list[Tensor]:
    """The leaves of rows [B, bytes] as tensors [B, *shape]."""
    return [
        rows[:, leaf.start : leaf.stop].view(DTYPES[leaf.dtype]).reshape(len(rows), *leaf.shape)
        for leaf in space.leaves
    ]


Encoder = FlattenEncoder | OneHotEncoder | MlpEncoder | NatureCNN | ImpalaCNN | UserEncoder | PackedEncoder
ENCODERS: dict[str, Callable[..., Encoder]] = {
    "flatten": lambda space: make_simple_encoder(space),
    "mlp": MlpEncoder,
    "nature_cnn": NatureCNN,
    "impala_cnn": ImpalaCNN,
}


def make_simple_encoder(space: spaces.Space[Any]) -> FlattenEncoder | OneHotEncoder:
    """The encoder of a simple space that has no layers.

    Raises:
        ValueError: the space is not Box, Discrete, MultiDiscrete or MultiBinary, or holds no values.
    """
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        if math.prod(space.shape) == 0:
            raise ValueError(f"the observation space {space} holds no values")
        return FlattenEncoder(space)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return OneHotEncoder(space)
    allowed = ["Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple"]
    raise unsupported(space, "observation", allowed)


def make_encoder(
    space: spaces.Space[Any], choice: EncoderChoice | None = None, mask_size: int | None = None
) -> Encoder:
    """The encoder of a single environment's observation space, a packed one included.

    Args:
        space: of the observations.
        choice: what the config asks for.
        mask_size: number of logits, where the policy can be masked.

    Raises:
        ValueError: a space is unsupported, an encoder does not fit, or its name or key is unknown.
    """
    choice = choice or EncoderChoice()
    if not isinstance(space, PackedObservations):
        _check_keys(choice.by_key, {"observation": None})
        return _leaf_encoder(space, choice.by_key.get("observation"), choice.images, "observation")
    masks = [i for i, leaf in enumerate(space.leaves) if leaf.is_mask] if mask_size is not None else []
    _check_keys(choice.by_key, _key_tree(leaf for i, leaf in enumerate(space.leaves) if i not in masks))
    found = sum(math.prod(space.leaves[i].shape) for i in masks)
    if masks and found != mask_size:
        raise ValueError(f"the observation's action_mask has {found} values, the policy {mask_size} logits")
    encoders = [
        (i, _leaf_encoder(leaf.space, nested_value(choice.by_key, leaf.path), choice.images, leaf.key))
        for i, leaf in enumerate(space.leaves)
        if i not in masks or len(masks) == len(space.leaves)  # a mask alone is seen, too
    ]
    if not encoders:
        raise ValueError(f"the observation space {space.original} holds no values")
    return PackedEncoder(space, encoders, masks)


def _leaf_encoder(space: spaces.Space[Any], asked: Any, images: str, key: str) -> Encoder:  # noqa: ANN401
    if asked is None:
        layout = image_layout(space)
        if layout is None or images == "flatten":
            return make_simple_encoder(space)
        smallest = min(cast("spaces.Box", space).shape[axis] for axis in layout[-2:])
        if images == "auto":
            images = "nature_cnn" if smallest >= NATURE_SMALLEST else "flatten"
        asked = images
    options = dict(asked) if isinstance(asked, Mapping) else {"name": asked}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(
            f"network.encoders.{key}: expected a name or {{name: ..., OPTION: ...}}, given {asked}"
        )
    try:
        if name in ENCODERS:
            return ENCODERS[name](space, **options)
        user_class = load_class(name, nn.Module, list(ENCODERS), "encoder")
    except (ValueError, TypeError) as error:
        raise ValueError(f"network.encoders.{key}={name}: {error}") from error
    try:
        return UserEncoder(user_class(space, **options), space, name)
    except Exception as error:  # whatever a class of the user's raises
        raised = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"network.encoders.{key}={name}: {raised}") from error


def _key_tree(leaves: Iterable[Leaf]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for leaf in leaves:
        node = tree
        for step in leaf.path[:-1]:
            node = node.setdefault(str(step), {})
        node[str(leaf.path[-1])] = None
    return tree


def _check_keys(asked: Mapping[str, Any], known: Mapping[str, Any], above: str = "") -> None:
    for key, value in asked.items():
        if key not in known:
            raise ValueError(
                f"network.encoders.{above}{key}: no such observation; there are {', '.join(sorted(known))}"
            )
        below = known[key]
        if below is not None:
            if not isinstance(value, Mapping):
                raise ValueError(
                    f"network.encoders.{above}{key}={value}: expected a mapping of {', '.join(sorted(below))}"
                )
            _check_keys(value, below, f"{above}{key}.")
