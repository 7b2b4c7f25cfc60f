"""Observations of N environments that come as tensors, as one tensor: checked, nested ones packed."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from ppo_cli.envs.batch_masks import AddedMasks
from ppo_cli.envs.batches import ILLEGAL, UNFINITE, ObservationBatch
from ppo_cli.envs.pack import index_range
from ppo_cli.spaces import Leaf, PackedObservations, choices, leaves_of
from ppo_cli.tensors import Tensors, torch_dtype


class TensorBatch(ObservationBatch):
    """`ObservationBatch` of tensors, which stay where they are.

    What depends on their values alone is required, and not waited for.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        actions: gym.Space[Any],
        n: int,
        masks: AddedMasks | None,
        tensors: Tensors,
    ) -> None:
        """Takes what it needs of the spaces.

        Args:
            space: As for `ObservationBatch`.
            actions: As for `ObservationBatch`.
            n: As for `ObservationBatch`.
            masks: As for `ObservationBatch`.
            tensors: The operations on tensors of the run's device.
        """
        super().__init__(space, actions, n, masks)
        self._tensors = tensors
        self._choices = choices(actions)
        self._keeping = [_Keeping(leaf, tensors, n) for leaf in leaves_of(space)]

    def __call__(self, observations: Any, ended: Tensor) -> Tensor:  # noqa: ANN401 - as the vector has them
        """The observations as one tensor; a nested one's is new."""
        if self._masks is not None:
            observations = self._masks(observations)
        if isinstance(self._space, PackedObservations):
            rows = self._rows(self._space, observations, ended)
            reals = rows[:, : self._space.real_bytes].view(torch.float32)
        else:
            rows = reals = self._keeping[0](observations)
        if reals.is_floating_point() and reals.numel():
            self._tensors.require(torch.isfinite(reals).reshape(self._n, -1).all(1), UNFINITE)
        return rows

    def _rows(self, space: PackedObservations, observations: Any, ended: Tensor) -> Tensor:  # noqa: ANN401
        rows = torch.zeros((self._n, *space.shape), dtype=torch.uint8, device=self._tensors.device)
        masks = []
        for keep in self._keeping:
            leaf, values = keep.leaf, keep(keep.leaf.of(observations))
            rows[:, leaf.start : leaf.stop] = values.reshape(self._n, -1).view(torch.uint8)
            if leaf.is_mask:
                masks.append(values.reshape(self._n, -1) > 0)
        if masks:
            parts = torch.cat(masks, dim=1).split(list(self._choices), dim=1)
            legal = torch.stack([part.any(1) for part in parts]).all(0)
            self._tensors.require(legal | ended, ILLEGAL)
        return rows


class _Keeping:
    """Brings the values of a leaf [N, *shape] to the device and the dtype in which they are kept.

    Attributes:
        leaf: The leaf.
    """

    def __init__(self, leaf: Leaf, tensors: Tensors, n: int) -> None:
        self.leaf, self._tensors, self._shape = leaf, tensors, (n, *leaf.shape)
        self._dtype = torch_dtype(str(np.dtype(leaf.dtype)))
        self._named = f"an observation {leaf.key!r}" if leaf.key else "an observation"
        found = index_range(leaf.space)
        if found is None and not self._dtype.is_floating_point and self._dtype != torch.bool:
            info = torch.iinfo(self._dtype)
            found = info.min, info.max
        self._range = None if found is None or leaf.is_mask else [self._bound(each) for each in found]

    def _bound(self, value: Any) -> Any:  # noqa: ANN401
        """A bound of what is kept, a number or one for each component."""
        return value if isinstance(value, int) else torch.as_tensor(value, device=self._tensors.device)

    def __call__(self, values: Any) -> Tensor:  # noqa: ANN401
        """The values.

        Raises:
            ValueError: they are of another shape or kind than their space says.
        """
        found: Tensor = self._tensors.of(values)
        if tuple(found.shape) != self._shape:
            raise ValueError(
                f"{self._named} of shape {tuple(found.shape)}, where its space says {self._shape}"
            )
        if self.leaf.is_mask:
            return (found > 0).to(self._dtype)
        if found.is_floating_point() and not self._dtype.is_floating_point:
            raise ValueError(f"{self._named} of dtype {found.dtype}, where its space says {self._dtype}")
        if self._range is not None and found.dtype != torch.bool:
            low, high = self._range
            inside = ((low <= found) & (found <= high)).reshape(len(found), -1).all(1)
            self._tensors.require(inside, f"{self._named} of {{}} outside its space's {low} to {high}")
            found = found.clamp(low, high)  # an index outside would end the process of a GPU
        return found.to(self._dtype).contiguous()
