"""What the processes of one run tell each other."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


class Collective:
    """What the processes of one run tell each other: here of a run that is one process, nothing.

    Every process calls the same methods in the same order. Shards are numbered over all processes, each of
    which has as many as any other, neighbours of each other.

    Attributes:
        rank: The number of this process; the first one, 0, speaks for all.
        processes: The number of processes.
    """

    rank: int = 0
    processes: int = 1

    def gather(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """A tensor of each shard, in their order, of one shape and dtype.

        Args:
            parts: Those of this process's shards.
        """
        return parts

    def combine(self, parts: Sequence[Tensor], function: Callable[[Sequence[Tensor]], Tensor]) -> Tensor:
        """What a function makes of a vector of each shard, in their order.

        Args:
            parts: The vectors of this process's shards, of one length and dtype.
            function: The function, which makes each element of the vectors' elements at its place alone.
        """
        return function(parts)

    def gather_plain(self, parts: Sequence[T]) -> Sequence[T]:
        """A value of each shard, in their order: nested dicts and lists of tensors and plain values.

        Args:
            parts: Those of this process's shards.
        """
        return parts

    def of_first(self, number: int) -> int:
        """The number that the first process has."""
        return number

    def most(self, number: int) -> int:
        """The largest of the numbers that the processes have."""
        return number

    def plain_of_first(self, value: T) -> T:
        """The value that the first process has, of nested dicts and lists of tensors and plain values."""
        return value

    def advise(self, advice: Callable[[], str]) -> None:
        """Takes what to do when the run has ended, where another speaks for this process.

        Args:
            advice: A function that says it in a line, or nothing.
        """

    def part(self) -> None:
        """Does no longer watch whether the others are there: the run is over."""

    def close(self) -> None:
        """Leaves the others."""


ALONE = Collective()
