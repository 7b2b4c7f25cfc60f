"""Nested spaces as one flat array: what crosses processes, lies in a rollout and enters the network.

A Dict or Tuple observation is packed into a row of bytes, each leaf at an aligned place, so that every part
between the environment and the network handles one array whatever the space is. A Dict or Tuple action is a
row of numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from ppo_cli.arrays import NUMPY, Arrays
from ppo_cli.text import flat

Array = npt.NDArray[Any]

MASK = "action_mask"  # the key of an observation that says which actions are legal
_SIMPLE = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class Spaces(NamedTuple):
    """The spaces of a single environment: what a network is built for."""

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]


@dataclass(frozen=True)
class Leaf:
    """A simple space inside a nested one.

    Attributes:
        path: The keys and indices that lead to it; none where it stands alone.
        space: Box, Discrete, MultiDiscrete or MultiBinary.
        dtype: The dtype as it is packed, float32, int64 or uint8; alone, the space's own.
        is_mask: Whether it says which actions are legal.
        start: The first byte of its place in a row.
    """

    path: tuple[str | int, ...]
    space: spaces.Space[Any]
    dtype: str
    is_mask: bool = False
    start: int = 0

    @property
    def key(self) -> str:
        """The path with dots."""
        return ".".join(map(str, self.path))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one value."""
        return tuple(self.space.shape or ())

    @property
    def stop(self) -> int:
        """The byte behind its place."""
        return self.start + int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def of(self, nested: Any) -> Any:  # noqa: ANN401
        """Its value in a nested observation."""
        for step in self.path:
            nested = nested[step]
        return nested


def leaves_of(space: spaces.Space[Any]) -> tuple[Leaf, ...]:
    """The simple spaces of an observation in the order in which they are kept: of a simple space itself."""
    if isinstance(space, PackedObservations):
        return space.leaves
    return (Leaf((), space, str(space.dtype)),)


def given_order(space: spaces.Space[Any]) -> list[int]:
    """The numbers of the leaves in the order in which the environment gives them."""
    if not isinstance(space, PackedObservations):
        return [0]
    paths = [leaf.path for leaf in space.leaves]
    return [paths.index(path) for path, _ in walk(space.original)]


