"""Vectors of environments as they come: what Gymnasium's `make_vec` makes of an id's vector entry point."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from ppo_cli.arrays import as_array
from ppo_cli.envs.batch_infos import BatchTally, reported_returns
from ppo_cli.envs.batches import ObservationBatch
from ppo_cli.envs.calls import Call, calling, let_interrupt_pass
from ppo_cli.envs.group import EnvFaultError, explain
from ppo_cli.envs.infos import NOTHING, Wanted
from ppo_cli.envs.vector import Array, Recipe, StepResult, Vector
from ppo_cli.errors import EnvError
from ppo_cli.spaces import PackedActions, PackedObservations, Spaces
from ppo_cli.text import flat

ADVICE = "use vectorization=auto, which steps single environments"


class EntryPointVector(Vector):
    """A `VectorEnv` of somebody else's behind the interface of the other backends.

    Its environments reset as its metadata say:

    - `AutoresetMode.SAME_STEP`: in the step in which an episode ends, as the other backends do;
    - `AutoresetMode.DISABLED`: when they are told to, which is done in that step too, by its mask;
    - `AutoresetMode.NEXT_STEP`: one step later. The observation that comes with an end is the true final one,
      and the next step ignores the action. Such rows are marked in ``infos["filler"]``; they are no
      transitions.
    """

    backend = "entry_point"

    def __init__(
        self, env_id: str, n: int, spaces: Spaces, kwargs: Mapping[str, Any], infos: Wanted = NOTHING
    ) -> None:
        """Makes the environments.

        Args:
            env_id: An id with a vector entry point.
            n: The number of environments.
            spaces: The spaces of the same environment on its own.
            kwargs: The arguments of the environments.
            infos: The keys of ``info`` that are followed.

        Raises:
            EnvError: they can't be made, or are others than single ones are.
        """
        super().__init__(n, spaces, "none")
        self._envs = _make(env_id, n, kwargs)
        try:
            self._mode = _autoreset_mode(env_id, self._envs)
            _check_spaces(env_id, self._envs, spaces)
        except EnvError:
            self.close()
            raise
        if self._mode == AutoresetMode.NEXT_STEP:
            self.metadata = {"autoreset_mode": self._mode}
        self._batch = ObservationBatch(*spaces, n)
        self._nobody = np.zeros(n, np.bool_)
        self._tally = BatchTally(infos, n)

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Raises EnvError where there is no vector entry point, or what it makes does not fit."""
        cls(recipe.env_id, 1, recipe.spaces, recipe.kwargs).close()

    @classmethod
    def of(cls, recipe: Recipe) -> "EntryPointVector":
        """The vector that a recipe describes."""
        return cls(recipe.env_id, len(recipe.makes), recipe.spaces, recipe.kwargs, recipe.infos)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Starts the first episodes.

        Of several seeds the vector is given the first: `VectorEnv` promises to take one for all.
        """
        one = seed if seed is None or isinstance(seed, int) else seed[0]
        self._ended = self._nobody
        self._tally.begin()
        with calling(Call.RESET):
            try:
                observations, _ = self._envs.reset(seed=one, options=options)
                self._last = self._batch(observations, self._nobody)
            except BaseException as error:
                raise _fault(error) from error
        return self._last, {}

    def snapshot(self) -> None:
        """None: what stands behind an entry point can't be brought back."""

    def take_infos(self) -> list[dict[str, float]]:
        """What the infos of episodes that ended came to since the last call, episode by episode."""
        taken, self._tally.ended = self._tally.ended, []
        return taken

    @property
    def observations(self) -> Array:
        """What each environment returned last, [N, *shape]."""
        return self._last

    def step(self, actions: Array) -> StepResult:
        """Steps every environment with its action, [N, *shape].

        Raises:
            EnvFaultError: the vector raised, or returned what is no step.
        """
        with calling(Call.STEP):
            try:
                return self._step(actions)
            except BaseException as error:
                raise _fault(error) from error

    def _step(self, actions: Array) -> StepResult:
        space = self.single_action_space
        sent = space.nested(actions) if isinstance(space, PackedActions) else actions
        observations, rewards, terminated, truncated, infos = self._envs.step(sent)
        infos = infos if isinstance(infos, dict) else {}
        rewards = self._column("rewards", rewards, np.float64)
        terminated = self._column("terminations", terminated, np.bool_)
        truncated = self._column("truncations", truncated, np.bool_)
        filler, self._ended = self._ended, terminated | truncated
        if self._mode == AutoresetMode.NEXT_STEP:
            rewards[filler] = 0.0  # some give one there
            if (twice := filler & self._ended).any():
                raise ValueError(f"an end in the step that only resets environment {twice.argmax()}")
        if not np.isfinite(rewards).all():
            raise ValueError(
                f"a NaN or an infinity as the reward of environment {np.isfinite(rewards).argmin()}"
            )
        told = self._follow(infos, filler)
        if self._mode == AutoresetMode.NEXT_STEP:
            self._last = self._batch(observations, self._ended)
            return self._last, rewards, terminated, truncated, told | {"filler": filler}
        if self._ended.any():
            observations, told["final_obs"] = self._restarted(observations, infos)
            told["_final_obs"] = self._ended
        self._last = self._batch(observations, self._nobody)
        return self._last, rewards, terminated, truncated, told

    def _follow(self, infos: Mapping[str, Any], filler: Array) -> dict[str, Any]:
        """Takes in what infos tell; what `RecordEpisodeStatistics` reported there goes to the statistics."""
        ended = self._ended
        counted = ~filler if self._mode == AutoresetMode.NEXT_STEP else ~self._nobody
        self._tally.step(counted)
        last: Any = infos
        if self._mode == AutoresetMode.SAME_STEP:  # the infos beside are of the episode that began
            last = infos.get("final_info")
            self._tally.add(last, ended)
            counted = ~ended
        self._tally.add(infos, counted)
        if not ended.any():
            return {}
        self._tally.end(ended)
        # a wrapper of single environments reports in the final infos, one around the vector beside them
        for place in (last, infos):
            if (returns := reported_returns(place, ended)) is not None:
                return {"env_over": ended, "returns": returns}
        return {}

    def _restarted(self, observations: Any, infos: Mapping[str, Any]) -> tuple[Any, Array]:  # noqa: ANN401
        """The observations with which episodes begin where some ended, and the final ones, [N, *shape]."""
        if self._mode == AutoresetMode.DISABLED:
            final = self._batch(observations, self._ended).copy()  # the reset may write into the same memory
            return self._envs.reset(options={"reset_mask": self._ended.copy()})[0], final
        if "final_obs" not in infos:
            raise ValueError("an episode's end without 'final_obs' in infos, in autoreset mode SAME_STEP")
        return observations, self._batch.final(infos["final_obs"], self._ended, observations)

    def _column(self, name: str, values: Any, dtype: type) -> Array:  # noqa: ANN401
        """One number an environment, [N], a copy: a reset within the step may write into the same memory."""
        column: Array = np.array(as_array(values), dtype)
        if column.shape != (self.num_envs,):
            raise ValueError(f"{name} of shape {column.shape}, where ({self.num_envs},) is expected")
        return column

    def close_extras(self, **_: object) -> None:
        """Closes the environments; what they raise then ends nothing."""
        with calling(Call.CLOSE):
            try:
                self._envs.close()
            except BaseException as error:
                let_interrupt_pass(error)


