"""Dict and Tuple observations: an encoder a leaf, and the action mask."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ppo_cli.spaces import Leaf, PackedObservations

DTYPES = {"float32": torch.float32, "int64": torch.int64, "uint8": torch.uint8}  # of a packed leaf


class PackedEncoder(nn.Module):
    """An encoder for each leaf of a packed observation that is seen; their vectors side by side."""

    def __init__(
        self, space: PackedObservations, encoders: Sequence[tuple[int, nn.Module]], mask: Sequence[int]
    ) -> None:
        """Takes the leaves' encoders.

        Args:
            space: The space that lays out the rows.
            encoders: The encoder of each leaf that is seen, with the leaf's number.
            mask: The numbers of the leaves that are the action mask; none where they are not.
        """
        super().__init__()
        self.space = space
        self.leaves = [leaf for leaf, _ in encoders]
        self.encoders = nn.ModuleList(encoder for _, encoder in encoders)
        self.mask_leaves = list(mask)
        self.size = sum(cast("int", encoder.size) for encoder in self.encoders)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, bytes] -> [B, size]."""
        return self.encode_leaves(_unpack(self.space, rows, self.leaves))

    def encode_leaves(self, values: Mapping[int, Tensor]) -> Tensor:
        """The leaves by their numbers, each [B, *shape] -> [B, size]."""
        columns = [encoder(values[leaf]) for leaf, encoder in zip(self.leaves, self.encoders, strict=True)]
        return torch.cat(columns, dim=1)

    def mask(self, rows: Tensor) -> Tensor | None:
        """Which of the policy's logits stand for legal actions, bool [B, P]; None where all do."""
        return self.mask_of_leaves(_unpack(self.space, rows, self.mask_leaves)) if self.mask_leaves else None

    def mask_of_leaves(self, values: Mapping[int, Tensor]) -> Tensor | None:
        """`mask` of the leaves by their numbers, each [B, *shape]."""
        if not self.mask_leaves:
            return None
        return torch.cat([values[leaf].flatten(1) for leaf in self.mask_leaves], dim=1) > 0


def _unpack(space: PackedObservations, rows: Tensor, leaves: Sequence[int]) -> dict[int, Tensor]:
    """Some leaves of rows [B, bytes], by their numbers, as tensors [B, *shape]."""
    return {number: _view(space.leaves[number], rows) for number in leaves}


def _view(leaf: Leaf, rows: Tensor) -> Tensor:
    values = rows[:, leaf.start : leaf.stop].view(DTYPES[leaf.dtype])
    return values.reshape(rows.shape[0], *leaf.shape)  # len() would be a constant in a compiled graph
