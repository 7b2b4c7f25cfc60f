"""A run's policy: the way to one from a checkpoint, and how it acts in a Gymnasium environment."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.agent import flatten_parameters
from ppo_cli.arrays import as_array
from ppo_cli.config.convert import from_stored
from ppo_cli.config.schema import Config, resolve_device
from ppo_cli.config.trust import imports
from ppo_cli.distributions import make_distribution
from ppo_cli.encoders import read_paths
from ppo_cli.envs import calls
from ppo_cli.envs.make import make_env, spaces_of
from ppo_cli.envs.pack import ObservationCheck, ObservedMask, flat_mask
from ppo_cli.errors import ConfigError
from ppo_cli.normalize import stored_observation
from ppo_cli.policy import BatchPolicy
from ppo_cli.runs.algorithm import build_distribution
from ppo_cli.runs.build import build_model, build_normalizers, env_maker
from ppo_cli.runs.checkpoint import CheckpointError, load_run
from ppo_cli.runs.checkpoint_schema import Checkpoint
from ppo_cli.spaces import (
    MASK,
    Leaf,
    PackedActions,
    PackedObservations,
    Spaces,
    complete_rows,
    lacks_leaves,
    leaves_of,
)
from ppo_cli.text import flat

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Env = gym.Env[Any, Any]


class Policy:
    """A trained policy that acts in its Gymnasium environment.

    Example:
        >>> policy = ppo_cli.load("outputs/CartPole-v1/2026-01-31_12-00-00")
        >>> env = policy.make_env()
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(policy.act(observation))

    Attributes:
        config: The config that it was trained with.
        steps: The environment steps that it was trained for.
        observation_space: The space of the observations that `act` takes, as the environment has it.
        action_space: The space of the actions that `act` returns.
        state: The memory's state after the last action, float32 [S], or [N, S] for a batch; None before the
            first action of an episode. Without a memory S is 0.
        batch: The network, with its distribution and normalisation, on stored observations [N, ...].
    """

    def __init__(self, batch: BatchPolicy, config: Config, env: Env, steps: int) -> None:
        """A policy that acts as ``batch`` does.

        Args:
            batch: The network.
            config: The config that it was trained with.
            env: An environment as evaluation makes it; only its spaces are looked at.
            steps: The environment steps that it was trained for.
        """
        self.batch, self.config, self.steps = batch, config, steps
        self._read = _Reader(env, read_paths(batch.model.encoder))
        self.observation_space = self._read.space
        packed = env.action_space
        self.action_space = packed.original if isinstance(packed, PackedActions) else packed
        self._packed = packed
        self._generator = torch.Generator()
        self.state: Array | None = None
        self.seed(0)

    def make_env(self, **kwargs: Any) -> Env:  # noqa: ANN401
        """The environment that the policy was trained in, in the wrappers of its evaluation.

        Args:
            **kwargs: Arguments of the environment over those in the config, such as ``render_mode="human"``.

        Raises:
            EnvError: It can't be made.
        """
        env = self.config.env
        arguments = {**env.kwargs, **kwargs}
        return make_env(
            env.id, arguments, env.wrappers,
            reset_options=env.reset_options, seed_below=env.seed_below, packed=False,
        )  # fmt: skip

    def act(
        self,
        observation: Any,  # noqa: ANN401
        mask: Any = None,  # noqa: ANN401
        state: npt.ArrayLike | None = None,
        deterministic: bool = True,
    ) -> Any:  # noqa: ANN401
        """The action for one observation, or the actions for a batch of them.

        A memory's state is kept from one call to the next, until `reset`; a state that is passed is used
        instead. The next one is in ``state``.

        Args:
            observation: As `observation_space` has it, a Dict or Tuple too; or N of them, as a Gymnasium
                vector environment returns them: every array has one axis more, [N, ...]. What only the
                critic sees may be missing, and is not looked at.
            mask: The legal actions, for a policy that was trained with the masks that an environment gives
                beside its observations: ``info["action_mask"]``, or what its ``action_masks()`` returns.
                Masks inside a Dict observation are obeyed without it.
            state: The memory's state, [S] or [N, S]; None for the one that is kept.
            deterministic: Whether to take the most probable action, or to sample; see `seed`.

        Returns:
            What the environment's ``step`` takes: an action, or a batch of actions.

        Raises:
            ValueError: The observation is not of the space, or a mask or a state does not fit.
        """
        rows, is_batch = self._read(observation, mask)
        stored, states = self.batch.act(
            rows, None if deterministic else self._generator, self._states(state, len(rows))
        )
        kept: Array = states.cpu().numpy()
        self.state = kept if is_batch else kept[0]
        actions = self.batch.distribution.to_env(stored)
        if isinstance(self._packed, PackedActions):
            return self._packed.nested(actions if is_batch else actions[0])
        return actions if is_batch else actions[0]

    def reset(self, ended: npt.ArrayLike | None = None) -> None:
        """Begins new episodes: the memory forgets what it has seen.

        Args:
            ended: Which of N environments begin anew, bool [N]; None for all.
        """
        if ended is None or self.state is None:
            self.state = None
        else:
            self.state = np.where(np.expand_dims(np.asarray(ended, bool), -1), np.float32(0), self.state)

    def seed(self, seed: int) -> None:
        """Seeds what ``act(…, deterministic=False)`` draws from."""
        self._generator.manual_seed(seed)

    def _states(self, passed: npt.ArrayLike | None, rows: int) -> torch.Tensor:
        """The memory's states before a batch, [N, S]."""
        initial = self.batch.initial_state
        given = self.state if passed is None else np.asarray(passed, np.float32)
        if given is None:
            return initial.repeat(rows, 1)
        if given.size != rows * len(initial):
            raise ValueError(
                f"a memory's state of shape {list(given.shape)} for {rows} observations: expected "
                f"[{rows}, {len(initial)}]; reset() begins new episodes"
            )
        return torch.as_tensor(given, device=initial.device).reshape(rows, len(initial))


