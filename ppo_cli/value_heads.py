"""The last layer of the value function: its outputs, and the values that they stand for."""

from torch import Tensor, nn


class ValueHead(nn.Linear):
    """Outputs [B, K] as a linear function of features [B, F], and values [B] as a function of the outputs.

    Here K is 1, and the output is the value.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, 1)

    def decode(self, outputs: Tensor) -> Tensor:
        """Values [B] of outputs [B, K]: a pure function."""
        return outputs.squeeze(-1)  # [B, 1] -> [B]
