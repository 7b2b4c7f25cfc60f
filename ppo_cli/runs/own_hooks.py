"""Hooks of a run's own: evaluations on the way, and the signals that ask it to stop."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from ppo_cli.config.schema import Config
from ppo_cli.episodes import Evaluation
from ppo_cli.hooks import Hook, RunState
from ppo_cli.policy import BatchPolicy
from ppo_cli.runs.build import evaluation_plan
from ppo_cli.runs.evaluation import EvaluationPlan, Part, counting_on, evaluate_part, whole
from ppo_cli.runs.processes import EVALUATE, signal_of_any
from ppo_cli.runs.signals import Interrupted, StopSignal

Counting = Callable[[int], AbstractContextManager[Callable[[int], None]]]


def make_evaluating(config: Config, counting: Counting | None = None) -> "Evaluating":
    """The hook that evaluates as a config says, and shows how far it is."""
    return Evaluating(
        evaluation_plan(config), config.eval.every, counting or (lambda _: nullcontext(lambda _: None))
    )


class Evaluating(Hook):
    """Evaluates the policy every ``eval.every`` iterations, and whenever it is asked to."""

    def __init__(self, plan: EvaluationPlan, every: int, counting: Counting) -> None:
        """Takes what the config says.

        Args:
            plan: The episodes.
            every: The number of iterations between two evaluations on the way; 0 for none.
            counting: Shows how many episodes have ended.
        """
        self._plan, self._every, self._counting = plan, every, counting

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Evaluates where it is time to."""
        if self._every and run.iteration % self._every == 0:
            self.evaluate(run)

    def evaluate(self, run: RunState) -> Evaluation:
        """Evaluates the policy as it is now, and tells the run's hooks."""
        run.shards.collective.of_first(EVALUATE)
        with self._counting(self._plan.episodes) as count:
            found = self.play(run, count)
        run.improved = found.mean > run.best
        run.best = max(run.best, found.mean)
        run.hooks.after_evaluation(run, found)
        return found

    def play(self, run: RunState, count: Callable[[int], None] | None = None) -> Evaluation:
        """Plays the parts of this process's shards, and gives the evaluation of all.

        Args:
            run: The run.
            count: Is called with the number of episodes that have ended, about.
        """
        agent, shards = run.agent, run.shards
        normalizer = run.collector.observation_normalizer
        policy = BatchPolicy(agent.model, agent.distribution, normalizer and normalizer.in_numpy())
        found: list[Part] = []
        for number in range(shards.first, shards.first + len(shards.collectors)):
            ended = sum(len(each.returns) for each in found)
            ended_of_all = count and counting_on(count, ended, shards.collective.processes)
            part = (number, shards.total)
            found.append(evaluate_part(policy, self._plan, progress=ended_of_all, part=part))
        return whole([Part(*each) for each in shards.collective.gather_plain(found)])


class Signals(Hook):
    """Ends a run by a signal: after the iteration in which it comes, when the run has been saved.

    It stands before what saves. While the update compiles, and when the training is over, a signal ends the
    run at once.
    """

    def __init__(self, signal: StopSignal, advice: Callable[[], str]) -> None:
        """Decides what a signal does.

        Args:
            signal: The `StopSignal` that was entered around the run.
            advice: A function that says what to do when the run has ended, or nothing.
        """
        self._signal, self._advice = signal, advice
        self._number: int | None = None

    def start(self, run: RunState) -> None:
        """Has a signal end an iteration from here on."""
        StopSignal.check()
        self._signal.at_once = run.agent.compiled or run.is_over

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Has the run saved where a signal came."""
        self._signal.at_once = False
        self._number = signal_of_any(
            run, self._signal.number
        )  # once: what comes from here on ends the next iteration
        if self._number is not None:
            run.save()

    def after_checkpoint(self, run: RunState, path: Path) -> None:
        """Ends the run when it has been saved so.

        Raises:
            Interrupted: It has.
        """
        if self._number is not None:
            raise Interrupted(self._number, self._advice())
        if run.is_over and path.stem == str(run.steps):  # the last one
            self._signal.at_once = True
            StopSignal.check()

    def end(self, run: RunState, error: BaseException | None) -> None:
        """A signal ends at once what is left to do."""
        self._signal.at_once = True
