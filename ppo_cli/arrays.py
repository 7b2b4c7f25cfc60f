"""What environments give, arrays of NumPy or tensors of PyTorch, and what is done with either.

Between the environments and the network there is one code for both: what NumPy and PyTorch do by different
names, and what would have a device waited for, is a method here. `ppo_cli.tensors.Tensors` is its other half.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = Any  # an array of NumPy or a tensor of PyTorch
Moments = tuple[Any, Any, Any]


class Arrays:
    """Arrays of NumPy: whatever is found out about them is known at once."""

    where = staticmethod(np.where)
    isnan = staticmethod(np.isnan)
    isfinite = staticmethod(np.isfinite)
    sqrt = staticmethod(np.sqrt)

    def zeros(self, shape: int | tuple[int, ...], dtype: str = "float64") -> Array:
        """Zeros."""
        return np.zeros(shape, dtype)

    def of(self, values: Any) -> Array:  # noqa: ANN401 - arrays, tensors, lists, anybody's
        """Any values."""
        return as_array(values)

    def own(self, values: Any, dtype: str) -> Array:  # noqa: ANN401
        """A copy of any values."""
        return np.array(as_array(values), dtype)

    def cast(self, values: Array, dtype: str) -> Array:
        """Values as others of a dtype."""
        return values.astype(dtype, copy=False)

    def view(self, rows: Array, dtype: str) -> Array:
        """The same memory as numbers of another dtype."""
        return rows.view(dtype)

    def copy(self, values: Array) -> Array:
        """A copy, nothing of which is written to by others."""
        return values.copy()

    def clip(self, values: Array, most: float) -> Array:
        """Values within ±most."""
        return np.minimum(np.maximum(values, -most), most)

    def clear(self, column: Array, rows: Array) -> None:
        """Sets what is chosen of a column to 0, by a mask bool [N]."""
        column[rows] = 0

    def flatnonzero(self, mask: Array) -> Array:
        """The places of what is true, int64."""
        return np.flatnonzero(mask)

    def as_float32(self, observations: Array) -> Array:
        """Observations without normalisation as the network takes them: float64 as float32.

        Raises:
            FloatingPointError: a number is not finite in float32; one line.
        """
        if observations.dtype != np.float64:
            return observations
        with np.errstate(over="ignore"):
            small = observations.astype(np.float32)
        finite = np.isfinite(small)
        if not finite.all():
            raise FloatingPointError(beyond_float32(f"{observations[~finite][0]:g}"))
        return small

    def sent(self, actions: Any) -> Any:  # noqa: ANN401 - nested, perhaps
        """Actions, or what else the environments are given, where they take it."""
        return actions

    def moments(self, batch: Array, counts: Array | None) -> Moments | None:
        """Mean and sum of squared deviations of rows [N, *shape], and how many they are; None of none.

        Args:
            batch: The rows, float64.
            counts: Which of them count, bool [N]; None for all.
        """
        rows = batch if counts is None else batch[counts]
        n = len(rows)
        if n == 0:
            return None
        mean = np.add.reduce(rows, axis=0) / n  # np.mean and np.var cost ten times as much on a few rows
        deviations = rows - mean
        return mean, np.add.reduce(deviations * deviations, axis=0), n

    def require(self, holds: Array, otherwise: str) -> None:
        """Raises ValueError for the first environment of which something does not hold.

        Args:
            holds: Whether it does, bool [N].
            otherwise: What to say, with {} for the environment.
        """
        if not holds.all():
            raise ValueError(otherwise.format(f"environment {holds.argmin()}"))

    def check(self) -> None:
        """Raises ValueError for what `require` did not wait to know."""

    def is_any(self, mask: Array) -> bool:
        """Whether anything is true; or may be, where one would have to wait to know."""
        return bool(mask.any())

    def numbers(self, value: Any, n: int) -> Array | None:  # noqa: ANN401 - anybody's
        """A number for each of n environments, or a truth; None for whatever else it is."""
        if not hasattr(value, "__array__"):
            return None
        found = as_array(value)
        return found if found.shape == (n,) and found.dtype.kind in "biuf" else None

    def kind(self, values: Array) -> str:
        """The kind of values, by NumPy's letters: b, i, u, f, ..."""
        return str(values.dtype.kind)

    def rows(self, mask: Array) -> Any:  # noqa: ANN401
        """What to index columns with, for `waiting`, to have those of a mask."""
        return np.flatnonzero(mask)

    def waiting(self, columns: Sequence[Array], mask: Array) -> Array:
        """Numbers of some environments, until `lists` is asked for them.

        Args:
            columns: Each what `rows` chose of a column.
            mask: Which environments, bool [N].
        """
        return np.stack(columns)

    def lists(self, waiting: Sequence[Array]) -> list[list[float]]:
        """The numbers that have waited, a list for each environment and step."""
        found: list[list[float]] = np.concatenate(waiting, axis=1).T.tolist()
        return found


NUMPY = Arrays()


def as_array(value: Any) -> npt.NDArray[Any]:  # noqa: ANN401
    """A tensor, wherever it lies, a list or a number as an array; an array as it is."""
    # not `isinstance`: what makes environments does without importing PyTorch
    array: npt.NDArray[Any] = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    return array


def beyond_float32(which: str) -> str:
    """The line about a number that float32 does not hold."""
    return (
        f"an observation holds {which}, which is not finite in float32; normalize.observations=true "
        "scales numbers before they become float32, and so can a wrapper"
    )
