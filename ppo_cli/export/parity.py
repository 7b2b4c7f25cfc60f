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

from ppo_cli.export.graph import Arrays, ExportError, Ports, Run, acting_places
from ppo_cli.policy import BatchPolicy
from ppo_cli.spaces import PackedActions, PackedObservations, given_order, leaves_of, walk

Array = npt.NDArray[Any]

TOLERANCE = 1e-5  # of numbers up to 1; of larger ones that part of them, which float32 can't tell apart
BATCHES = (1, 7, 42)
STEPS = 20  # in a row for each batch, with the state fed back: 20 x (1 + 7 + 42) = 1,000 observations
WIDEST = 1e6  # bounds beyond it say nothing about what observations look like


@dataclass(frozen=True)
class Parity:
    """What a check found.

    Attributes:
        observations: How many were compared.
        difference: The largest between two numbers of actions or states, relative where they exceed 1.
        ties: The choices that differ since two of them are as good, to `TOLERANCE`.
    """

    observations: int
    difference: float
    ties: int


class _Expected(NamedTuple):
    """The policy's own answer: outputs by name, for each action how much it may differ, the next states."""

    outputs: Arrays
    allowed: Arrays
    states: Tensor


def check_parity(
    run: Run,
    ports: Ports,
    policy: BatchPolicy,
    observations: spaces.Space[Any],
    actions: spaces.Space[Any],
    seed: int = 0,
) -> Parity:
    """Compares a file with `BatchPolicy.act` and the distribution's way to the environment, batch by batch.

    Both sides are fed their own states, step after step, so that a difference could grow.

    Args:
        run: The function that runs the file.
        ports: The inputs and outputs of the file.
        policy: The policy that was exported.
        observations: The space of a single environment, packed where it is nested.
        actions: The space of its actions, likewise.
        seed: The seed of the observations and the noise.

    Raises:
        ExportError: they differ, or the file gives something of another kind.
    """
    rng = np.random.default_rng(seed)
    places = acting_places(policy, observations)
    difference, ties = 0.0, 0
    for size in BATCHES:
        own = policy.initial_state.repeat(size, 1)
        fed: Arrays = {} if ports.state is None else {"state": own.cpu().numpy()}
        for _ in range(STEPS):
            values = sample_observations(policy, observations, size, rng)
            generator = torch.Generator().manual_seed(int(rng.integers(2**62))) if ports.noise else None
            expected, noise = _answer(policy, ports, observations, actions, values, own, generator)
            named = zip(ports.observation, places, strict=True)
            inputs = {port.name: values[place] for port, place in named}
            given = run({**inputs, **fed, **noise})
            for name, value in expected.outputs.items():
                found = _difference(name, given[name], value, expected.allowed[name])
                difference, ties = max(difference, found[0]), ties + found[1]
            own = expected.states
            fed = {} if ports.state is None else {"state": given["next_state"]}
    return Parity(STEPS * sum(BATCHES), difference, ties)


def sample_observations(
    policy: BatchPolicy, space: spaces.Space[Any], size: int, rng: np.random.Generator
) -> list[Array]:
    """Observations as the environment gives them: a leaf each [size, *shape], in the order of the space.

    Boxes are filled evenly; where a bound is missing, or observations are normalised, with normal numbers
    around what was seen in training. Of a mask each component has a legal action.
    """
    leaves, normalizer = leaves_of(space), policy.normalizer
    seen = [None if normalizer is None else normalizer.of(leaf) for leaf in leaves]
    values = [_sample(leaf.space, size, rng, known) for leaf, known in zip(leaves, seen, strict=True)]
    masks = [value for leaf, value in zip(leaves, values, strict=True) if leaf.is_mask]
    if masks:
        _make_legal(masks, policy.distribution.choices, rng)
    return [values[place] for place in given_order(space)]


def _sample(
    space: spaces.Space[Any],
    size: int,
    rng: np.random.Generator,
    seen: tuple[Array, Array] | None,
) -> Array:
    """Values of a simple space, [size, *shape] of its dtype, by mean and variance where they are known."""
    shape = (size, *(space.shape or ()))
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        count = space.n if isinstance(space, spaces.Discrete) else space.nvec
        return (space.start + rng.integers(0, count, shape)).astype(space.dtype)
    if not isinstance(space, spaces.Box):
        return rng.integers(0, 2, shape).astype(space.dtype)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    normal = rng.normal(size=shape)
    if seen is not None:
        mean, var = seen
        values = mean + 3 * np.sqrt(var) * normal  # some beyond where normalisation clips
    else:
        narrow = (np.abs(low) < WIDEST) & (np.abs(high) < WIDEST)
        finite = np.where(narrow, low, 0), np.where(narrow, high, 1)
        values = np.where(narrow, finite[0] + rng.random(shape) * (finite[1] - finite[0]), normal)
    values = np.clip(np.rint(values) if np.issubdtype(space.dtype, np.integer) else values, low, high)
    return values.astype(space.dtype)


def _make_legal(masks: Sequence[Array], choices: Sequence[int], rng: np.random.Generator) -> None:
    """Makes one action of each component legal, in masks [B, ...] that stand side by side."""
    flat = np.concatenate([mask.reshape(len(mask), -1) for mask in masks], axis=1)
    rows, start = np.arange(len(flat)), 0
    for count in choices:
        flat[rows, start + rng.integers(0, count, len(flat))] = 1
        start += count
    cuts = np.cumsum([math.prod(mask.shape[1:]) for mask in masks])[:-1]
    for mask, part in zip(masks, np.split(flat, cuts, axis=1), strict=True):
        mask[...] = part.reshape(mask.shape)


def _answer(
    policy: BatchPolicy,
    ports: Ports,
    observations: spaces.Space[Any],
    actions: spaces.Space[Any],
    values: Sequence[Array],
    states: Tensor,
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
    adapted = policy.distribution.to_env(stored)
    allowances = policy.distribution.tolerance(logits.cpu(), drawn, stored, TOLERANCE)
    outputs: Arrays = {}
    allowed: Arrays = {}
    for port, action, own in zip(ports.action, _leaves(actions, adapted), allowances, strict=True):
        outputs[port.name] = action
        allowed[port.name] = own.reshape(action.shape)
    if ports.next_state is not None:
        outputs["next_state"] = after.cpu().numpy()
        allowed["next_state"] = TOLERANCE * np.maximum(1, np.abs(outputs["next_state"]))
    return _Expected(outputs, allowed, after), noise


def _rows(space: spaces.Space[Any], values: Sequence[Array]) -> Array:
    """What the packing wrapper makes of observations: [B, *shape], or rows of bytes."""
    if not isinstance(space, PackedObservations):
        return values[0]
    rows = np.zeros((len(values[0]), *space.shape), np.uint8)
    views = space.views(rows)
    for place, value in zip(given_order(space), values, strict=True):
        views[place][...] = value
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
