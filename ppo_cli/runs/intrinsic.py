"""Intrinsic rewards of a run: what a config names for them, and the hook that gives them to each rollout."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppo_cli.config.schema import Config
from ppo_cli.errors import ConfigError, UserCodeError
from ppo_cli.hooks import TAG, Hook, RunState
from ppo_cli.import_path import check_options, load_class
from ppo_cli.intrinsic import INTRINSIC, IntrinsicReward, IntrinsicScale
from ppo_cli.normalize import stored_observation
from ppo_cli.rollout import Rollout
from ppo_cli.runs.algorithm import build_distribution
from ppo_cli.runs.checkpoint import plain_state
from ppo_cli.seeding import other_generators, spawn_seeds
from ppo_cli.spaces import Spaces, fill_blank
from ppo_cli.text import flat

CALLS = ("__init__", "rewards", "learn", "state_dict", "load_state_dict")
TRIED = 2  # steps and environments of the rollout that a class is tried with


class IntrinsicRewards(Hook):
    """Gives each rollout its intrinsic rewards, and has what gives them learn from it.

    What it draws comes from a stream of its own: the other bits of a run are those of one without it.
    """

    def __init__(self, name: str, source: IntrinsicReward, scale: IntrinsicScale, seed: int) -> None:
        """Takes what gives them.

        Args:
            name: The name in lines.
            source: What gives them.
            scale: What scales them.
            seed: The seed of the run.
        """
        self._name, self._source, self._scale, self._seed = name, source, scale, seed
        self._told: dict[str, float] = {}

    def after_rollout(self, run: RunState, rollout: Rollout) -> None:
        """Sets the rollout's ``intrinsic_rewards``."""
        self.give(run.iteration, rollout)

    def give(self, iteration: int, rollout: Rollout) -> None:
        """Sets the rollout's ``intrinsic_rewards``, in the iteration of that number."""
        seen = rollout.on_cpu()
        bonuses = self._bonuses(iteration, seen)
        learnt = self._call("learn", iteration, seen)
        rollout.intrinsic_rewards = self._scale(bonuses, seen.valid)
        own = {
            "intrinsic/reward": bonuses[seen.valid].mean().item(),
            "intrinsic/deviation": self._scale.deviation,
        }
        self._told = own | self._checked_numbers(learnt, own)

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Logs the mean bonus, what bonuses are divided by, and what was told while learning."""
        scalars |= self._told

    def state_dict(self) -> dict[str, Any]:
        """The state of what gives them and of what scales them.

        Raises:
            UserCodeError: It can't be held by a checkpoint.
        """
        state = self._call("state_dict", 0)
        try:
            return plain_state({"source": state, "scale": self._scale.state_dict()})
        except TypeError as error:
            raise UserCodeError(f"intrinsic={self._name}: state_dict: {error}") from error

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets what `state_dict` gave."""
        self._call("load_state_dict", 0, state["source"])
        self._scale.load_state_dict(state["scale"])

    def _bonuses(self, iteration: int, rollout: Rollout) -> Tensor:
        """The bonuses [T, N], float.

        Raises:
            UserCodeError: They are no finite numbers of that shape.
        """
        bonuses, expected = self._call("rewards", iteration, rollout), (rollout.n_steps, rollout.n_envs)
        if not isinstance(bonuses, Tensor) or tuple(bonuses.shape) != expected:
            shown = list(bonuses.shape) if isinstance(bonuses, Tensor) else type(bonuses).__name__
            raise UserCodeError(
                f"intrinsic={self._name}: rewards returned {shown}: expected a tensor {list(expected)}"
            )
        bonuses = bonuses.detach().float().cpu()
        if not torch.isfinite(bonuses[rollout.valid]).all():
            raise UserCodeError(f"intrinsic={self._name}: rewards returned a number that is not finite")
        return bonuses

    def _checked_numbers(self, learnt: Any, own: Collection[str]) -> dict[str, float]:  # noqa: ANN401
        """What was told while learning, by tag, none of which is one of our ``own``.

        Raises:
            UserCodeError: It is no numbers, or a tag can't be one of theirs.
        """
        where = f"intrinsic={self._name}: learn returned {flat(repr(learnt))}"
        try:
            numbers = {f"intrinsic/{key}": float(value) for key, value in (learnt or {}).items()}
        except Exception:  # whatever the user's class returns
            raise UserCodeError(f"{where}: expected numbers by name") from None
        for tag in numbers:
            if not TAG.fullmatch(tag):
                raise UserCodeError(f"{where}: expected names of at most 190 letters, digits and _ . / -")
            if tag in own:
                raise UserCodeError(f"{where}: {tag} is logged already; choose another name")
        return numbers

    def _call(self, method: str, iteration: int, *arguments: Any) -> Any:  # noqa: ANN401
        """What a method of the source returns, called with generators of its own."""
        with other_generators(_seed(self._seed, method, iteration)):
            try:
                return getattr(self._source, method)(*arguments)
            except Exception as error:  # whatever a class of the user's raises
                what = f"{method} raised {type(error).__name__}: {flat(error)}"
                raise UserCodeError(f"intrinsic={self._name}: {what}") from error


def make_intrinsic(config: Config, spaces: Spaces) -> IntrinsicRewards | None:
    """The hook that gives the intrinsic rewards that a config asks for; None where it asks for none.

    Raises:
        ConfigError: There is no such class, or it does not take the options.
    """
    name, options = config.intrinsic.replace(":", "."), config.intrinsic_kwargs
    if name == "none":
        return None
    try:
        kind = INTRINSIC.get(name) or load_class(
            name, IntrinsicReward, ["none", *INTRINSIC], "intrinsic reward"
        )
        check_options(kind, name, ["spaces", "device"], options)
    except ValueError as error:
        raise ConfigError(f"intrinsic={config.intrinsic}: {error}") from error
    with other_generators(_seed(config.seed, "__init__", 0)):
        try:
            source = kind(spaces, torch.device(config.device_name), **options)
        except Exception as error:  # whatever a class of the user's raises
            raised = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ConfigError(f"intrinsic={config.intrinsic}: {flat(raised)}") from error
    scale = IntrinsicScale(config.n_envs, config.intrinsic_gamma)
    return IntrinsicRewards(name, source, scale, config.seed)


def try_intrinsic(config: Config, spaces: Spaces) -> None:
    """Gives intrinsic rewards to a small rollout, so that what can't is refused before a run begins.

    Raises:
        ConfigError: They can't be given as the config asks; one line that says why.
    """
    tried = make_intrinsic(replace(config, n_envs=TRIED), spaces)
    if tried is None:
        return
    try:
        tried.give(0, _tried_rollout(config, spaces))
        tried.load_state_dict(tried.state_dict())
    except UserCodeError as error:
        raise ConfigError(str(error)) from error


def _tried_rollout(config: Config, spaces: Spaces) -> Rollout:
    """A small rollout whose observations lie in their space."""
    space, distribution = spaces.observation_space, build_distribution(config, spaces.action_space)
    shape, dtype = stored_observation(space, config.normalize.observations)
    rollout = Rollout(TRIED, TRIED, shape, dtype, distribution.action_shape, distribution.action_dtype)
    fill_blank(rollout.observations.numpy(), space)
    return rollout


def _seed(seed: int, method: str, iteration: int) -> int:
    return spawn_seeds(seed, "intrinsic", 1, iteration, CALLS.index(method))[0]
