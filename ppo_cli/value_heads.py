"""The last layer of the value function: its outputs, and the values that they stand for."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from ppo_cli.losses import expected_bin, symexp

BINS = 255  # of a distribution over returns, as in DreamerV3
DECAY = 0.99  # of the statistics, an iteration
LEAST_DEVIATION = 0.1  # that targets are divided by; MAPPO's, whose variance is at least 0.01


class ValueStatistics(nn.Module):
    r"""Running mean μ and deviation σ of the value targets, in float64; a state_dict has them.

    Exponential averages without the bias of their start (as of Adam's moments): after i rollouts the k-th has
    the share β^{i-k} (1 - β) / (1 - β^i), with β = 0.99; the first alone makes them what its targets have.
    """

    mean: Tensor
    deviation: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, start in (("mean", 0.0), ("deviation", 1.0), ("weight", 0.0)):
            self.register_buffer(name, torch.tensor(start, dtype=torch.float64))

    def update(self, targets: Tensor) -> None:
        """Takes in the targets of a rollout, [M]."""
        targets = targets.double()
        weight = DECAY * self.weight + (1 - DECAY)  # 1 - β^i
        share = (1 - DECAY) / weight
        shift = targets.mean() - self.mean
        within = torch.lerp(self.deviation**2, targets.var(unbiased=False), share)
        self.deviation.copy_((within + share * (1 - share) * shift**2).sqrt().clamp(min=LEAST_DEVIATION))
        self.mean.add_(share * shift)
        self.weight.copy_(weight)

    def normalize(self, values: Tensor) -> Tensor:
        """(V - μ) / σ."""
        return (values - self.mean) / self.deviation

    def denormalize(self, values: Tensor) -> Tensor:
        """σ V + μ."""
        return values * self.deviation + self.mean


class ValueHead(nn.Linear):
    """Outputs [B, K] as a linear function of features [B, F], and values [B] as a function of the outputs.

    Here K is 1, and the output is the value. Where values are normalised it starts with zeros: the first one
    that is not 0 has the scale of the targets already.

    Attributes:
        gain: That of the orthogonal initialisation.
        statistics: Those of the targets, by which values are normalised; None where they are not.
    """

    outputs: ClassVar[int] = 1
    gain: float = 1.0

    def __init__(self, features: int, normalize: bool = False) -> None:
        """A head with PyTorch's own initialisation.

        Args:
            features: The number of features F.
            normalize: Whether its values are normalised by running statistics.
        """
        super().__init__(features, self.outputs)
        self.statistics: ValueStatistics | None = None
        if normalize:
            self.statistics, self.gain = ValueStatistics(), 0.0
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)

    def decode(self, outputs: Tensor) -> Tensor:
        """Values [B] of outputs [B, K] in the units that the loss is in: a pure function."""
        return outputs.squeeze(-1)  # [B, 1] -> [B]

    def values(self, outputs: Tensor) -> Tensor:
        """Values [B] of outputs [B, K] in units of the return."""
        values = self.decode(outputs)
        return values if self.statistics is None else self.statistics.denormalize(values)

    @torch.no_grad()
    def adapt(self, targets: Tensor) -> None:
        r"""Has the statistics move with a rollout's targets, and the layer with them: PopArt.

            w ← w σ / σ',  b ← (σ b + μ - μ') / σ'

        so that every value σ' (w h + b) + μ' stays what it was (van Hasselt et al. 2016,
        https://arxiv.org/abs/1602.07714, proposition 1). What an optimiser remembers stays as it is. A frozen
        layer stays as it is, and so do its statistics.

        Args:
            targets: The targets V^targ, [M], in units of the return.
        """
        if self.statistics is None or not self.weight.requires_grad:
            return
        mean, deviation = self.statistics.mean.clone(), self.statistics.deviation.clone()
        self.statistics.update(targets)
        ratio = deviation / self.statistics.deviation
        shift = (mean - self.statistics.mean) / self.statistics.deviation
        self.weight.copy_(ratio * self.weight.double())
        self.bias.copy_(ratio * self.bias.double() + shift)


class SymlogHead(ValueHead):
    """The value's symlog: V = symexp(output) (Hafner et al. 2023, https://arxiv.org/abs/2301.04104)."""

    def decode(self, outputs: Tensor) -> Tensor:
        """Values [B] of outputs [B, 1]."""
        return symexp(outputs.squeeze(-1))


class TwoHotHead(ValueHead):
    """Logits over 255 bins from symexp(-20) to symexp(20); the value is their mean (Hafner et al. 2023).

    It starts with zeros, so that every value is 0 at first.
    """

    outputs = BINS
    gain = 0.0

    def __init__(self, features: int) -> None:
        super().__init__(features)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def decode(self, outputs: Tensor) -> Tensor:
        """Values [B] of outputs [B, 255]."""
        return expected_bin(outputs)


HEADS: dict[str, type[ValueHead]] = {"symlog": SymlogHead, "two_hot": TwoHotHead}  # of losses that need one


def head_maker(value_loss: str, normalize: bool) -> Callable[[int], ValueHead]:
    """A function from a number of features to a value head.

    Args:
        value_loss: The loss that it is trained by.
        normalize: Whether its values are normalised by running statistics, which those of `HEADS` are not.
    """
    return partial(ValueHead, normalize=True) if normalize else HEADS.get(value_loss, ValueHead)
