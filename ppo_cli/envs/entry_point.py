"""Vectors of environments as they come: what Gymnasium's `make_vec` makes, and what an import path names."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from ppo_cli.envs.batch_infos import BatchTally, mask_of, reported_returns
from ppo_cli.envs.batch_masks import ACTIVE, active_of, added_masks
from ppo_cli.envs.batches import ObservationBatch, chosen
from ppo_cli.envs.calls import Call, calling, let_interrupt_pass
from ppo_cli.envs.group import EnvFaultError, explain
from ppo_cli.envs.infos import NOTHING, Wanted
from ppo_cli.envs.named import Lent, Vectors, make_registered, make_vectors, maker_of
from ppo_cli.envs.one_of import OneOf
from ppo_cli.envs.pack import as_array
from ppo_cli.envs.vector import Array, Recipe, StepResult, Vector
from ppo_cli.errors import EnvError
from ppo_cli.spaces import MASK, PackedActions, PackedObservations, Spaces
from ppo_cli.text import flat

ADVICE = "use vectorization=auto, which steps single environments"


class EntryPointVector(Vector):
    """A `VectorEnv` of somebody else's behind the interface of the other backends.

    Its environments reset as its metadata say:

    - `AutoresetMode.SAME_STEP`: in the step in which an episode ends, as the other backends do;
    - `AutoresetMode.DISABLED`: when they are told to, which is done in that step too, by its mask;
    - `AutoresetMode.NEXT_STEP`: one step later. The observation that comes with an end is the true final one,
      and the next step ignores the action.

    Where ``infos["active_mask"]``, bool [N], comes with observations, the others' next steps are none of
    theirs: agents that have died wait for the next episode of their world. Steps that only reset, and those
    of who is not active, are marked in ``infos["filler"]``; they are no transitions. ``infos["idle"]`` has
    those whose next step is one.

    Attributes:
        followed: The environments whose infos of ended episodes are kept, bool [N].
    """

    backend = "entry_point"

    def __init__(self, env_id: str, envs: Vectors, spaces: Spaces, infos: Wanted = NOTHING) -> None:
        """Takes a vector, which it closes at the end.

        Args:
            env_id: The id of the environments.
            envs: The vector.
            spaces: The spaces of the same environment on its own.
            infos: The keys of ``info`` that are followed.

        Raises:
            EnvError: its environments are others than single ones are.
        """
        n = envs.num_envs
        super().__init__(n, spaces, "none")
        self._envs = envs
        self._masks = added_masks(spaces, envs.single_observation_space, n)
        try:
            self._mode = _autoreset_mode(env_id, self._envs)
            _check_spaces(env_id, self._envs, spaces, self._masks is not None)
        except EnvError:
            self.close()
            raise
        self._fills = self._mode == AutoresetMode.NEXT_STEP
        if self._fills:
            self.metadata = {"autoreset_mode": self._mode}
        self._batch = ObservationBatch(*spaces, n)
        self._nobody = self._idle = self._over = np.zeros(n, np.bool_)
        self._tally = BatchTally(infos, n)
        self.followed = ~self._nobody

    @classmethod
    def check(cls, recipe: Recipe, env: "gym.Env[Any, Any]") -> None:
        """Raises EnvError where there is no vector entry point, or what it makes does not fit."""
        if isinstance(env.unwrapped, OneOf):
            envs = Lent(env.unwrapped.envs)
        else:
            envs = _make(recipe.env_id, max(1, len(recipe.makes)), recipe.kwargs)
        with closing(cls(recipe.env_id, envs, recipe.spaces)) as made:
            if made._masks is not None:
                _try_reset(recipe.env_id, made)

    @classmethod
    def of(cls, recipe: Recipe) -> "EntryPointVector":
        """The vector that a recipe describes."""
        envs = _make(recipe.env_id, len(recipe.makes), recipe.kwargs)
        return cls(recipe.env_id, envs, recipe.spaces, recipe.infos)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Starts the first episodes.

        Of several seeds the vector is given the first: `VectorEnv` promises to take one for all.
        """
        one = seed if seed is None or isinstance(seed, int) else seed[0]
        self._tally.begin()
        with calling(Call.RESET):
            try:
                observations, infos = self._envs.reset(seed=one, options=options)
                self._begin(infos if isinstance(infos, dict) else {})
                self._last = self._batch(self._whole(observations), self._idle)
            except BaseException as error:
                raise _fault(error) from error
        return self._last, {}

    def _begin(self, infos: Mapping[str, Any]) -> None:
        """Takes in the infos of a reset of all."""
        active = self._active(infos)
        self._idle = self._nobody if active is None else ~active
        self._take_masks(infos, ~self._nobody)

    def _active(self, infos: Mapping[str, Any]) -> Array | None:
        """Whose next step is a transition, as infos say, bool [N]."""
        active = active_of(infos, self.num_envs)
        if active is not None and self._mode == AutoresetMode.DISABLED:
            raise ValueError(f"'{ACTIVE}' in infos, which goes with autoreset modes NEXT_STEP and SAME_STEP")
        return active

    def _whole(self, observations: Any) -> Any:  # noqa: ANN401
        """Observations with the masks that stand beside them."""
        return observations if self._masks is None else self._masks(observations)

    def snapshot(self) -> None:
        """None: what stands behind an entry point can't be brought back."""

    def take_infos(self) -> list[dict[str, float]]:
        """What the infos of episodes that ended came to since the last call, episode by episode."""
        taken, self._tally.ended = self._tally.ended, []
        return taken

    def cut(self, rows: Array) -> None:
        """Takes the running episodes of some environments, bool [N], as ended, for what infos tell of them."""
        self._tally.end(rows, rows)

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
        filler, active = self._idle, self._active(infos)
        ended = self._ends(terminated, truncated, filler, active)
        rewards[filler] = 0.0  # some give one there
        if not np.isfinite(rewards).all():
            raise ValueError(
                f"a NaN or an infinity as the reward of environment {np.isfinite(rewards).argmin()}"
            )
        told = self._follow(infos, filler, ended)
        if self._fills or active is not None or filler.any():
            told |= {"filler": filler, "idle": self._idle}
        rows = ~self._nobody  # whose masks are in infos
        if (final := self._final_in(infos, ended)).any():
            told |= {"final_obs": self._final(observations, infos, final), "_final_obs": ended}
            if self._mode == AutoresetMode.DISABLED:
                self._take_masks(infos, ~ended)
                observations, infos = self._envs.reset(options={"reset_mask": ended.copy()})
                rows = ended
        self._take_masks(infos, rows)
        self._last = self._batch(self._whole(observations), self._idle)
        return self._last, rewards, terminated, truncated, told

    def _ends(self, terminated: Array, truncated: Array, filler: Array, active: Array | None) -> Array:
        """Whose episodes ended, bool [N]; takes note of who idles from here on.

        Ends of who was not active, which some repeat until the next episode, are taken out of the arrays.
        """
        if self._fills and active is None and (twice := filler & self._over & (terminated | truncated)).any():
            raise ValueError(f"an end in the step that only resets environment {twice.argmax()}")
        terminated &= ~filler
        truncated &= ~filler
        ended: Array = terminated | truncated
        self._over = ended
        idle = self._nobody if active is None else ~active
        if (gone := idle & ~ended & ~filler).any():
            raise ValueError(f"an {ACTIVE} without environment {gone.argmax()}, whose episode has not ended")
        self._idle = idle | ended if self._fills else idle
        return ended

    def _follow(self, infos: Mapping[str, Any], filler: Array, ended: Array) -> dict[str, Any]:
        """Takes in what infos tell; what `RecordEpisodeStatistics` reported there goes to the statistics."""
        self._tally.step(~filler)
        last, counted = infos, ~filler
        begun = ended & ~self._idle
        if self._mode == AutoresetMode.SAME_STEP and begun.any():
            last = infos.get("final_info", {})  # those beside are of the episode that began
            self._tally.add(last, begun)
            counted = counted & ~begun
        self._tally.add(infos, counted)
        if not ended.any():
            return {}
        self._tally.end(ended, self.followed)
        # a wrapper of single environments reports in the final infos, one around the vector beside them
        for place in (last, infos):
            if (returns := reported_returns(place, ended)) is not None:
                return {"env_over": ended, "returns": returns}
        return {}

    def _final_in(self, infos: Mapping[str, Any], ended: Array) -> Array:
        """Whose episode has ended with another observation than the one beside, bool [N].

        Raises:
            ValueError: infos lack it.
        """
        if self._fills or not ended.any():
            return self._nobody
        begun: Array = ended & ~self._idle
        if self._mode == AutoresetMode.SAME_STEP and "final_obs" in infos:
            told = mask_of("final_obs", infos, self.num_envs)
            return begun if told is None else begun | (ended & told)
        if self._mode == AutoresetMode.SAME_STEP and begun.any():
            raise ValueError("an episode's end without 'final_obs' in infos, in autoreset mode SAME_STEP")
        return begun

    def _final(self, observations: Any, infos: Mapping[str, Any], rows: Array) -> Array:  # noqa: ANN401
        """The final observations of some environments, and what the others observe, [N, *shape]."""
        if self._mode == AutoresetMode.SAME_STEP:
            space = self._envs.single_observation_space
            return self._batch(self._whole(chosen(space, infos["final_obs"], rows, observations)), rows)
        # a copy: the reset may write into the same memory
        return self._batch(self._whole(observations), rows).copy()

    def _take_masks(self, infos: Any, rows: Array) -> None:  # noqa: ANN401
        if self._masks is not None:
            self._masks.take(infos if isinstance(infos, dict) else {}, rows, self._idle)

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


