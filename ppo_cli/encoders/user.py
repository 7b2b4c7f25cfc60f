"""Encoders of the user's own: any module, held to what it returned when it was tried."""

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ppo_cli.errors import UserCodeError
from ppo_cli.spaces import fill_blank
from ppo_cli.text import flat


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
        example = torch.zeros((batch, *(space.shape or ())), dtype=self.dtype)
        fill_blank(example.numpy(), space)
        try:
            with torch.no_grad():
                out = self.module(example)
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
            UserCodeError: the module raised, or returned something else than when it was tried.
        """
        try:
            features = self.module(obs if obs.dtype == torch.float32 else obs.to(self.dtype))
        except Exception as error:
            raised = flat(f"{type(error).__name__}: {error}")
            raise UserCodeError(
                f"the encoder {self.name} raised {raised}, given {tuple(obs.shape)}"
            ) from error
        if not isinstance(features, Tensor) or features.dim() != 2 or features.shape[1] != self.size:
            shown = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserCodeError(f"the encoder {self.name} returned {shown}, expected [B, {self.size}]")
        return features
