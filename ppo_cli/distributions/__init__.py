"""One class an action space, in a file of its own: from the policy's logits to what the environment takes.

A class holds all that its space needs: probabilities, noise, the policy head, acting in NumPy, the way to the
environment in NumPy and in exported graphs, and what rounding may change there.
"""

import math
from typing import Any

from gymnasium import spaces

from ppo_cli.distributions.base import Distribution, HeadChoice
from ppo_cli.distributions.beta import Beta
from ppo_cli.distributions.bins import DiscretizedCategorical
from ppo_cli.distributions.bits import Bernoulli
from ppo_cli.distributions.box import DiagonalGaussian, SquashedGaussian
from ppo_cli.distributions.discrete import Categorical, MultiCategorical
from ppo_cli.distributions.product import Product
from ppo_cli.spaces import PackedActions, unsupported

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "DiagonalGaussian",
    "DiscretizedCategorical",
    "Distribution",
    "HeadChoice",
    "MultiCategorical",
    "Product",
    "SquashedGaussian",
    "make_distribution",
]


def make_distribution(
    space: spaces.Space[Any], squash: bool = False, box_policy: str = "gaussian", action_bins: int = 41
) -> Distribution:
    """The distribution over a single environment's action space, a packed one included.

    Args:
        space: The action space.
        squash: Whether Gaussian Box actions go through a tanh.
        box_policy: The distribution of Box actions: ``gaussian``, ``beta`` or ``categorical``.
        action_bins: The number of values of a component with ``categorical``.

    Raises:
        ValueError: The space is unsupported or empty, or has no finite bounds where those are needed.
    """
    if math.prod(space.shape or ()) == 0:
        raise ValueError(f"the action space {getattr(space, 'original', space)} holds no values")
    if isinstance(space, PackedActions):
        return Product(
            space, [make_distribution(part, squash, box_policy, action_bins) for part in space.parts]
        )
    if isinstance(space, spaces.Discrete):
        return Categorical(space)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical(space)
    if isinstance(space, spaces.MultiBinary):
        return Bernoulli(space)
    if isinstance(space, spaces.Box):
        if box_policy == "categorical":
            return DiscretizedCategorical(space, action_bins)
        if box_policy == "beta":
            return Beta(space)
        return (SquashedGaussian if squash else DiagonalGaussian)(space)
    raise unsupported(space, "action", ["Discrete", "MultiDiscrete", "MultiBinary", "Box", "Dict", "Tuple"])