def _make(env_id: str, n: int, kwargs: Mapping[str, Any]) -> Vectors:
    """What the id's vector entry point makes, or what the id names."""
    maker = maker_of(env_id)
    if maker is None:
        registered = env_id.rpartition(":")[2]
        if gym.spec(registered).vector_entry_point is None:
            raise EnvError(f"vectorization=entry_point: {env_id} has no vector entry point; {ADVICE}")
        maker = partial(make_registered, registered)
    return make_vectors(env_id, maker, n, kwargs)


def _try_reset(env_id: str, envs: EntryPointVector) -> None:
    """Raises EnvError where the first observations can't be had as the run will have them."""
    try:
        envs.reset(seed=0)
    except EnvFaultError as fault:
        raise EnvError(f"vectorization=entry_point: {env_id}: {fault}") from fault


def _autoreset_mode(env_id: str, envs: Vectors) -> AutoresetMode:
    """When the environments are reset, as their metadata say."""
    try:
        return AutoresetMode(envs.metadata.get("autoreset_mode"))
    except ValueError as unknown:
        raise EnvError(
            f"vectorization=entry_point: the vector of {env_id} does not say when it resets: expected "
            f"metadata['autoreset_mode'] to be a gymnasium.vector.AutoresetMode; {ADVICE}"
        ) from unknown


def _check_spaces(env_id: str, envs: Vectors, single: Spaces, has_masks: bool) -> None:
    """Raises EnvError where the vector's spaces are others than those of a single environment."""
    for name, given, expected in (
        ("observations", envs.single_observation_space, single.observation_space),
        ("actions", envs.single_action_space, single.action_space),
    ):
        if isinstance(expected, (PackedObservations, PackedActions)):
            expected = expected.original
        if has_masks and name == "observations":
            parts = {key: space for key, space in expected.items() if key != MASK}
            expected = gym.spaces.Dict(parts) if isinstance(given, gym.spaces.Dict) else parts["observation"]
        if given != expected:
            raise EnvError(
                f"vectorization=entry_point: the vector of {env_id} has {name} of {flat(given)}, and a "
                f"single environment, in which it is evaluated, has {flat(expected)}; {ADVICE}"
            )


def _fault(error: BaseException) -> BaseException:
    """What ends the run."""
    let_interrupt_pass(error)
    return EnvFaultError(f"the vector of environments {explain(error)}")
