"""A hook of a run's own: what says why a setting fails, ``log.diagnostics``."""

import copy
import time

from torch import Generator

from ppo_cli.diagnostics import Iteration, diagnose, trained_weights
from ppo_cli.hooks import Hook, RunState
from ppo_cli.rollout import Batch
from ppo_cli.seeding import other_generators, spawn_seeds
from ppo_cli.targets import in_head_units


class Diagnosing(Hook):
    """Adds ``diagnostics/<name>`` to what each iteration logs, and ``time/diagnostics``, what that took.

    It is told before the user's hooks, so that they see what it adds. What is computed is computed when the
    update is over, of what it began with and what it ended with. The run's random streams are left alone:
    the sample's rows, and what a loss of a user's may draw, come from generators of their own, which follow
    from the run's seed and the iteration.
    """

    def __init__(self, seed: int) -> None:
        """Takes the seed of the run."""
        self._seed = seed

    def before_update(self, run: RunState, batch: Batch) -> None:
        """Keeps what the update begins with; hooks that are told next may change the batch still."""
        started = time.perf_counter()
        model = run.agent.model
        self._batch, self._statistics = batch, copy.deepcopy(model.value_head.statistics)
        self._before = trained_weights(model)
        self._seconds = time.perf_counter() - started

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Computes and adds them."""
        started = time.perf_counter()
        agent = run.agent
        of = Iteration(
            agent.model, agent.distribution, agent.hyper, agent.knobs, run.collector.rollout, self._batch,
            in_head_units(self._statistics, self._batch), self._before,
        )  # fmt: skip
        rows, draws = spawn_seeds(self._seed, "diagnostics", 2, run.iteration)
        with other_generators(draws):
            found = diagnose(of, Generator().manual_seed(rows))
        del self._batch, self._statistics, self._before
        scalars |= {f"diagnostics/{name}": value for name, value in found.items()}
        scalars["time/diagnostics"] = self._seconds + time.perf_counter() - started
