"""Memory: a recurrent cell between the encoder and the heads, over one step or over sequences."""

import torch
from torch import Tensor, nn


class Memory(nn.Module):
    """An LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014, https://arxiv.org/abs/1406.1078) cell.

    A state is one row of numbers: h for a GRU, h and c side by side for an LSTM. It is zero at the start of
    an episode.

    Attributes:
        size: length of its output vectors H.
        state_size: length of a state S.
    """

    def __init__(self, kind: str, inputs: int, size: int) -> None:
        """Builds the cell.

        Args:
            kind: ``lstm`` or ``gru``.
            inputs: length of the input vectors F.
            size: H.
        """
        super().__init__()
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

    def sequence(self, x: Tensor, state: Tensor, starts: Tensor) -> Tensor:
        """Steps of K sequences of length L, one after the other.

        Args:
            x: inputs, sequence by sequence, [K*L, F].
            state: of each sequence before its first step, [K, S].
            starts: whether a step is an episode's first, float [K*L].

        Returns:
            Outputs, [K*L, H].
        """
        k = len(state)
        gates = self.input(x).view(k, -1, self.input.out_features)  # [K*L, G] -> [K, L, G]
        keep = (1 - starts).view(k, -1, 1)
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
