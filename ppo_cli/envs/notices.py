"""What of an environment a run does not follow as one may expect it to, each in a line."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from ppo_cli.envs.pack import MASKABLE, MaskSource
from ppo_cli.envs.wrappers import learning_layers
from ppo_cli.spaces import (
    MASK,
    PackedActions,
    PackedObservations,
    has_byte_range,
    image_layout,
    is_scaled_image,
)
from ppo_cli.text import flat

Env = gym.Env[Any, Any]

REACH = 2.0  # deviations from 0 within which a fresh policy's actions lie, about
LEAST = 0.1  # of the wider of these actions' range and the space's: what both have to have in common


def learning_notice(env: Env) -> str | None:
    """That an environment brings a layer that keeps statistics of its own."""
    layers = learning_layers(env)
    if not layers:
        return None
    return (
        f"{_name(env)} keeps running statistics of its own ({', '.join(layers)}), each copy for itself: "
        "evaluation, resuming and an exported policy do not have those of the training; those of "
        "normalize.observations=true and normalize.rewards=true they have"
    )


def mask_notice(env: Env, source: MaskSource | None) -> str | None:
    """That masks are not obeyed, or not at an episode's first step.

    Args:
        env: The environment with its spaces packed.
        source: The source of the masks beside its observations.
    """
    space = env.action_space
    if isinstance(space, MASKABLE):
        seen = env.observation_space
        if source != "step" or (
            isinstance(seen, PackedObservations) and any(leaf.is_mask for leaf in seen.leaves)
        ):
            return None
        return (
            f"{_name(env)} gives its 'action_mask' with each step, and none with a reset: "
            "at an episode's first step every action counts as legal"
        )
    places = {"info": "info['action_mask']", "step": "info['action_mask']", "method": "action_masks()"}
    where = places.get(str(source))
    seen = env.observation_space
    if isinstance(seen, PackedObservations) and any(leaf.path[0] == MASK for leaf in seen.leaves):
        where = f"{where} and the" if where else "the"
        where += " observation's 'action_mask'"
    if where is None:
        return None
    shown = flat(getattr(space, "original", space))
    return f"{where} is no mask here: masks are for Discrete and MultiDiscrete actions, given {shown}"


def range_notice(space: spaces.Space[Any], log_std_init: float) -> str | None:
    """That a fresh policy, normal around 0, hardly meets the range of a Box action that it is clipped to.

    Args:
        space: The space of the actions, packed where it is nested.
        log_std_init: The policy's initial log-deviation.
    """
    parts = space.parts if isinstance(space, PackedActions) else (space,)
    reach = REACH * math.exp(max(0.0, log_std_init))  # one that is small on purpose is not far from 0
    for part in parts:
        if not isinstance(part, spaces.Box):
            continue
        low, high = part.low.astype(np.float64).ravel(), part.high.astype(np.float64).ravel()
        met = np.minimum(high, reach) - np.maximum(low, -reach)
        widths = np.where(np.isfinite(high - low), np.maximum(high - low, 2 * reach), 2 * reach)
        far = np.flatnonzero(met < LEAST * widths)
        if not len(far):
            continue
        i = int(far[0])
        line = (
            f"actions in [{low[i]:g}, {high[i]:g}] are far from the [-1, 1] around which a policy starts: "
            "most are clipped to a bound, or never get near one; "
        )
        if part.is_bounded():
            return line + (
                "squash_actions=true stretches [-1, 1] to the bounds, as does "
                "env.wrappers=[{name:RescaleAction,min_action:-1,max_action:1}]"
            )
        return line + "a TransformAction wrapper of your own can stretch them"
    return None


def normalization_notice(space: spaces.Space[Any]) -> str | None:
    """What of an observation ``normalize.observations=true`` leaves alone although it could be meant.

    Args:
        space: The space of the observations, packed where it is nested.
    """
    if isinstance(space, PackedObservations):
        numbers = [leaf for leaf in space.leaves if isinstance(leaf.space, spaces.Box) and not leaf.is_mask]
        left = [leaf.key for leaf in numbers if leaf.dtype == "uint8" or is_scaled_image(leaf.space)]
        if space.floats and not left:
            return None
        what = f"images and bytes ({', '.join(left)})" if left else "observations without Box numbers"
    elif isinstance(space, spaces.Box):
        if not is_scaled_image(space):
            return None
        what = "images, which the network takes in [0, 1],"
    else:
        what = f"{type(space).__name__} observations"
    return f"normalize.observations=true leaves {what} as they are"


def image_notice(space: spaces.Space[Any]) -> str | None:
    """That an observation has an image's shape and range, and a dtype that makes it a row of numbers.

    Args:
        space: The space of the observations, packed where it is nested.
    """
    leaves = [leaf.space for leaf in space.leaves] if isinstance(space, PackedObservations) else [space]
    for leaf in leaves:
        if not isinstance(leaf, spaces.Box) or leaf.dtype == np.uint8 or not has_byte_range(leaf):
            continue
        as_bytes = spaces.Box(0, 255, leaf.shape, np.uint8)
        if image_layout(leaf) is None and image_layout(as_bytes) is not None:
            return (
                f"observations {leaf.shape} from 0 to 255 of {leaf.dtype} are rows of numbers; images as "
                "uint8, which env.wrappers=[{name:DtypeObservation,dtype:uint8}] makes them"
            )
    return None


def _name(env: Env) -> str:
    spec = env.unwrapped.spec
    return spec.id if spec is not None else type(env.unwrapped).__name__