class _Reader:
    """Reads observations as Gymnasium gives them into the rows that the network takes, [N, ...].

    Attributes:
        space: The space of one observation.
    """

    def __init__(self, env: Env, read: Collection[tuple[str | int, ...]]) -> None:
        """Takes the spaces of an environment, and the paths of the leaves that the policy reads."""
        self._stored = env.observation_space
        masked = _find_mask_wrapper(env)
        whole = getattr(self._stored, "original", self._stored)
        self.space: spaces.Space[Any] = whole if masked is None else masked.env.observation_space
        self._is_masked = masked is not None
        numbered = enumerate(leaves_of(self._stored))
        self._leaves = {number: leaf for number, leaf in numbered if leaf.path in read}
        self._checks = {
            number: ObservationCheck(leaf.space, leaf.dtype, leaf.key)
            for number, leaf in self._leaves.items()
        }

    def __call__(self, observation: Any, mask: Any) -> tuple[Array, bool]:  # noqa: ANN401
        """Rows [N, ...], and whether it was a batch.

        Raises:
            ValueError: The observation is not of the space, or masks are expected and not given.
        """
        if self._is_masked:
            observation = self._joined(observation, mask)
        elif mask is not None:
            raise ValueError("a mask is given, and the policy was trained without: leave it out")
        values = [as_array(self._value(leaf, observation)) for leaf in self._leaves.values()]
        first, shape = values[0], next(iter(self._leaves.values())).shape
        is_batch = np.ndim(first) == len(shape) + 1
        rows = len(first) if is_batch else 1
        stored = np.zeros((rows, *(self._stored.shape or ())), self._stored.dtype)
        packed = isinstance(self._stored, PackedObservations)
        views = self._stored.views(stored) if isinstance(self._stored, PackedObservations) else [stored]
        for (number, leaf), value in zip(self._leaves.items(), values, strict=True):
            view, check = views[number], self._checks[number]
            if is_batch and len(value) != rows:
                raise ValueError(f"an observation {leaf.key!r} of {len(value)} rows, not {rows}")
            for row in range(rows):
                one = value[row] if is_batch else value
                view[row] = check(one > 0 if packed and leaf.is_mask else one)
            if view.dtype.kind == "f" and not np.isfinite(view).all():
                raise ValueError("a NaN or an infinity in the observation")
        return stored, is_batch

    def _value(self, leaf: Leaf, observation: Any) -> Any:  # noqa: ANN401
        try:
            return leaf.of(observation)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"an observation without {leaf.key!r}: expected one of {flat(self.space)}"
            ) from error

    def _joined(self, observation: Any, mask: Any) -> dict[str, Any]:  # noqa: ANN401
        """The observation with the mask that stands beside it, as training has seen it."""
        if mask is None:
            raise ValueError(
                "the policy was trained with masks: pass the legal actions too, act(observation, "
                "mask=info['action_mask'])"
            )
        parts = observation if isinstance(self.space, spaces.Dict) else {"observation": observation}
        (leaf,) = (leaf for leaf in self._leaves.values() if leaf.is_mask)
        others = next(leaf for leaf in self._leaves.values() if not leaf.is_mask)
        is_batch = np.ndim(as_array(others.of(parts))) == len(others.shape) + 1
        flat = np.stack([flat_mask(each) for each in mask]) if is_batch else flat_mask(mask)
        if flat.shape[-1:] != leaf.shape:
            raise ValueError(f"a mask of shape {list(flat.shape)}: expected {list(leaf.shape)} a row")
        return {**parts, MASK: flat}


