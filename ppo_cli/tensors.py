"""What `ppo_cli.arrays` does with arrays of NumPy, with tensors on a device.

None of it waits for the device: what would end a run is found out where `check` is asked for, and numbers
that are logged are brought to the host all at once.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppo_cli.arrays import Arrays, Moments, beyond_float32


class Tensors(Arrays):
    """Tensors on a device."""

    where = staticmethod(torch.where)  # type: ignore[assignment]
    isnan = staticmethod(torch.isnan)  # type: ignore[assignment]
    isfinite = staticmethod(torch.isfinite)  # type: ignore[assignment]
    sqrt = staticmethod(torch.sqrt)  # type: ignore[assignment]

    def __init__(self, device: torch.device | str, home: torch.device | str | None = None) -> None:
        """Takes places.

        Args:
            device: The device of the run, on which all of them lie.
            home: The device of the environments; None for the same.
        """
        self.device = torch.device(device)
        self._home = self.device if home is None else torch.device(home)
        self._broken: dict[str, Tensor] = {}  # where something has not held, bool [N], by what

    def zeros(self, shape: int | tuple[int, ...], dtype: str = "float64") -> Tensor:
        """Zeros."""
        return torch.zeros(shape, dtype=torch_dtype(dtype), device=self.device)

    def of(self, values: Any) -> Tensor:  # noqa: ANN401
        """Any values."""
        tensor = values if isinstance(values, Tensor) else torch.as_tensor(values)
        return tensor.detach().to(self.device)

    def own(self, values: Any, dtype: str) -> Tensor:  # noqa: ANN401
        """A copy of any values."""
        tensor = values if isinstance(values, Tensor) else torch.as_tensor(values)
        return tensor.detach().to(self.device, torch_dtype(dtype), copy=True)

    def cast(self, values: Tensor, dtype: str) -> Tensor:
        """Values as others of a dtype."""
        return values.to(torch_dtype(dtype))

    def view(self, rows: Tensor, dtype: str) -> Tensor:
        """The same memory as numbers of another dtype."""
        return rows.view(torch_dtype(dtype))

    def copy(self, values: Tensor) -> Tensor:
        """A copy, nothing of which is written to by others."""
        return values.clone()

    def clip(self, values: Tensor, most: float) -> Tensor:
        """Values within ±most."""
        return values.clamp(-most, most)

    def clear(self, column: Tensor, rows: Tensor) -> None:
        """Sets what is chosen of a column to 0, by a mask bool [N]."""
        column.masked_fill_(rows, 0)

    def flatnonzero(self, mask: Tensor) -> Tensor:
        """The places of what is true, int64: what their number is, has to be waited for."""
        return mask.nonzero().squeeze(1)

    def as_float32(self, observations: Tensor) -> Tensor:
        """Observations without normalisation as the network takes them: float64 as float32."""
        if observations.dtype != torch.float64:
            return observations
        small = observations.float()
        self.require(torch.isfinite(small).flatten(1).all(1), f"{beyond_float32('a number')} ({{}})")
        return small

    def sent(self, actions: Any) -> Any:  # noqa: ANN401
        """Actions, or what else the environments are given, on their device."""
        if isinstance(actions, dict):
            return {key: self.sent(part) for key, part in actions.items()}
        if isinstance(actions, tuple):
            return tuple(self.sent(part) for part in actions)
        return torch.as_tensor(actions).to(self._home)

    def moments(self, batch: Tensor, counts: Tensor | None) -> Moments:
        """Mean and sum of squared deviations of rows [N, *shape], and how many they are, all 0 of none."""
        if counts is None:
            counts = torch.ones(len(batch), dtype=torch.bool, device=batch.device)
        n = counts.sum(dtype=torch.float64)
        chosen = counts.view(-1, *[1] * (batch.dim() - 1))
        mean = batch.where(chosen, 0.0).sum(0) / n.clamp(min=1)
        return mean, (batch - mean).where(chosen, 0.0).square().sum(0), n

    def require(self, holds: Tensor, otherwise: str) -> None:
        """Has `check` raise where something does not hold of an environment, bool [N]."""
        before = self._broken.get(otherwise)
        self._broken[otherwise] = ~holds if before is None else before | ~holds

    def check(self) -> None:
        """Raises ValueError for the first environment of which something that is required did not hold."""
        broken, self._broken = self._broken, {}
        if not broken:
            return
        for otherwise, environments in zip(broken, torch.stack(list(broken.values())).tolist(), strict=True):
            if any(environments):
                raise ValueError(otherwise.format(f"environment {environments.index(True)}"))

    def is_any(self, mask: Tensor) -> bool:
        """True, since it would have to be waited for."""
        return True

    def numbers(self, value: Any, n: int) -> Tensor | None:  # noqa: ANN401
        """A number for each of n environments, or a truth; None for whatever else it is."""
        if not isinstance(value, Tensor):
            value = super().numbers(value, n)
        if value is None or tuple(value.shape) != (n,):
            return None
        found = self.of(value)
        return None if found.is_complex() else found

    def kind(self, values: Tensor) -> str:
        """The kind of values, by NumPy's letters: b, i, u, f, ..."""
        if values.dtype == torch.bool:
            return "b"
        if values.is_complex():
            return "c"
        return "f" if values.is_floating_point() else "i" if values.dtype.is_signed else "u"

    def rows(self, mask: Tensor) -> Any:  # noqa: ANN401
        """All: `waiting` keeps the mask beside them."""
        return slice(None)

    def waiting(self, columns: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Numbers of all environments, below a row that says of which ones they are wanted, [1 + K, N]."""
        return torch.stack([mask.double(), *(column.double() for column in columns)])

    def lists(self, waiting: Sequence[Tensor]) -> list[list[float]]:
        """The numbers that have waited, a list for each environment and step: brought here at once."""
        everything = torch.cat(list(waiting), dim=1)
        found: list[list[float]] = everything[1:, everything[0] > 0].T.tolist()
        return found


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of that name, which NumPy has for it too."""
    found: torch.dtype = getattr(torch, name)
    return found
