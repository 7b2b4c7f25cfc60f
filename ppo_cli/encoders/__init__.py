"""Encoders: from an observation to a vector of features, for every kind of space.

An encoder is a module with an attribute ``size``, the length of its vectors. `make_encoder` chooses one for
a space; a Dict or Tuple has one a leaf, whose vectors stand side by side. `make_critic_encoder` is for a
critic that sees other leaves than the actor, or by other encoders.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from gymnasium import spaces
from torch import nn

from ppo_cli.encoders.images import NATURE_SMALLEST, ImpalaCNN, MinAtarCNN, NatureCNN
from ppo_cli.encoders.packed import PackedEncoder
from ppo_cli.encoders.simple import FlattenEncoder, MlpEncoder, OneHotEncoder, make_simple_encoder
from ppo_cli.encoders.user import UserEncoder
from ppo_cli.import_path import load_class
from ppo_cli.spaces import Leaf, PackedObservations, image_layout, leaves_of, nested_value
from ppo_cli.text import nearest

__all__ = [
    "ENCODERS",
    "IMAGE_ENCODERS",
    "Encoder",
    "EncoderChoice",
    "FlattenEncoder",
    "ImpalaCNN",
    "MinAtarCNN",
    "MlpEncoder",
    "NatureCNN",
    "OneHotEncoder",
    "PackedEncoder",
    "UserEncoder",
    "is_heavy",
    "make_critic_encoder",
    "make_encoder",
    "read_paths",
]


Path = tuple[str | int, ...]
Encoder = (
    FlattenEncoder
    | OneHotEncoder
    | MlpEncoder
    | NatureCNN
    | ImpalaCNN
    | MinAtarCNN
    | UserEncoder
    | PackedEncoder
)
ENCODERS: dict[str, Callable[..., Encoder]] = {
    "flatten": make_simple_encoder,
    "mlp": MlpEncoder,
    "nature_cnn": NatureCNN,
    "impala_cnn": ImpalaCNN,
    "minatar_cnn": MinAtarCNN,
}
# of images without one of their own
IMAGE_ENCODERS = ("auto", "nature_cnn", "impala_cnn", "minatar_cnn", "flatten")


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoders the config asks for, and who sees what.

    Attributes:
        images: The encoder of images without one of their own, one of `IMAGE_ENCODERS`.
        by_key: A tree like the Dict observation's, with a name or a mapping ``{name: ..., option: ...}`` at a
            leaf; the key of an observation that is no Dict is ``observation``.
        actor_sees: The keys of the observation that the policy sees, with dots where they are nested; None
            for all. An action mask is obeyed in any case.
        critic_sees: Those that the value sees.
        critic_by_key: The critic's own encoders, over those in ``by_key``.
    """

    images: str = "auto"
    by_key: Mapping[str, Any] = field(default_factory=dict)
    actor_sees: Sequence[str] | None = None
    critic_sees: Sequence[str] | None = None
    critic_by_key: Mapping[str, Any] = field(default_factory=dict)


def make_encoder(
    space: spaces.Space[Any], choice: EncoderChoice | None = None, mask_size: int | None = None
) -> Encoder:
    """The actor's encoder of a single environment's observation space, a packed one included.

    Args:
        space: The observation space.
        choice: The encoder that the config asks for.
        mask_size: The number of logits, where the policy can be masked.

    Raises:
        ValueError: a space is unsupported, an encoder does not fit, or its name or key is unknown.
    """
    choice = choice or EncoderChoice()
    leaves = leaves_of(space)
    masks = _masks(leaves, mask_size)
    shown = _shown(leaves, masks)
    _check_keys("network.encoders", choice.by_key, leaves, [i for i in shown if i not in masks])
    found = sum(math.prod(leaves[i].shape) for i in masks)
    if masks and found != mask_size:
        raise ValueError(f"the observation's action_mask has {found} values, the policy {mask_size} logits")
    seen = _seen("network.actor.observations", choice.actor_sees, leaves, shown)
    return _encode_leaves(space, seen, choice, masks)


def make_critic_encoder(
    space: spaces.Space[Any], choice: EncoderChoice, mask_size: int | None = None
) -> Encoder | None:
    """An encoder of the critic's own; None where the actor's is the critic's, too.

    Args:
        space: The observation space.
        choice: The encoders that the config asks for.
        mask_size: The number of logits, where the policy can be masked.

    Raises:
        ValueError: an encoder does not fit, or its name or key is unknown.
    """
    leaves = leaves_of(space)
    shown = _shown(leaves, _masks(leaves, mask_size))
    seen = _seen("network.critic.observations", choice.critic_sees, leaves, shown)
    actors = _seen("network.actor.observations", choice.actor_sees, leaves, shown)
    if seen == actors and not choice.critic_by_key:
        return None
    _check_keys("network.critic.encoders", choice.critic_by_key, leaves, seen)
    return _encode_leaves(space, seen, choice, (), choice.critic_by_key)


