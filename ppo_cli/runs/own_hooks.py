"""Hooks of a run's own: evaluations on the way, and the signals that ask it to stop."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from ppo_cli.config.schema import Config, EvalConfig
from ppo_cli.envs.group import OnError
from ppo_cli.envs.infos import Wanted
from ppo_cli.envs.make import EnvFn
from ppo_cli.episodes import Evaluation
from ppo_cli.hooks import Hook, RunState
from ppo_cli.policy import BatchPolicy
from ppo_cli.runs.build import env_maker, on_error_of, wanted_infos
from ppo_cli.runs.evaluation import Part, counting_on, evaluate_part, whole
from ppo_cli.runs.processes import EVALUATE, signal_of_any
from ppo_cli.runs.signals import Interrupted, StopSignal

Counting = Callable[[int], AbstractContextManager[Callable[[int], None]]]


def make_evaluating(config: Config, counting: Counting | None = None) -> "Evaluating":
    """The hook that evaluates as a config says, and shows how far it is."""
    return Evaluating(
        config.eval,
        env_maker(config.env, n_envs=config.shard_envs),
        on_error_of(config.env),
        wanted_infos(config),
        counting or (lambda _: nullcontext(lambda _: None)),
    )


class Evaluating(Hook):
    """Evaluates the policy every ``eval.every`` iterations, and whenever it is asked to."""

    def __init__(
        self, settings: EvalConfig, make: EnvFn, on_error: OnError, infos: Wanted, counting: Counting
    ) -> None:
        """Takes what the config says.

        Args:
            settings: The knobs ``eval``.
            make: The constructor of an evaluation environment.
            on_error: The effect of a fault of an environment.
            infos: The keys of ``info`` that are averaged.
            counting: Shows how many episodes have ended.
        """
        self._settings, self._make, self._on_error = settings, make, on_error
        self._infos, self._counting = infos, counting

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Evaluates where it is time to."""
        if self._settings.every and run.iteration % self._settings.every == 0:
            self.evaluate(run)

    def evaluate(self, run: RunState) -> Evaluation:
        """Evaluates the policy as it is now, and tells the run's hooks."""
        run.shards.collective.of_first(EVALUATE)
        with self._counting(self._settings.episodes) as count:
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
        settings = {key: v for key, v in vars(self._settings).items() if key != "every"}
        normalizer = run.collector.observation_normalizer
        policy = BatchPolicy(agent.model, agent.distribution, normalizer and normalizer.in_numpy())
        found: list[Part] = []
        for number in range(shards.first, shards.first + len(shards.collectors)):
            ended = sum(len(each.returns) for each in found)
            played = evaluate_part(
                policy, self._make, **settings, on_error=self._on_error, infos=self._infos,
                progress=count and counting_on(count, ended, shards.collective.processes),
                part=(number, shards.total),
            )  # fmt: skip
            found.append(played)
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
