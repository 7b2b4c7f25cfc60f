"""Hooks: what a run tells while it goes on, and what they may do to it.

A hook of one's own is a subclass of `Hook` with the methods that it needs:

    class StopWhenSolved(Hook):
        def after_iteration(self, run, scalars):
            if scalars["charts/episodic_return"] > 475:
                run.stop("solved")

It is given to a run as an object, from Python, or by its import path: ``hooks=[{name: my.module.Hook}]``.
What a run does beside training, its checkpoints, logs and evaluations, is done by hooks of the same kind,
which are told after the user's (`ppo_cli.runs`).
"""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppo_cli.agent import PPOAgent
from ppo_cli.collector import Collector
from ppo_cli.episodes import Evaluation
from ppo_cli.errors import UserCodeError
from ppo_cli.rollout import Batch, Rollout
from ppo_cli.seeding import other_generators, spawn_seeds
from ppo_cli.shards import Shards
from ppo_cli.text import flat

logger = logging.getLogger(__name__)

TAG = re.compile(r"[\w./-]{1,200}", re.ASCII)  # of a scalar, as metrics.csv and TensorBoard take it
RESERVED = ("eval/", "info/")  # what the tags of evaluations, and of what environments tell, begin with
# What a hook draws follows from a method's place here: further ones come behind.
METHODS = (
    "__init__", "start", "after_rollout", "after_iteration", "after_evaluation", "after_checkpoint", "end",
    "state_dict", "load_state_dict", "before_update",
)  # fmt: skip


class Hook:
    """What is told of a run while it goes on. A subclass overrides the methods that it needs.

    The hooks of a user are told in the order in which they were given, and before those of the run itself.
    They may read everything. What they may change is said at each method; whatever else they change is
    trained on as it is then.

    While a hook of a user is told, Python's, NumPy's and PyTorch's global generators are seeded for it, anew
    at each call, from the run's seed, the iteration and the method. So a run's bits are the same with and
    without a hook that draws random numbers, and the hook draws the same in a run that was resumed.

    What a hook raises ends the run with a line that names it; the last checkpoint is not touched.
    """

    def start(self, run: "RunState") -> None:
        """Is called once before the first iteration, also of a run that goes on where it was stopped.

        The environments have been reset, or brought back.

        Args:
            run: The run.
        """

    def after_rollout(self, run: "RunState", rollout: Rollout) -> None:
        """Is called when a rollout has been collected, before the advantages are computed and the update.

        Args:
            run: The run; ``run.steps`` does not count this rollout yet.
            rollout: The transitions, whose ``rewards`` may be changed in place. The update learns from them
                then, while ``charts/episodic_return`` tells the environment's own, as do evaluations.
        """

    def before_update(self, run: "RunState", batch: Batch) -> None:
        """Is called when advantages and value targets are computed, before the update.

        Args:
            run: The run; ``run.steps`` does not count this rollout yet.
            batch: What the update learns from, [T*N, ...]. Its ``advantages`` and ``returns`` may be changed
                in place, within ``torch.inference_mode()``.
        """

    def after_iteration(self, run: "RunState", scalars: dict[str, float]) -> None:
        """Is called after each update, before anything of it is logged, evaluated or saved.

        Args:
            run: The run.
            scalars: The values that are logged, by their tag. A hook may add numbers under tags of its own,
                such as ``my/distance``; they are logged like the others, in TensorBoard and in a column of
                metrics.csv. NaN is an empty cell.
        """

    def after_evaluation(self, run: "RunState", evaluation: Evaluation) -> None:
        """Is called after each evaluation on the way, and after the one at the end of the run.

        Args:
            run: The run. ``run.improved`` tells whether no evaluation before had such a mean return, and
                ``run.trained`` whether this is the one at the end.
            evaluation: Its ``mean``, ``std``, ``iqm``, ``returns``, ``lengths`` and ``infos``.
        """

    def after_checkpoint(self, run: "RunState", path: Path) -> None:
        """Is called when a checkpoint has been written, the first one before the first iteration.

        What a hook changes in itself here is no part of that checkpoint.

        Args:
            run: The run.
            path: The file: ``<steps>.pt``, or ``best.pt`` after an evaluation that was the best so far.
        """

    def end(self, run: "RunState", error: BaseException | None) -> None:
        """Is called once when the run ends, however it ends, and after all that it writes is written.

        Args:
            run: The run.
            error: The error that ended it, a `KeyboardInterrupt` for a signal; None where it is finished.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint is to hold of this hook: tensors, NumPy arrays and plain values.

        Returns:
            Nested dicts, with strings as keys, and lists.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Is called before `start` where a run goes on from a checkpoint in which this hook has a state.

        Args:
            state: The state that `state_dict` returned, arrays as tensors and tuples as lists.
        """