def _make(env_id: str, n: int, kwargs: Mapping[str, Any]) -> "VectorEnv[Any, Any, Any]":
    """What the id's vector entry point makes."""
    spec = gym.spec(env_id.rpartition(":")[2])
    if spec.vector_entry_point is None:
        raise EnvError(f"vectorization=entry_point: {env_id} has no vector entry point; {ADVICE}")
    try:
        with calling(Call.MAKE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, which are looked at below
            return gym.make_vec(spec.id, num_envs=n, vectorization_mode="vector_entry_point", **dict(kwargs))
    except BaseException as refused:  # environments check their arguments in every way there is
        let_interrupt_pass(refused)
        given = f" with env.kwargs={dict(kwargs)}" if kwargs else ""
        reason = f"{type(refused).__name__}: {flat(refused)}"
        raise EnvError(
            f"vectorization=entry_point: {env_id} can't be made{given}: {reason}; {ADVICE}"
        ) from refused


def _autoreset_mode(env_id: str, envs: "VectorEnv[Any, Any, Any]") -> AutoresetMode:
    """When the environments are reset, as their metadata say."""
    try:
        return AutoresetMode(envs.metadata.get("autoreset_mode"))
    except ValueError as unknown:
        raise EnvError(
            f"vectorization=entry_point: the vector of {env_id} does not say when it resets: expected "
            f"metadata['autoreset_mode'] to be a gymnasium.vector.AutoresetMode; {ADVICE}"
        ) from unknown


def _check_spaces(env_id: str, envs: "VectorEnv[Any, Any, Any]", single: Spaces) -> None:
    """Raises EnvError where the vector's spaces are others than those of a single environment."""
    for name, given, expected in (
        ("observations", envs.single_observation_space, single.observation_space),
        ("actions", envs.single_action_space, single.action_space),
    ):
        if isinstance(expected, (PackedObservations, PackedActions)):
            expected = expected.original
        if given != expected:
            raise EnvError(
                f"vectorization=entry_point: the vector of {env_id} has {name} of {flat(given)}, and a "
                f"single environment, in which it is evaluated, has {flat(expected)}; {ADVICE}"
            )


def _fault(error: BaseException) -> BaseException:
    """What ends the run."""
    let_interrupt_pass(error)
    return EnvFaultError(f"the vector of environments {explain(error)}")