def _find_mask_wrapper(env: Env) -> ObservedMask | None:
    """The wrapper that puts masks into the observations, if there is one."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, ObservedMask):
            return env
        env = env.env
    return None


def load_policy(checkpoint: Path) -> Policy:
    """The policy that a checkpoint holds.

    Raises:
        CheckpointError: the file is not an intact checkpoint of a run.
        ConfigError: the config inside is not a valid one, or the network does not fit its environment.
        EnvError: the environment can't be made.
    """
    return restore_policy(load_run(checkpoint), checkpoint)


def restore_policy(
    saved: Checkpoint,
    checkpoint: Path,
    env_kwargs: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = logger.warning,
) -> Policy:
    """`load_policy` of what `load_run` gave for a file.

    Args:
        saved: The content of the checkpoint.
        checkpoint: The path of the file.
        env_kwargs: The arguments of the environment over those in the config.
        say: A function that is called with a line on each module that the config has imported.
    """
    try:
        device = _device_here(saved.config["device"])
        config = from_stored({**saved.config, "device": str(device)})
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint is not one of a run ({type(error).__name__}: {error})"
        ) from error
    for line in imports(config, checkpoint, trains=False):
        say(line)
    trained_on = config.env.kwargs
    config = replace(config, env=replace(config.env, kwargs={**trained_on, **(env_kwargs or {})}))
    with calls.closing(env_maker(config.env, n_envs=config.shard_envs)()) as env:
        here = trained = Spaces(env.observation_space, env.action_space)
        if env_kwargs:
            other = replace(config.env, kwargs=trained_on)
            trained = spaces_of(env_maker(other, n_envs=config.shard_envs))
        is_lacking = lacks_leaves(here.observation_space, trained.observation_space)
        fitting = here._replace(observation_space=trained.observation_space) if is_lacking else here
        try:
            model = build_model(config, fitting).to(device)
        except ValueError as error:
            raise ConfigError(flat(error)) from error
        try:
            _check_kinds(trained, fitting)
            complete = _completing(here, trained, model) if is_lacking else None
            model.load_state_dict(saved.model)
            flatten_parameters(model)  # the memory layout of training: the same kernels, the same bits
            normalizer, _ = build_normalizers(config, fitting.observation_space)
            if normalizer is not None:
                normalizer.statistics.load_state_dict(dict(saved.observation_statistics or {}))
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            has = " and ".join(
                f"{what} {getattr(space, 'original', space)}"
                for what, space in (("observations", here.observation_space), ("actions", here.action_space))
            )
            given = f"{config.env.id} with env.kwargs={config.env.kwargs}, which has {has}"
            raise ConfigError(f"the network does not fit {' '.join(given.split())}") from error
        batch = BatchPolicy(model, build_distribution(config, env.action_space), normalizer, complete)
        return Policy(batch, config, env, saved.steps)


def _device_here(name: str) -> torch.device:
    """The device of that name, or the CPU where this machine lacks it."""
    device = torch.device(resolve_device(name))
    lacking = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    return torch.device("cpu") if lacking else device


def _check_kinds(trained: Spaces, here: Spaces) -> None:
    """Raises ValueError where spaces differ in kind or shape, which not every network would show."""
    kinds = [
        (make_distribution(each.action_space).form, stored_observation(each.observation_space, False))
        for each in (trained, here)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError("other spaces than in training")


def _completing(here: Spaces, trained: Spaces, model: ActorCritic) -> Callable[[Array], Array]:
    """What puts zeros where observations lack what the actor does not see.

    Raises:
        ValueError: They lack more.
    """
    given, whole = here.observation_space, trained.observation_space
    lacking = read_paths(model.encoder) - {leaf.path for leaf in leaves_of(given)}
    if lacking:
        raise ValueError("observations lack what the policy sees")
    return partial(complete_rows, cast("PackedObservations", given), cast("PackedObservations", whole))
