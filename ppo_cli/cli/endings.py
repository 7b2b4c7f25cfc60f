"""How a run ends before its budget: a signal, or a fault; in either case with one line."""

import logging
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from typing_extensions import Self

logger = logging.getLogger(__name__)

# Ctrl-C, what `kill` and a cluster's time limit send, and SLURM's warning (`--signal=USR1@60`).
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class RunError(RuntimeError):
    """A run could not go on; the message is one line, with what to do."""


class Interrupted(KeyboardInterrupt):
    """A signal ended a run, which was saved; a `KeyboardInterrupt`, because it ends a sweep too.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int, advice: str) -> None:
        super().__init__(f"{signal.Signals(number).name}: {advice}")
        self.number, self._advice = number, advice

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str]]:
        """How it comes back from the worker process of a sweep."""
        return Interrupted, (self.number, self._advice)


class Ended(BaseException):
    """What ended a job, on its way through Hydra, which would print a page about an `Exception`.

    Attributes:
        error: what was raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class StopSignal:
    """Notes the first signal, so that a run can end where it is whole; the second ends the process at once.

    Attributes:
        number: of the signal that came, or None.
        at_once: end by the first signal already. While the update compiles that is right: Ctrl-C reaches the
            compiler too, so that there is nothing to go on with.
    """

    def __init__(self, advice: str, at_once: bool) -> None:
        self.number: int | None = None
        self.at_once = at_once
        self._advice = advice
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Takes over the handlers; a thread other than the main one has none to take."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number
        if self.at_once:
            raise Interrupted(number, self._advice)
        name = signal.Signals(number).name
        logger.warning("%s: ending the iteration and saving; a second signal ends at once", name)
