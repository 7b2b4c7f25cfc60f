"""Encoders: from an observation to a vector of features, for every kind of space.

An encoder is a module with an attribute ``size``, the length of its vectors. `make_encoder` chooses one for
a space; a Dict or Tuple has one a leaf, whose vectors stand side by side.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from gymnasium import spaces
from torch import nn

from ppo_cli.encoders.images import NATURE_SMALLEST, ImpalaCNN, NatureCNN
from ppo_cli.encoders.packed import PackedEncoder
from ppo_cli.encoders.simple import FlattenEncoder, MlpEncoder, OneHotEncoder, make_simple_encoder
from ppo_cli.encoders.user import UserEncoder
from ppo_cli.import_path import load_class
from ppo_cli.spaces import PackedObservations, image_layout, leaves_of, nested_value

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderChoice",
    "FlattenEncoder",
    "ImpalaCNN",
    "MlpEncoder",
    "NatureCNN",
    "OneHotEncoder",
    "PackedEncoder",
    "UserEncoder",
    "make_encoder",
]


Path = tuple[str | int, ...]
Encoder = FlattenEncoder | OneHotEncoder | MlpEncoder | NatureCNN | ImpalaCNN | UserEncoder | PackedEncoder
ENCODERS: dict[str, Callable[..., Encoder]] = {
    "flatten": make_simple_encoder,
    "mlp": MlpEncoder,
    "nature_cnn": NatureCNN,
    "impala_cnn": ImpalaCNN,
}


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoders the config asks for.

    Attributes:
        images: The encoder of images without one of their own: auto, nature_cnn, impala_cnn or flatten.
        by_key: A tree like the Dict observation's, with a name or a mapping ``{name: ..., option: ...}`` at a
            leaf; the key of an observation that is no Dict is ``observation``.
    """

    images: str = "auto"
    by_key: Mapping[str, Any] = field(default_factory=dict)


def make_encoder(
    space: spaces.Space[Any], choice: EncoderChoice | None = None, mask_size: int | None = None
) -> Encoder:
    """The encoder of a single environment's observation space, a packed one included.

    Args:
        space: The observation space.
        choice: The encoder that the config asks for.
        mask_size: The number of logits, where the policy can be masked.

    Raises:
        ValueError: a space is unsupported, an encoder does not fit, or its name or key is unknown.
    """
    choice = choice or EncoderChoice()
    leaves = leaves_of(space)
    paths = [leaf.path or ("observation",) for leaf in leaves]
    masks = [i for i, leaf in enumerate(leaves) if leaf.is_mask] if mask_size is not None else []
    _check_keys(choice.by_key, _key_tree(path for i, path in enumerate(paths) if i not in masks))
    found = sum(math.prod(leaves[i].shape) for i in masks)
    if masks and found != mask_size:
        raise ValueError(f"the observation's action_mask has {found} values, the policy {mask_size} logits")
    encoders = {
        i: _leaf_encoder(leaf.space, nested_value(choice.by_key, paths[i]), choice.images, paths[i])
        for i, leaf in enumerate(leaves)
        if i not in masks or len(masks) == len(leaves)  # a mask alone is seen, too
    }
    if not isinstance(space, PackedObservations):
        return encoders[0]
    if not encoders:
        raise ValueError(f"the observation space {space.original} holds no values")
    return PackedEncoder(space, list(encoders.items()), masks)


def _leaf_encoder(space: spaces.Space[Any], asked: Any, images: str, path: Path) -> Encoder:  # noqa: ANN401
    key = ".".join(map(str, path))
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


def _key_tree(paths: Iterable[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in paths:
        node = tree
        for step in path[:-1]:
            node = node.setdefault(str(step), {})
        node[str(path[-1])] = None
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