@dataclass
class RunState:
    """A run as its hooks see it.

    Attributes:
        folder: The run's folder.
        config: Every knob, as nested dicts of plain values. Changing it changes nothing.
        agent: The agent that is trained; ``agent.model`` is its network.
        shards: The parts of the run that this process has, and what all of them told.
        total_timesteps: The budget in environment steps.
        hooks: All that is told of the run, as one hook.
        iteration: The number of iterations so far.
        steps: The number of environment steps so far.
        best: The highest mean return of an evaluation so far; -inf before the first.
        improved: Whether the last evaluation was the best so far.
        trained: Whether the training has ended, so that what is evaluated is what the run ends with.
        stopped: Why a hook stopped the run; empty where none did.
        save_asked: Whether a checkpoint is written after this iteration in any case; see `save`.
    """

    folder: Path
    config: Mapping[str, Any]
    agent: PPOAgent
    shards: Shards
    total_timesteps: int
    hooks: Hook
    iteration: int = 0
    steps: int = 0
    best: float = -math.inf
    improved: bool = False
    trained: bool = False
    stopped: str = ""
    save_asked: bool = False

    @property
    def collector(self) -> Collector:
        """The environments, their normalisation and the rollout's buffers; of the first shard of several."""
        return self.shards.collectors[0]

    def stop(self, reason: str) -> None:
        """Ends the training after this iteration; the run is saved, evaluated and finished then.

        Once the training has ended there is nothing to stop.

        Args:
            reason: Why, in a few words, for a line and for ``stopped`` in eval.json; the first one counts.
        """
        if not self.trained:
            self.stopped = self.stopped or flat(reason) or "by a hook"

    def save(self) -> None:
        """Has a checkpoint written after this iteration, beside those of every ``checkpoint.every``."""
        self.save_asked = True

    @property
    def is_over(self) -> bool:
        """Whether no further iteration follows: the budget is used up, or a hook has stopped the run."""
        return self.steps >= self.total_timesteps or bool(self.stopped)


class Hooks(Hook):
    """Many hooks as one: each method calls theirs, one after the other."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        """Hooks in the order in which they are told."""
        self._hooks = list(hooks)

    def start(self, run: RunState) -> None:
        """Calls theirs."""
        for hook in self._hooks:
            hook.start(run)

    def after_rollout(self, run: RunState, rollout: Rollout) -> None:
        """Calls theirs."""
        for hook in self._hooks:
            hook.after_rollout(run, rollout)

    def before_update(self, run: RunState, batch: Batch) -> None:
        """Calls theirs."""
        for hook in self._hooks:
            hook.before_update(run, batch)

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Calls theirs."""
        for hook in self._hooks:
            hook.after_iteration(run, scalars)

    def after_evaluation(self, run: RunState, evaluation: Evaluation) -> None:
        """Calls theirs."""
        for hook in self._hooks:
            hook.after_evaluation(run, evaluation)

    def after_checkpoint(self, run: RunState, path: Path) -> None:
        """Calls theirs."""
        for hook in self._hooks:
            hook.after_checkpoint(run, path)

    def end(self, run: RunState, error: BaseException | None) -> None:
        """Calls theirs, also after one that raises; what was raised first is raised in the end."""
        first: BaseException | None = None
        for hook in self._hooks:
            try:
                hook.end(run, error)
            except BaseException as raised:  # noqa: PERF203 - files are closed whatever others do
                first = first or raised
        if first is not None:
            raise first


@contextmanager
def telling_hooks(run: RunState) -> Iterator[None]:
    """Calls `start` of a run's hooks, and `end` of each once, however the run ends."""
    try:
        run.hooks.start(run)
        yield
    except BaseException as error:
        try:
            run.hooks.end(run, error)
        except Exception as further:
            logger.warning("%s", flat(further))  # it ends already, by what came first
        raise
    run.hooks.end(run, None)