class PackedObservations(spaces.Box):
    """Rows of bytes, uint8 [size]: the leaves of a Dict or Tuple space, floats first.

    Attributes:
        original: The nested space.
        leaves: The leaves in the order in which they are packed.
        floats: The number of float32 values at the beginning that are normalised; see `is_scaled_image`.
        real_bytes: The bytes at the beginning that hold float32 values, those of images too.
    """

    def __init__(self, original: "spaces.Dict | spaces.Tuple[Any]", maskable: bool = True) -> None:
        """Lays out the leaves.

        Args:
            original: The nested space.
            maskable: Whether the actions are of a kind that masks are for, so that the key `MASK` is one.

        Raises:
            ValueError: there is a leaf of a kind that can't be an observation.
        """
        self.original = original
        order = ("float32", "int64", "uint8")
        found = sorted(
            (_leaf(path, space, maskable) for path, space in walk(original)),
            key=lambda leaf: (
                order.index(leaf.dtype),
                is_scaled_image(leaf.space),
                image_layout(leaf.space) is not None,
            ),
        )
        placed: list[Leaf] = []
        for leaf in found:
            end = placed[-1].stop if placed else 0
            start = end if leaf.dtype == "float32" else -(-end // 8) * 8
            placed.append(replace(leaf, start=start))
        self.leaves = tuple(placed)
        reals = [leaf for leaf in placed if leaf.dtype == "float32"]
        self.real_bytes = sum(leaf.stop - leaf.start for leaf in reals)
        self.floats = sum(leaf.stop - leaf.start for leaf in reals if not is_scaled_image(leaf.space)) // 4
        size = -(-placed[-1].stop // 8) * 8 if placed else 0
        super().__init__(0, 255, (size,), np.uint8)

    def views(self, rows: Array) -> list[Array]:
        """The leaves of rows [..., size] as arrays [..., *shape] on the same memory."""
        return [
            rows[..., leaf.start : leaf.stop].view(leaf.dtype).reshape((*rows.shape[:-1], *leaf.shape))
            for leaf in self.leaves
        ]


def lacks_leaves(given: spaces.Space[Any], whole: spaces.Space[Any]) -> bool:
    """Whether packed observations are those of another space without some of its leaves."""
    if not (isinstance(given, PackedObservations) and isinstance(whole, PackedObservations)):
        return False
    known = {leaf.path: leaf for leaf in whole.leaves}
    return len(given.leaves) < len(known) and all(
        leaf.path in known and _is_alike(leaf, known[leaf.path]) for leaf in given.leaves
    )


def _is_alike(leaf: Leaf, other: Leaf) -> bool:
    is_box = isinstance(leaf.space, spaces.Box) and isinstance(other.space, spaces.Box)
    same = (leaf.dtype, leaf.shape, leaf.is_mask) == (other.dtype, other.shape, other.is_mask)
    return same and (is_box or leaf.space == other.space)


def complete_rows(given: PackedObservations, whole: PackedObservations, rows: Array) -> Array:
    """Rows [N, size] of a space that lacks leaves of another as rows of that one, where those are zeros."""
    complete = np.zeros((len(rows), *whole.shape), np.uint8)
    views = {leaf.path: view for leaf, view in zip(whole.leaves, whole.views(complete), strict=True)}
    for leaf, values in zip(given.leaves, given.views(rows), strict=True):
        views[leaf.path][...] = values
    return complete


class PackedActions(spaces.Box):
    """Rows of numbers, float64 [size]: the leaves of a Dict or Tuple action space side by side.

    Attributes:
        original: The nested space.
        parts: The leaves of the space.
    """

    def __init__(self, original: "spaces.Dict | spaces.Tuple[Any]") -> None:
        """Lays out the leaves.

        Raises:
            ValueError: there is a leaf of a kind that can't be an action.
        """
        self.original = original
        self.parts = tuple(space for _, space in walk(original))
        for part in self.parts:
            _check(part, "action")
        self.sizes = [int(np.prod(part.shape or ())) for part in self.parts]
        super().__init__(-np.inf, np.inf, (sum(self.sizes),), np.float64)

    def nested(self, rows: Any, arrays: Arrays = NUMPY) -> Any:  # noqa: ANN401
        """One row [size] as an action of the original space, or rows [N, size] as a batch of them."""
        ends = np.cumsum(self.sizes).tolist()
        values = (rows[..., end - size : end] for size, end in zip(self.sizes, ends, strict=True))

        def build(space: spaces.Space[Any]) -> Any:  # noqa: ANN401
            if isinstance(space, spaces.Dict):
                return {key: build(part) for key, part in space.items()}
            if isinstance(space, spaces.Tuple):
                return tuple(build(part) for part in space)
            value = next(values)
            shaped = value.reshape((*rows.shape[:-1], *(space.shape or ())))
            return arrays.own(shaped, str(space.dtype))[()]  # a number where it has no axis

        return build(self.original)

    def sample(self, mask: Any = None, probability: Any = None) -> Array:  # noqa: ANN401
        """A random action, as a row."""
        drawn = [np.ravel(part.sample()).astype(np.float64) for part in self.parts]
        return np.concatenate(drawn)

    def seed(self, seed: Any = None) -> Any:  # noqa: ANN401
        """Seeds the original space, from whose parts `sample` draws."""
        return self.original.seed(seed)


def walk(
    space: spaces.Space[Any], path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Path and space of every leaf of a nested space, in its own order."""
    if isinstance(space, spaces.Dict):
        for key, part in space.items():
            yield from walk(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space):
            yield from walk(part, (*path, index))
    else:
        yield path, space


def is_nested(space: spaces.Space[Any]) -> bool:
    """Whether a space has to be packed."""
    return isinstance(space, (spaces.Dict, spaces.Tuple))


def fill_blank(observations: Array, space: spaces.Space[Any]) -> None:
    """Fills stored observations, [..., *shape], with one of their space: zeros, or the lowest index."""
    views = [(space, observations)]
    if isinstance(space, PackedObservations):
        leaves = (leaf.space for leaf in space.leaves)
        views = list(zip(leaves, space.views(observations), strict=True))
    for part, values in views:
        values[...] = part.start if isinstance(part, (spaces.Discrete, spaces.MultiDiscrete)) else 0


def image_layout(space: spaces.Space[Any]) -> tuple[int, ...] | None:
    """The order of axes that makes an image of ``space`` [..., H, W]; None where it is no image.

    Images are Box spaces of bytes from 0 to 255 with three axes (one of them channels, first or last), two,
    or four (a stack of images with channels), or of floats with three axes of which two are 8 or longer.
    """
    if not isinstance(space, spaces.Box):
        return None
    shape = space.shape
    is_bytes = space.dtype == np.uint8 and has_byte_range(space)
    if len(shape) == 2 and is_bytes and min(shape) >= 36:
        return (0, 1)
    if len(shape) == 3 and (is_bytes or (np.issubdtype(space.dtype, np.floating) and sorted(shape)[1] >= 8)):
        return (2, 0, 1) if shape[2] < shape[0] else (0, 1, 2)
    if len(shape) == 4 and is_bytes:  # a stack of images: stack and channels become one axis
        return (0, 3, 1, 2) if shape[3] < shape[1] else (0, 1, 2, 3)
    return None


def has_byte_range(space: spaces.Box) -> bool:
    """Whether bounds are 0 and 255 throughout, whatever the dtype."""
    return bool((space.high == 255).all() and (space.low == 0).all())


def is_scaled_image(space: spaces.Space[Any]) -> bool:
    """Whether it is an image whose bounds, 0 and 255 or 0 and 1, say how to scale it: without statistics."""
    if not isinstance(space, spaces.Box) or image_layout(space) is None:
        return False
    return has_byte_range(space) or bool((space.low == 0).all() and (space.high == 1).all())


def unsupported(space: spaces.Space[Any], role: str, allowed: Sequence[str], key: str = "") -> ValueError:
    """The error for a space that can't be an observation or an action."""
    shown = flat(space)
    where = f" at {key!r}" if key else ""
    *most, last = allowed
    advice = "; a wrapper in env.wrappers can drop or change it" if role == "observation" else ""
    return ValueError(
        f"unsupported {role} space {shown}{where}: expected {', '.join(most)} or {last}{advice}"
    )


def _check(space: spaces.Space[Any], role: str, key: str = "") -> None:
    if not isinstance(space, _SIMPLE):
        raise unsupported(space, role, ["Box", "Discrete", "MultiDiscrete", "MultiBinary"], key)


def _leaf(path: tuple[str | int, ...], space: spaces.Space[Any], maskable: bool) -> Leaf:
    _check(space, "observation", ".".join(map(str, path)))
    is_mask = maskable and path[0] == MASK
    if is_mask or isinstance(space, spaces.MultiBinary):
        return Leaf(path, space, "uint8", is_mask)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return Leaf(path, space, "int64")
    return Leaf(path, space, "uint8" if space.dtype == np.uint8 else "float32")


def choices(space: spaces.Space[Any]) -> tuple[int, ...]:
    """How many alternatives each component of an action has, where masks can forbid some; else nothing."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(int(n) for n in space.nvec.flatten())
    return ()


def random_action(space: spaces.Space[Any], observations: spaces.Space[Any], obs: Any) -> Any:  # noqa: ANN401
    """A random action of a single environment, a legal one where its observation has a mask.

    Args:
        space: The action space.
        observations: The space of ``obs``.
        obs: The observation that the action answers to.
    """
    masks = []
    if isinstance(observations, PackedObservations):
        leaves = zip(observations.leaves, observations.views(obs), strict=True)
        masks = [np.ravel(values) for leaf, values in leaves if leaf.is_mask]
    mask = np.concatenate(masks).astype(np.int8) if masks else None
    if mask is None or not mask.any():
        return space.sample()
    if isinstance(space, spaces.Discrete):
        return space.sample(mask)
    if isinstance(space, spaces.MultiDiscrete):
        parts = np.split(mask, np.cumsum(space.nvec)[:-1])
        if space.nvec.ndim == 1:
            return space.sample(tuple(parts))
        drawn = [space.np_random.choice(np.flatnonzero(part)) if part.any() else 0 for part in parts]
        return (np.reshape(drawn, space.shape) + space.start).astype(space.dtype)
    return space.sample()


def nested_value(tree: Mapping[str, Any], path: Sequence[str | int]) -> Any:  # noqa: ANN401
    """What a tree of mappings holds at a path, or None."""
    node: Any = tree
    for step in path:
        if not isinstance(node, Mapping) or str(step) not in node:
            return None
        node = node[str(step)]
    return node
