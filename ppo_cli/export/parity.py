"""Whether an exported file acts as the policy does, on observations drawn from its space."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from ppo_cli.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    MultiCategorical,
    Product,
    is_squashed,
)
from ppo_cli.envs.spaces import action_adapter
from ppo_cli.export.graph import Arrays, ExportError, Ports, Run
from ppo_cli.policy import Policy
from ppo_cli.spaces import PackedActions, PackedObservations, walk

Array = npt.NDArray[Any]

TOLERANCE = 1e-5  # of numbers up to 1; of larger ones that part of them, which float32 can't tell apart
BATCHES = (1, 7, 42)
STEPS = 20  # in a row for each batch, with the state fed back: 20 x (1 + 7 + 42) = 1,000 observations
WIDEST = 1e6  # bounds beyond it say nothing about what observations look like


@dataclass(frozen=True)
class Parity:
    """What a check found.

    Attributes:
        observations: how many were compared.
        difference: the largest between two numbers of actions or states, relative where they exceed 1.
        ties: choices that differ since two of them are as good, to `TOLERANCE`.
    """

    observations: int
    difference: float
    ties: int


class _Expected(NamedTuple):
    """The policy's own answer: outputs by name, for each action how much it may differ, the next states."""

    outputs: Arrays
    allowed: Arrays
    states: Tensor | None


def check_parity(
    run: Run,
    ports: Ports,
    policy: Policy,
    observations: spaces.Space[Any],
    actions: spaces.Space[Any],
    seed: int = 0,
) -> Parity:
    """Compares a file with `Policy.act` and the environment's action adapter, batch by batch.

    Both sides are fed their own states, step after step, so that a difference could grow.

    Args:
        run: of the file.
        ports: its inputs and outputs.
        policy: that was exported.
        observations: space of a single environment, packed where it is nested.
        actions: likewise.
        seed: of the observations and the noise.

    Raises:
        ExportError: they differ, or the file gives something of another kind.
    """
    rng = np.random.default_rng(seed)
    difference, ties = 0.0, 0
    for size in BATCHES:
        state = policy.initial_state
        own = None if state is None else state.repeat(size, 1)
        fed: Arrays = {} if own is None else {"state": own.cpu().numpy()}
        for _ in range(STEPS):
            values = sample_observations(policy, observations, size, rng)
            generator = torch.Generator().manual_seed(int(rng.integers(2**62))) if ports.noise else None
            expected, noise = _answer(policy, ports, observations, actions, values, own, generator)
            inputs = {port.name: value for port, value in zip(ports.observation, values, strict=True)}
            given = run({**inputs, **fed, **noise})
            for name, value in expected.outputs.items():
                found = _difference(name, given[name], value, expected.allowed[name])
                difference, ties = max(difference, found[0]), ties + found[1]
            own = expected.states
            fed = {} if own is None else {"state": given["next_state"]}
    return Parity(STEPS * sum(BATCHES), difference, ties)