class UserHook(Hook):
    """A hook of a user's, as a run calls it: what it raises names it, and it draws from its own generators.

    Attributes:
        name: The import path of its class, or the word for one of ours.
    """

    def __init__(self, hook: Hook, name: str, seed: int, number: int) -> None:
        """Wraps a hook.

        Args:
            hook: The user's hook.
            name: The name it has in lines and checkpoints.
            seed: The seed of the run.
            number: Its place among the user's hooks.
        """
        self.name = name
        self._hook, self._seed, self._number = hook, seed, number
        self._overridden = {each for each in METHODS[1:] if _is_overridden(hook, each)}

    def start(self, run: RunState) -> None:
        """Calls the user's."""
        self._call("start", run.iteration, run)

    def after_rollout(self, run: RunState, rollout: Rollout) -> None:
        """Calls the user's."""
        self._call("after_rollout", run.iteration, run, rollout)

    def before_update(self, run: RunState, batch: Batch) -> None:
        """Calls the user's."""
        self._call("before_update", run.iteration, run, batch)

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Calls the user's, and holds what it adds against what can be logged."""
        before = dict(scalars)
        self._call("after_iteration", run.iteration, run, scalars)
        for tag in before:
            if tag not in scalars or not _is_same(scalars[tag], before[tag]):
                raise UserCodeError(
                    f"hook {self.name}: after_iteration changed {tag}, which is logged already; "
                    "choose another tag"
                )
        for tag in [tag for tag in scalars if tag not in before]:
            scalars[tag] = self._checked(tag, scalars[tag])

    def after_evaluation(self, run: RunState, evaluation: Evaluation) -> None:
        """Calls the user's."""
        self._call("after_evaluation", run.iteration, run, evaluation)

    def after_checkpoint(self, run: RunState, path: Path) -> None:
        """Calls the user's."""
        self._call("after_checkpoint", run.iteration, run, path)

    def end(self, run: RunState, error: BaseException | None) -> None:
        """Calls the user's."""
        self._call("end", run.iteration, run, error)

    def state_dict(self) -> dict[str, Any]:
        """The user's."""
        state = self._call("state_dict", 0)
        if not isinstance(state, (dict, type(None))):
            raise UserCodeError(
                f"hook {self.name}: state_dict returned {type(state).__name__}: expected a dict"
            )
        return state or {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Calls the user's."""
        self._call("load_state_dict", 0, state)

    def _call(self, method: str, iteration: int, *arguments: Any) -> Any:  # noqa: ANN401
        if method not in self._overridden:
            return None
        return guarded(
            getattr(self._hook, method),
            arguments,
            {},
            self.name,
            method,
            (self._seed, iteration, self._number),
        )

    def _checked(self, tag: Any, value: Any) -> float:  # noqa: ANN401
        """A number that a hook added.

        Raises:
            UserCodeError: It is none, or the tag can't be one of a user's.
        """
        where = f"hook {self.name}: after_iteration added {tag!r}"
        if not (isinstance(tag, str) and TAG.fullmatch(tag)):
            raise UserCodeError(f"{where}: expected a tag of at most 200 letters, digits and _ . / -")
        if tag.startswith(RESERVED) or tag in ("iteration", "step"):
            raise UserCodeError(f"{where}: such tags are the run's own; choose another")
        try:
            return float(value.item() if hasattr(value, "item") else value + 0.0)
        except Exception:
            raise UserCodeError(f"{where} = {flat(repr(value))}: expected a number") from None


def guarded(
    function: Any,  # noqa: ANN401
    arguments: Sequence[Any],
    options: Mapping[str, Any],
    name: str,
    method: str,
    at: tuple[int, int, int],
) -> Any:  # noqa: ANN401
    """What a function of a user's returns, called with generators of its own.

    Args:
        function: The function.
        arguments: The arguments by position.
        options: The arguments by name.
        name: The name of the hook.
        method: The name of its method.
        at: The run's seed, the iteration, and the hook's place.

    Raises:
        UserCodeError: It raised something.
    """
    seed, iteration, number = at
    (own,) = spawn_seeds(seed, "hooks", 1, iteration, METHODS.index(method), number)
    try:
        with other_generators(own):
            return function(*arguments, **options)
    except Exception as error:
        what = type(error).__name__
        raise UserCodeError(f"hook {name}: {method} raised {what}: {flat(error)}") from error


def _is_overridden(hook: Hook, method: str) -> bool:
    return getattr(getattr(hook, method), "__func__", None) is not getattr(Hook, method)


def _is_same(value: Any, other: float) -> bool:  # noqa: ANN401
    return value is other or (isinstance(value, (int, float)) and value == other)
