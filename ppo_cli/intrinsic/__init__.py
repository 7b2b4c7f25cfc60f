"""Intrinsic rewards: bonuses for what has been seen little of, which explore where rewards are sparse.

What gives them is a class of its own, an `IntrinsicReward`; how they are scaled, valued and learned from is
the same for all (`ppo_cli.intrinsic.scale`, `ppo_cli.advantages`).
"""

from ppo_cli.intrinsic.base import IntrinsicReward
from ppo_cli.intrinsic.rnd import RandomNetworkDistillation
from ppo_cli.intrinsic.scale import IntrinsicScale

__all__ = ["INTRINSIC", "IntrinsicReward", "IntrinsicScale", "RandomNetworkDistillation"]

INTRINSIC: dict[str, type[IntrinsicReward]] = {"rnd": RandomNetworkDistillation}
