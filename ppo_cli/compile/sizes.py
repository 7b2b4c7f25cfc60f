"""Functions whose inputs may have other lengths at each call, and whether they ask how long they are."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Axis(NamedTuple):
    """The first axis of an input, where its length may be another at each call.

    Attributes:
        name: The axes of one name have one length.
        least: The smallest length, from 2: PyTorch does not trace an axis of length 1 as one of any.
        repeats: Whether an example of another length repeats the first row, of whose space zeros may be no
            value; else it is zeros, as indices into an axis have to be that is made shorter.
    """

    name: str
    least: int
    repeats: bool = False


class SizesMatterError(RuntimeError):
    """A function does something else for other lengths of an axis."""


def is_for_all(examples: Sequence[Tensor], axes: Sequence[Axis | None]) -> bool:
    """Whether some lengths may change, and the examples' are none of those that are too small for that."""
    pairs = zip(examples, axes, strict=False)
    return bool(axes) and all(axis is None or len(example) >= axis.least for example, axis in pairs)


def resized(examples: Sequence[Tensor], axes: Sequence[Axis | None]) -> list[Tensor]:
    """Examples whose lengths are the same whatever those of a run are, and unlike any other axis.

    While a graph is traced, axes of equal length count as one. They hold zeros, or their first row alone.
    """
    pairs = list(zip(examples, axes, strict=True))
    taken = {length for each, axis in pairs for length in each.shape[0 if axis is None else 1 :]}
    free = (length for length in itertools.count(61) if length not in taken)
    lengths = {axis: next(free) for axis in dict.fromkeys(axes) if axis is not None}
    return [
        example if axis is None else _of_length(example, lengths[axis], axis.repeats)
        for example, axis in pairs
    ]


def _of_length(example: Tensor, length: int, repeats: bool) -> Tensor:
    if repeats:
        return example[:1].expand(length, *example.shape[1:]).clone()
    return example.new_zeros((length, *example.shape[1:]))


def check_sizes(graph: Any, axes: Sequence[Axis | None]) -> None:  # noqa: ANN401
    """Raises SizesMatterError where a branch was taken while tracing that another length would not take."""
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    lengths = {}  # the symbol of each length, and lengths to try
    for node, axis in zip(inputs, axes, strict=True):
        if axis is None:
            continue
        length = node.meta["val"].shape[0]
        if isinstance(length, int) or length.node.expr.is_number:
            raise SizesMatterError(f"it is made for {length} {axis.name}")
        lengths[length.node.expr] = [axis.least + more for more in (0, 1, 1000, 10**6)]
    for guard in graph.shape_env.guards:
        for tried in itertools.product(*lengths.values()):
            if guard.expr.subs(dict(zip(lengths, tried, strict=True))) == False:  # noqa: E712 - SymPy's
                raise SizesMatterError(f"it asks whether {guard.expr}")
