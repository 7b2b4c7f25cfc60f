"""The processes of one run, and how the first one leads the others.

The first process has the folder, the log, the terminal and the hooks. The others have their shards, and the
same weights. They give it their shards' state for a checkpoint when it asks, between two iterations.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppo_cli.collective import ALONE, Collective
from ppo_cli.diagnostics import trained_weights
from ppo_cli.errors import RunError
from ppo_cli.hooks import Hook, RunState
from ppo_cli.runs import ranks
from ppo_cli.runs.signals import Interrupted, StopSignal

# What the first process asks of the others between two iterations.
GO_ON, STATE, SIGNAL, COMPARE, EVALUATE, STOP, END = range(7)
COMPARED = 10  # iterations between two looks at whether all processes have the same weights


class WeightsError(RunError):
    """The processes of a run have other weights than each other."""


def meet() -> Collective:
    """The processes of the run, once all of them are there."""
    if ranks.pulse is None:
        return ALONE
    from ppo_cli.runs.group import Group  # late: most runs are one process

    return Group(ranks.pulse)


class Comparing(Hook):
    """Holds the weights of all processes against each other now and then. It is told before what saves."""

    def __init__(self, leading: "Leading") -> None:
        """Takes what leads the others, who listen from here on."""
        self._leading = leading

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Compares them.

        Raises:
            WeightsError: They are no longer the same.
        """
        self._leading.is_heard = True
        if run.is_over or run.iteration % COMPARED == 0:
            run.shards.collective.of_first(COMPARE)
            compare(run)


class Leading(Hook):
    """Tells the other processes what the first one has decided. It is told last of all hooks.

    Attributes:
        is_heard: Whether the others listen, rather than compute.
    """

    def __init__(self, collective: Collective) -> None:
        """Takes the processes of the run."""
        self._collective = collective
        self.is_heard = True

    def start(self, run: RunState) -> None:
        """Has them begin."""
        self._tell(STOP if run.is_over else GO_ON)

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Has them go on, or stop where this one does."""
        self._tell(STOP if run.is_over else GO_ON)

    def _tell(self, what: int) -> None:
        self._collective.of_first(what)
        self.is_heard = what == STOP  # they ask what else there is to do then

    def end(self, run: RunState, error: BaseException | None) -> None:
        """Has them end; where this one fails they find out by themselves."""
        if self.is_heard and (error is None or isinstance(error, Interrupted)):
            self._collective.of_first(END)
            self._collective.part()


class Following(Hook):
    """Does between two iterations what the first process asks for."""

    def __init__(
        self, collective: Collective, signal: StopSignal, evaluate: Callable[[RunState], object]
    ) -> None:
        """Takes what it needs.

        Args:
            collective: The processes of the run.
            signal: The `StopSignal` that was entered around it.
            evaluate: Plays this process's part of an evaluation.
        """
        self._collective, self._signal, self._evaluate = collective, signal, evaluate
        self.has_ended = False

    def start(self, run: RunState) -> None:
        """Waits until the first process begins; from then on a signal ends an iteration."""
        self.listen(run)
        self._signal.at_once = False

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Waits until it goes on."""
        self.listen(run)

    def listen(self, run: RunState) -> None:
        """Does what it asks for until it goes on, stops or ends."""
        while (told := self._collective.of_first(GO_ON)) not in (GO_ON, STOP, END):
            if told == STATE:
                run.shards.state_dict()
            elif told == COMPARE:
                compare(run)
            elif told == EVALUATE:
                self._signal.at_once = run.is_over  # nothing is to be saved any more
                StopSignal.check()
                self._evaluate(run)
            else:
                self._collective.most(self._signal.number or 0)
        if told != GO_ON:
            run.stop("by the first process")
        self.has_ended = told == END
        if self.has_ended:
            self._collective.part()


def fingerprint(weights: Tensor) -> int:
    """A number of 62 bits that other weights [P] hardly have."""
    bits = weights.view(torch.int32).to(torch.int64)
    places = torch.arange(1, 2 * len(bits), 2, device=bits.device)
    return int((bits * places).sum()) & (2**62 - 1)


def compare(run: RunState) -> None:
    """Holds the weights of all processes against each other.

    Raises:
        WeightsError: They are not the same.
    """
    own, collective = fingerprint(trained_weights(run.agent.model)), run.shards.collective
    if collective.most(own) != -collective.most(-own):
        raise WeightsError(
            f"the processes have other weights than each other since one of the last {COMPARED} iterations: "
            "their machines or libraries compute differently"
        )


def signal_of_any(run: RunState, own: int | None) -> int | None:
    """The number of a signal that came to any of the processes, or None.

    Args:
        run: The run.
        own: The number of one that came to this process, the first one.
    """
    collective = run.shards.collective
    collective.of_first(SIGNAL)
    return collective.most(own or 0) or None


def state_of(run: RunState) -> dict[str, Any]:
    """The state of all shards, for which the other processes are asked."""
    run.shards.collective.of_first(STATE)
    return run.shards.state_dict()
