"""Vectors of environments as they come: what Gymnasium's `make_vec` makes, and what an import path names."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode

from ppo_cli.arrays import NUMPY, Arrays
from ppo_cli.envs.batch_infos import BatchTally, mask_of, reported_returns
from ppo_cli.envs.batch_masks import Activity, added_masks
from ppo_cli.envs.batches import ObservationBatch, chosen
from ppo_cli.envs.calls import Call, calling, let_interrupt_pass
from ppo_cli.envs.group import EnvFaultError, explain
from ppo_cli.envs.infos import NOTHING, Wanted
from ppo_cli.envs.named import Lent, Vectors, make_registered, make_vectors, maker_of
from ppo_cli.envs.one_of import OneOf
from ppo_cli.envs.vector import Array, Recipe, StepResult, Vector
from ppo_cli.errors import EnvError
from ppo_cli.spaces import MASK, PackedActions, PackedObservations, Spaces, walk
from ppo_cli.text import flat

ADVICE = "use vectorization=auto, which steps single environments"


class EntryPointVector(Vector):
    """A `VectorEnv` of somebody else's behind the interface of the other backends.

    Its environments reset as its metadata say:

    - `AutoresetMode.SAME_STEP`: in the step in which an episode ends, as the other backends do;
    - `AutoresetMode.DISABLED`: when they are told to, which is done in that step too, by its mask;
    - `AutoresetMode.NEXT_STEP`: one step later. The observation that comes with an end is the true final one,
      and the next step ignores the action.

    Steps that are no transitions, see `Activity`, are marked in ``infos["filler"]``, and whose next step will
    be none in ``infos["idle"]``.

    Attributes:
        followed: The environments whose infos of ended episodes are kept, bool [N].
    """

    backend = "entry_point"

    def __init__(
        self, env_id: str, envs: Vectors, spaces: Spaces, infos: Wanted = NOTHING, device: str = "cpu"
    ) -> None:
        """Takes a vector, which it closes at the end.

        Args:
            env_id: The id of the environments.
            envs: The vector.
            spaces: The spaces of the same environment on its own.
            infos: The keys of ``info`` that are followed.
            device: The device of the run, to which tensors are brought.

        Raises:
            EnvError: its environments are others than single ones are.
        """
        n = envs.num_envs
        super().__init__(n, spaces, "none")
        self._envs, self._spaces, self._infos, self._device = envs, spaces, infos, device
        self._given = envs.single_observation_space
        masks = added_masks(spaces, self._given, n)
        try:
            self._mode = _autoreset_mode(env_id, self._envs)
            _check_spaces(env_id, self._envs, spaces, masks is not None)
        except EnvError:
            self.close()
            raise
        if self._mode == AutoresetMode.NEXT_STEP:
            self.metadata = {"autoreset_mode": self._mode}
        self._batch = ObservationBatch(*spaces, n, masks)
        self._take_kind(NUMPY)

    def _take_kind(self, arrays: Arrays) -> None:
        """Has what is followed from step to step be of a kind."""
        n, self.arrays = self.num_envs, arrays
        self._activity = Activity(n, self._mode, arrays)
        self._tally = BatchTally(self._infos, n, arrays)
        self._everybody = self.followed = ~arrays.zeros(n, "bool")

    def _look(self, observations: Any) -> None:  # noqa: ANN401
        """Finds out at the first observations whether they are tensors, and where."""
        first = observations
        for step in next(walk(self._given))[0]:
            first = first[step]
        if self.arrays is not NUMPY or not hasattr(first, "detach"):
            return
        from ppo_cli.envs.tensor_batches import TensorBatch  # late, since it imports PyTorch
        from ppo_cli.tensors import Tensors

        tensors = Tensors(self._device, first.device)
        self._take_kind(tensors)
        masks = added_masks(self._spaces, self._given, self.num_envs, tensors)
        self._batch = TensorBatch(*self._spaces, self.num_envs, masks, tensors)

    @classmethod
    def check(cls, recipe: Recipe, env: "gym.Env[Any, Any]") -> None:
        """Raises EnvError where there is no vector entry point, or what it makes does not fit."""
        if isinstance(env.unwrapped, OneOf):
            envs = Lent(env.unwrapped.envs)
        else:
            envs = _make(recipe.env_id, max(1, len(recipe.makes)), recipe.kwargs)
        with closing(cls(recipe.env_id, envs, recipe.spaces)) as made:
            if added_masks(recipe.spaces, envs.single_observation_space, 1) is not None:
                _try_reset(recipe.env_id, made)

    @classmethod
    def of(cls, recipe: Recipe) -> "EntryPointVector":
        """The vector that a recipe describes."""
        envs = _make(recipe.env_id, len(recipe.makes), recipe.kwargs)
        return cls(recipe.env_id, envs, recipe.spaces, recipe.infos, recipe.device)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Starts the first episodes.

        Of several seeds the vector is given the first: `VectorEnv` promises to take one for all.
        """
        one = seed if seed is None or isinstance(seed, int) else seed[0]
        with calling(Call.RESET):
            try:
                observations, infos = self._envs.reset(seed=one, options=options)
                self._look(observations)
                self._tally.begin()
                self._activity.begin(infos if isinstance(infos, dict) else {})
                self._batch.take_masks(infos, self._everybody, self._activity.idle)
                self._last = self._batch(observations, self._activity.idle)
            except BaseException as error:
                raise _fault(error) from error
        return self._last, {}

    def snapshot(self) -> None:
        """None: what stands behind an entry point can't be brought back."""

    def take_infos(self) -> list[dict[str, float]]:
        """What the infos of episodes that ended came to since the last call, episode by episode."""
        with calling(Call.STEP):
            try:
                self.arrays.check()
            except BaseException as error:
                raise _fault(error) from error
        return self._tally.take()

    def cut(self, rows: Array) -> None:
        """Takes the running episodes of some environments, bool [N], as ended: infos of them are kept."""
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
        arrays = self.arrays
        sent = space.nested(actions, arrays) if isinstance(space, PackedActions) else actions
        observations, rewards, terminated, truncated, infos = self._envs.step(arrays.sent(sent))
        infos = infos if isinstance(infos, dict) else {}
        rewards = self._column("rewards", rewards, "float64")
        terminated = self._column("terminations", terminated, "bool")
        truncated = self._column("truncations", truncated, "bool")
        filler, ended, activity = self._activity.step(terminated, truncated, infos)
        idle, rows = self._activity.idle, self._everybody  # rows: whose masks are in infos
        arrays.clear(rewards, filler)  # some give one there
        arrays.require(arrays.isfinite(rewards), "a NaN or an infinity as the reward of {}")
        told = self._follow(infos, filler, ended) | activity
        final = self._final_in(infos, ended, idle)
        if self._has_final(infos, final):
            told |= {"final_obs": self._final(observations, infos, final), "_final_obs": ended}
            if self._mode == AutoresetMode.DISABLED:
                self._batch.take_masks(infos, ~ended, idle)
                observations, infos = self._envs.reset(
                    options={"reset_mask": arrays.sent(arrays.copy(ended))}
                )
                rows = ended
        self._batch.take_masks(infos, rows, idle)
        self._last = self._batch(observations, idle)
        return self._last, rewards, terminated, truncated, told

    def _follow(self, infos: Mapping[str, Any], filler: Array, ended: Array) -> dict[str, Any]:
        """Takes in what infos tell; what `RecordEpisodeStatistics` reported there goes to the statistics."""
        self._tally.step(~filler)
        last, counted = infos, ~filler
        begun = ended & ~self._activity.idle
        if self._mode == AutoresetMode.SAME_STEP and self.arrays.is_any(begun):
            last = infos.get("final_info", {})  # those beside are of the episode that began
            self._tally.add(last, begun)
            counted = counted & ~begun
        self._tally.add(infos, counted)
        if not self.arrays.is_any(ended):
            return {}
        self._tally.end(ended, self.followed)
        # a wrapper of single environments reports in the final infos, one around the vector beside them
        for place in (last, infos):
            if (returns := reported_returns(place, ended, self.arrays)) is not None:
                return {"env_over": ended, "returns": returns}
        return {}

    def _final(self, observations: Any, infos: Mapping[str, Any], rows: Array) -> Array:  # noqa: ANN401
        """The final observations of some environments, and what the others observe, [N, *shape]."""
        if self._mode == AutoresetMode.SAME_STEP:
            found = chosen(self._given, infos["final_obs"], rows, observations, self.arrays)
            return self._batch(found, self._everybody)
        # a copy: the reset may write into the same memory
        return self.arrays.copy(self._batch(observations, self._everybody))

    def _final_in(self, infos: Mapping[str, Any], ended: Array, idle: Array) -> Array:
        """Whose episode has ended with another observation than the one beside, bool [N].

        Raises:
            ValueError: infos lack it.
        """
        begun: Array = ended & ~idle
        if self._mode != AutoresetMode.SAME_STEP or not self.arrays.is_any(ended):
            return begun
        if "final_obs" in infos:
            told = mask_of("final_obs", infos, len(ended), self.arrays)
            return begun if told is None else begun | (ended & told)
        self.arrays.require(
            ~begun, "an episode's end without 'final_obs' in infos, in autoreset mode SAME_STEP, of {}"
        )
        return begun

    def _has_final(self, infos: Mapping[str, Any], final: Array) -> bool:
        """Whether there are any; without waiting for a device, but where it is to be told whom to reset."""
        if self._mode == AutoresetMode.DISABLED:
            return bool(final.any())
        is_same = self._mode == AutoresetMode.SAME_STEP
        return is_same and "final_obs" in infos and self.arrays.is_any(final)

    def _column(self, name: str, values: Any, dtype: str) -> Array:  # noqa: ANN401
        """One number an environment, [N], a copy: a reset within the step may write into the same memory."""
        column = self.arrays.own(values, dtype)
        if tuple(column.shape) != (self.num_envs,):
            raise ValueError(f"{name} of shape {tuple(column.shape)}, where ({self.num_envs},) is expected")
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
    if (maker := maker_of(env_id)) is not None:
        return make_vectors(env_id, maker, n, kwargs)
    registered = env_id.rpartition(":")[2]
    if gym.spec(registered).vector_entry_point is None:
        raise EnvError(f"vectorization=entry_point: {env_id} has no vector entry point; {ADVICE}")
    try:
        return make_vectors(env_id, partial(make_registered, registered), n, kwargs)
    except EnvError as error:
        raise EnvError(f"vectorization=entry_point: {error}; {ADVICE}") from error


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
        advice = "" if maker_of(env_id) is not None else f"; {ADVICE}"
        raise EnvError(
            f"vectorization=entry_point: the vector of {env_id} does not say when it resets: expected "
            f"metadata['autoreset_mode'] to be a gymnasium.vector.AutoresetMode{advice}"
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
