"""The budget of a run, and annealing: the value of a knob as a function of the run's progress."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Shape = Literal["linear", "cosine", "exponential"]


def iterations(asked: int, n_envs: int, n_steps: int) -> int:
    """Iterations of a run: ceil(asked / (N T)); see `trained_steps`."""
    return -(-asked // (n_envs * n_steps))


def trained_steps(asked: int, n_envs: int, n_steps: int, filled: bool = False) -> int:
    """Environment steps of a run whose iterations are whole: ceil(asked / (N T)) of N T steps each.

    Args:
        asked: ``total_timesteps``.
        n_envs: The number of environments N.
        n_steps: The number of steps T of a rollout.
        filled: Whether a backend has rows that are no steps, so that no more is known than what is asked.
    """
    if filled:
        return asked
    return iterations(asked, n_envs, n_steps) * n_envs * n_steps


@dataclass(frozen=True)
class Schedule:
    """A knob that goes from ``initial`` to ``final`` over a run, or what is left of it after a warm-up.

    Attributes:
        initial: The value at progress 0, or at the end of the warm-up.
        final: The value at progress 1, or None for a constant.
        shape: The curve between the two; ``exponential`` needs both ends above 0.
        warmup: The share w in [0, 1) of the run over which the value first rises linearly from 0.
    """

    initial: float
    final: float | None = None
    shape: Shape = "linear"
    warmup: float = 0.0

    @property
    def is_constant(self) -> bool:
        """Whether the value is the same all the run."""
        return self.final is None and not self.warmup

    def __call__(self, progress: float, step: float = 0.0) -> float:
        r"""Value at ``progress`` p in [0, 1].

            linear:      x_0 + (x_1 - x_0) p
            cosine:      x_1 + (x_0 - x_1) (1 + cos(π p)) / 2
            exponential: x_0 (x_1 / x_0)^p

        x_0 is ``initial``, x_1 is ``final``. With a warm-up, p is (p - w) / (1 - w) in these, and before:

            warm-up:     x_0 min(1, (p + s) / w)   where p < w

        Args:
            progress: The share p of the run that lies behind.
            step: The share s that the value is used for. The rise ends there, so that none of it is used with
                0, which many a knob may not be.
        """
        if self.warmup:
            if progress < self.warmup:
                return self.initial * min(1.0, (progress + step) / self.warmup)
            progress = (progress - self.warmup) / (1 - self.warmup)
        if self.final is None:
            return self.initial
        if self.shape == "linear":
            return self.initial + (self.final - self.initial) * progress
        if self.shape == "cosine":
            return self.final + (self.initial - self.final) * (1 + math.cos(math.pi * progress)) / 2
        return float(self.initial * (self.final / self.initial) ** progress)


Schedules = Mapping[str, Schedule]  # of every number of the update, by the knob's name; none of what is off
