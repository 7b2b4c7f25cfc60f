"""Memory between the encoder and the heads, over one step or over sequences: a recurrent cell, or none."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

EMPTY = torch.zeros(0, 0)  # states of no memory, for whoever has none at hand


class Memory(nn.Module, ABC):
    """What comes between the encoder and the heads.

    A state is one row of numbers, zero at the start of an episode. A state of length 0 remembers nothing.

    Attributes:
        size: The length of the output vectors H.
        state_size: The length of a state S.
    """

    size: int
    state_size: int

    @abstractmethod
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step: inputs [B, F] and states [B, S] -> outputs [B, H] and new states [B, S]."""

    @abstractmethod
    def sequence(self, x: Tensor, state: Tensor, episode_starts: Tensor) -> Tensor:
        """Steps of K sequences of length L, one after the other.

        Args:
            x: The inputs, sequence by sequence, [K*L, F].
            state: The state of each sequence before its first step, [K, S].
            episode_starts: Whether a step is an episode's first, float [K*L, 1]; [K*L, 0] where S is 0.

        Returns:
            Outputs, [K*L, H].
        """


class NoMemory(Memory):
    """No memory: inputs pass as they are, and a state is empty."""

    state_size = 0

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.size = inputs

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step: inputs [B, F] and states [B, 0], both as they are."""
        return x, state

    def sequence(self, x: Tensor, state: Tensor, episode_starts: Tensor) -> Tensor:
        """Inputs [K*L, F] as they are."""
        return x


class RecurrentMemory(Memory):
    """An LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014, https://arxiv.org/abs/1406.1078) cell.

    A state is h for a GRU, h and c side by side for an LSTM.
    """

    def __init__(self, kind: str, inputs: int, size: int) -> None:
        """Builds the cell.

        Args:
            kind: ``lstm`` or ``gru``.
            inputs: The length of the input vectors F.
            size: The length of the output vectors H.
        """
        super().__init__()
        self.kind = kind
        self.is_lstm = kind == "lstm"
        gates = 4 if self.is_lstm else 3
        self.input = nn.Linear(inputs, gates * size)
        self.hidden = nn.Linear(size, gates * size)
        self.size = size
        self.state_size = 2 * size if self.is_lstm else size

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step: inputs [B, F] and states [B, S] -> outputs [B, H] and new states [B, S]."""
        state = self._step(self.input(x), state)
        return state[:, : self.size], state

    def sequence(self, x: Tensor, state: Tensor, episode_starts: Tensor) -> Tensor:
        """Steps of K sequences of length L, one after the other, [K*L, F] -> [K*L, H]."""
        k = state.shape[0]  # not len(): that is a constant for a compiler
        gates = self.input(x).view(k, -1, self.input.out_features)  # [K*L, G] -> [K, L, G]
        keep = (1 - episode_starts).view(k, -1, 1)
        outputs = []
        for t in range(gates.shape[1]):
            state = self._step(gates[:, t], state * keep[:, t])
            outputs.append(state[:, : self.size])
        return torch.stack(outputs, dim=1).flatten(0, 1)  # [K, L, H] -> [K*L, H]

    def _step(self, from_input: Tensor, state: Tensor) -> Tensor:
        if self.is_lstm:
            # i, f, o = σ(W x + U h);  g = tanh(W x + U h);  c = f c + i g;  h = o tanh(c)
            h, c = state.chunk(2, dim=1)
            i, f, g, o = (from_input + self.hidden(h)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], dim=1)
        # r, z = σ(W x + U h);  n = tanh(W x + r U h);  h = (1 - z) n + z h
        x_r, x_z, x_n = from_input.chunk(3, dim=1)
        h_r, h_z, h_n = self.hidden(state).chunk(3, dim=1)
        z = torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
        return n + z * (state - n)