def sample_observations(
    policy: Policy, space: spaces.Space[Any], size: int, rng: np.random.Generator
) -> list[Array]:
    """Observations as the environment gives them: a leaf each [size, *shape], in the order of the space.

    Boxes are filled evenly; where a bound is missing, or observations are normalised, with normal numbers
    around what was seen in training. Of a mask each component has a legal action.
    """
    normalizer = policy.normalizer
    if not isinstance(space, PackedObservations):
        if normalizer is None:
            return [_sample(space, size, rng)]
        return [_sample(space, size, rng, normalizer.statistics.mean, normalizer.statistics.var)]
    found: dict[tuple[str | int, ...], Array] = {}
    for leaf in space.leaves:
        seen: list[Array] = []
        if normalizer is not None and leaf.stop <= normalizer.scaled_bytes:
            part = slice(leaf.start // 4, leaf.stop // 4)
            statistics = (normalizer.statistics.mean, normalizer.statistics.var)
            seen = [values[part].reshape(leaf.shape) for values in statistics]
        found[leaf.path] = _sample(leaf.space, size, rng, *seen)
    masks = [leaf for leaf in space.leaves if leaf.is_mask]
    if masks:
        _make_legal([found[leaf.path] for leaf in masks], policy.distribution, rng)
    return [found[path] for path, _ in walk(space.original)]


def _sample(
    space: spaces.Space[Any],
    size: int,
    rng: np.random.Generator,
    mean: Array | None = None,
    var: Array | None = None,
) -> Array:
    """Values of a simple space, [size, *shape] of its dtype."""
    shape = (size, *(space.shape or ()))
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        count = space.n if isinstance(space, spaces.Discrete) else space.nvec
        return (space.start + rng.integers(0, count, shape)).astype(space.dtype)
    if not isinstance(space, spaces.Box):
        return rng.integers(0, 2, shape).astype(space.dtype)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    normal = rng.normal(size=shape)
    if mean is not None and var is not None:
        values = mean + 3 * np.sqrt(var) * normal  # some beyond where normalisation clips
    else:
        narrow = (np.abs(low) < WIDEST) & (np.abs(high) < WIDEST)
        finite = np.where(narrow, low, 0), np.where(narrow, high, 1)
        values = np.where(narrow, finite[0] + rng.random(shape) * (finite[1] - finite[0]), normal)
    values = np.clip(np.rint(values) if np.issubdtype(space.dtype, np.integer) else values, low, high)
    return values.astype(space.dtype)


def _make_legal(masks: Sequence[Array], distribution: Distribution, rng: np.random.Generator) -> None:
    """Makes one action of each component legal, in masks [B, ...] that stand side by side."""
    flat = np.concatenate([mask.reshape(len(mask), -1) for mask in masks], axis=1)
    counts = [flat.shape[1]]
    if isinstance(distribution, MultiCategorical) and sum(distribution.nvec) == flat.shape[1]:
        counts = list(distribution.nvec)
    rows, start = np.arange(len(flat)), 0
    for count in counts:
        flat[rows, start + rng.integers(0, count, len(flat))] = 1
        start += count
    cuts = np.cumsum([math.prod(mask.shape[1:]) for mask in masks])[:-1]
    for mask, part in zip(masks, np.split(flat, cuts, axis=1), strict=True):
        mask[...] = part.reshape(mask.shape)


def _answer(
    policy: Policy,
    ports: Ports,
    observations: spaces.Space[Any],
    actions: spaces.Space[Any],
    values: Sequence[Array],
    states: Tensor | None,
    generator: torch.Generator | None,
) -> tuple[_Expected, Arrays]:
    """The policy's own answer, and the noise that it drew."""
    rows = _rows(observations, values)
    noise: Arrays = {}
    drawn = None
    if generator is not None:
        drawn = policy.distribution.noise((len(rows),), generator.clone_state())
        noise["noise"] = drawn.numpy()
    logits, _ = policy.logits(rows, states)
    stored, after = policy.act(rows, generator, states)
    adapted = action_adapter(actions, is_squashed(policy.distribution))(stored)
    slack = _slack(policy.distribution, actions, logits.cpu(), drawn, stored)
    outputs: Arrays = {}
    allowed: Arrays = {}
    for port, action, own in zip(ports.action, _leaves(actions, adapted), slack, strict=True):
        outputs[port.name] = action
        allowed[port.name] = own.reshape(action.shape)
    if after is not None:
        outputs["next_state"] = after.cpu().numpy()
        allowed["next_state"] = TOLERANCE * np.maximum(1, np.abs(outputs["next_state"]))
    return _Expected(outputs, allowed, after), noise


def _rows(space: spaces.Space[Any], values: Sequence[Array]) -> Array:
    """What the packing wrapper makes of observations: [B, *shape], or rows of bytes."""
    if not isinstance(space, PackedObservations):
        return values[0]
    rows = np.zeros((len(values[0]), *space.shape), np.uint8)
    given = dict(zip((path for path, _ in walk(space.original)), values, strict=True))
    for leaf, view in zip(space.leaves, space.views(rows), strict=True):
        view[...] = given[leaf.path]
    return rows


def _leaves(space: spaces.Space[Any], adapted: Array) -> list[Array]:
    """Actions as the environment takes them, a leaf each, [B, *shape]."""
    if not isinstance(space, PackedActions):
        return [adapted]
    nested = [space.nested(row) for row in adapted]
    return [np.stack([_at(each, path) for each in nested]) for path, _ in walk(space.original)]


def _at(nested: Any, path: Sequence[str | int]) -> Any:  # noqa: ANN401
    for step in path:
        nested = nested[step]
    return nested


def _slack(
    distribution: Distribution,
    space: spaces.Space[Any],
    logits: Tensor,
    noise: Tensor | None,
    stored: Array,
) -> list[Array]:
    """How much each number of each leaf's actions may differ: by anything where two choices are as good."""
    if not (isinstance(distribution, Product) and isinstance(space, PackedActions)):
        stored = stored.reshape(len(stored), -1)
        if isinstance(space, spaces.Box):
            return [_box_slack(space, is_squashed(distribution), stored)]
        margin, scale = _margin(distribution, logits if noise is None else logits + noise)
        return [np.where(margin <= TOLERANCE * scale, np.inf, 0.0)]
    parts = distribution.parts
    own_logits = logits.split([part.logits_size for part in parts], dim=-1)
    sizes = [part.noise_size for part in parts]
    own_noise = [None] * len(parts) if noise is None else noise.split(sizes, dim=-1)
    columns = np.split(stored, np.cumsum(distribution.action_sizes)[:-1], axis=-1)
    each = zip(parts, space.parts, own_logits, own_noise, columns, strict=True)
    return [_slack(*one)[0] for one in each]


def _box_slack(space: spaces.Box, squash: bool, stored: Array) -> Array:
    """Of Box actions: `TOLERANCE` of their size, and 1 where an integer was rounded from close to a half."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    exact = action_adapter(spaces.Box(low, high, dtype=np.float64), squash)(stored)
    scale = np.maximum(1, np.maximum(np.abs(exact), high - low if squash else 0))
    if not np.issubdtype(space.dtype, np.integer):
        return TOLERANCE * scale
    return np.where(np.abs(exact - np.floor(exact) - 0.5) <= TOLERANCE * scale, 1.0, 0.0)


def _margin(distribution: Distribution, scores: Tensor) -> tuple[Array, Array]:
    """By how much each choice was made, and how large the numbers behind it are, both [B, components]."""
    if isinstance(distribution, Bernoulli):
        return scores.abs().numpy(), np.ones(scores.shape)
    counts = [distribution.n] if isinstance(distribution, Categorical) else list(_nvec(distribution))
    margins, scales = [], []
    for part in scores.split(counts, dim=-1):
        best = part.topk(min(2, part.shape[-1]), dim=-1).values
        margins.append(
            best[:, 0] - best[:, 1] if best.shape[1] > 1 else torch.full_like(best[:, 0], math.inf)
        )
        scales.append(best[:, 0].abs().clamp(min=1))
    return torch.stack(margins, -1).numpy(), torch.stack(scales, -1).numpy()


def _nvec(distribution: Distribution) -> tuple[int, ...]:
    if not isinstance(distribution, MultiCategorical):
        raise TypeError(f"no margins for {type(distribution).__name__}")
    return distribution.nvec


def _difference(name: str, given: Array, expected: Array, allowed: Array) -> tuple[float, int]:
    """The largest difference, relative to what is large, and the number of ties that went the other way.

    Raises:
        ExportError: a difference is not allowed.
    """
    if given.shape != expected.shape or given.dtype != expected.dtype:
        raise ExportError(
            f"{name}: the file gives {given.dtype} {list(given.shape)}, "
            f"the policy {expected.dtype} {list(expected.shape)}"
        )
    apart = np.abs(given.astype(np.float64) - expected.astype(np.float64))
    wrong = ~(apart <= allowed)  # NaN included
    if wrong.any():
        first = tuple(np.argwhere(wrong)[0])
        raise ExportError(
            f"{name}: the file gives {given[first]}, the policy {expected[first]}, "
            f"which is more than {TOLERANCE:g} apart"
        )
    choice = allowed >= 1
    relative = apart[~choice] * TOLERANCE / np.maximum(allowed[~choice], np.finfo(np.float64).tiny)
    return float(relative.max(initial=0.0)), int((apart[choice] > 0).sum())