def is_heavy(encoder: Encoder) -> bool:
    """Whether it has convolutions, or is a user's own: what it computes costs more than the rest together."""
    return any(isinstance(module, (nn.Conv2d, UserEncoder)) for module in encoder.modules())


def read_paths(encoder: Encoder) -> set[Path]:
    """The leaves of an observation that an encoder, or the action mask beside it, reads, by their paths."""
    if not isinstance(encoder, PackedEncoder):
        return {()}
    return {encoder.space.leaves[number].path for number in (*encoder.leaves, *encoder.mask_leaves)}


def _masks(leaves: Sequence[Leaf], mask_size: int | None) -> list[int]:
    """The numbers of the leaves that are the action mask, where the policy can be masked."""
    return [i for i, leaf in enumerate(leaves) if leaf.is_mask] if mask_size is not None else []


def _shown(leaves: Sequence[Leaf], masks: Sequence[int]) -> list[int]:
    """The numbers of the leaves that are features: a mask is none, but alone it is seen, too."""
    return [i for i in range(len(leaves)) if i not in masks or len(masks) == len(leaves)]


def _seen(knob: str, keys: Sequence[str] | None, leaves: Sequence[Leaf], shown: Sequence[int]) -> list[int]:
    """The numbers of the leaves that keys name, each a leaf's or that of a Dict or Tuple around some."""
    if keys is None:
        return list(shown)
    named = {i: _dotted(_path(leaves[i])) for i in shown}
    for key in keys:
        if not any(_is_in(name, key) for name in named.values()):
            known = sorted(named.values())
            hint = nearest(key, known)
            raise ValueError(f"{knob}: no observation {key!r}; there are {', '.join(known)}{hint}")
    return [i for i, name in named.items() if any(_is_in(name, key) for key in keys)]


def _is_in(name: str, key: str) -> bool:
    return name == key or name.startswith(f"{key}.")


def _path(leaf: Leaf) -> Path:
    return leaf.path or ("observation",)


def _encode_leaves(
    space: spaces.Space[Any],
    seen: Sequence[int],
    choice: EncoderChoice,
    masks: Sequence[int],
    own: Mapping[str, Any] | None = None,
) -> Encoder:
    """The encoder of the leaves that are seen, by those in ``own`` before those of the choice."""
    leaves = leaves_of(space)
    encoders = []
    for i in seen:
        path, knob = _path(leaves[i]), "network.critic.encoders"
        asked = nested_value(own or {}, path)
        if asked is None:
            asked, knob = nested_value(choice.by_key, path), "network.encoders"
        encoders.append((i, _leaf_encoder(leaves[i].space, asked, choice.images, f"{knob}.{_dotted(path)}")))
    if not isinstance(space, PackedObservations):
        return encoders[0][1]
    if not encoders:
        raise ValueError(f"the observation space {space.original} holds no values")
    return PackedEncoder(space, encoders, masks)


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _leaf_encoder(space: spaces.Space[Any], asked: Any, images: str, knob: str) -> Encoder:  # noqa: ANN401
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
        raise ValueError(f"{knob}: expected a name or {{name: ..., OPTION: ...}}, given {asked}")
    try:
        if name in ENCODERS:
            return ENCODERS[name](space, **options)
        user_class = load_class(name, nn.Module, list(ENCODERS), "encoder")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{knob}={name}: {error}") from error
    try:
        return UserEncoder(user_class(space, **options), space, name)
    except Exception as error:  # whatever a class of the user's raises
        raised = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{knob}={name}: {raised}") from error


def _key_tree(paths: Iterable[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in paths:
        node = tree
        for step in path[:-1]:
            node = node.setdefault(str(step), {})
        node[str(path[-1])] = None
    return tree


def _check_keys(knob: str, asked: Mapping[str, Any], leaves: Sequence[Leaf], shown: Iterable[int]) -> None:
    """Raises ValueError where a tree of encoders has a key that no leaf has."""
    _check_tree(knob, asked, _key_tree(_path(leaves[i]) for i in shown))


def _check_tree(above: str, asked: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key, value in asked.items():
        if key not in known:
            raise ValueError(f"{above}.{key}: no such observation; there are {', '.join(sorted(known))}")
        below = known[key]
        if below is not None:
            if not isinstance(value, Mapping):
                raise ValueError(f"{above}.{key}={value}: expected a mapping of {', '.join(sorted(below))}")
            if "name" in below and isinstance(value.get("name"), str):  # it would pass for one encoder of all
                raise ValueError(
                    f"{above}.{key}.name={value['name']}: expected {{name: {value['name']}}} for an "
                    "observation that is called name"
                )
            _check_tree(f"{above}.{key}", value, below)
