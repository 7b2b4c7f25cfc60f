"""How a run ends before its budget: a signal, or a fault; in either case with one line."""

import logging
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, ClassVar

from typing_extensions import Self

from ppo_cli.stop_signals import STOPPING

logger = logging.getLogger(__name__)

HANG_UP = getattr(signal, "SIGHUP", None)
SAME_SECONDS = 0.3  # in which one signal comes twice: `timeout` sends it to the process, then to its group
AGAIN_SECONDS = 0.05  # until an exception that went nowhere is raised again


class Interrupted(KeyboardInterrupt):
    """A signal ended a run, which was saved; a `KeyboardInterrupt`, because it ends a sweep too.

    Attributes:
        number: The number of the signal.
    """

    def __init__(self, number: int, advice: str = "") -> None:
        super().__init__(f"{signal.Signals(number).name}: {advice or 'interrupted'}")
        self.number, self._advice = number, advice

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str]]:
        """How it comes back from the worker process of a sweep."""
        return Interrupted, (self.number, self._advice)


def no_advice() -> str:
    """No advice, where there is nothing to go on with."""
    return ""


class StopSignal:
    """What the first stop signal does while this is entered; the second one ends the process at once.

    The signal is noted, and, with ``at_once``, an `Interrupted` is raised where the process is. That can get
    lost: in a hook that runs after a fork, in code that catches everything. So the note is looked at again:
    by `check`, when another one is entered, and at the end, which nothing but an `Interrupted` leaves then.
    The innermost one that is entered decides.

    Attributes:
        at_once: Whether the first signal ends it already. While the update compiles that is right: Ctrl-C
            reaches the compiler too, so that there is nothing to go on with.
    """

    _entered: ClassVar[list["StopSignal"]] = []
    _came: ClassVar[tuple[int, float] | None] = None  # the first signal, and when
    _again: ClassVar[bool] = False  # whether the next one is the first one once more
    _before: ClassVar[dict[int, Any]] = {}  # handlers
    _unraisable: ClassVar[Any] = None  # the hook before

    def __init__(self, advice: Callable[[], str], at_once: bool) -> None:
        """Notes what to do.

        Args:
            advice: A function that says what to do when the run has ended, as it is true then; or nothing.
            at_once: Whether the first signal ends it already; see above.
        """
        self.at_once = at_once
        self._advice = advice

    @property
    def number(self) -> int | None:
        """The number of the signal that came, or None."""
        return None if StopSignal._came is None else StopSignal._came[0]

    def __enter__(self) -> Self:
        """Takes over the handlers; a thread other than the main one has none to take."""
        self.check()
        if threading.current_thread() is threading.main_thread():
            if not StopSignal._entered:
                _take_over()
            StopSignal._entered.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the handlers back.

        Raises:
            Interrupted: a signal came, and nothing else ended this.
        """
        came = self.number if self in StopSignal._entered else None
        if self in StopSignal._entered:
            StopSignal._entered.remove(self)
            if not StopSignal._entered:
                _give_back()
        interrupt = _interrupt_in(error)
        if interrupt is None and (error is not None or came is None):
            return
        if came is None:
            came = getattr(interrupt, "number", signal.SIGINT)  # of a job elsewhere, or raised by others
        advice = self._advice()
        if advice or not isinstance(error, Interrupted):
            raise Interrupted(came, advice) from error

    @staticmethod
    def check() -> None:
        """Raises Interrupted where a signal came that should have ended what goes on still."""
        if StopSignal._came is not None and StopSignal._entered and StopSignal._entered[-1].at_once:
            raise Interrupted(StopSignal._came[0], StopSignal._entered[-1]._advice())


def _interrupt_in(error: BaseException | None) -> KeyboardInterrupt | None:
    """What interrupted; something may have turned it into another error on the way, such as an import."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _take_over() -> None:
    for number in STOPPING:
        handler = signal.getsignal(number)
        if number == HANG_UP and handler is signal.SIG_IGN:  # nohup
            continue
        StopSignal._before[number] = handler
        signal.signal(number, _note)
    StopSignal._unraisable, sys.unraisablehook = sys.unraisablehook, _on_unraisable


def _give_back() -> None:
    for number, handler in StopSignal._before.items():
        signal.signal(number, handler)
    StopSignal._before.clear()
    sys.unraisablehook = StopSignal._unraisable
    StopSignal._came, StopSignal._again = None, False


def _give_back_in_child() -> None:
    """A process that is forked, such as an environment's own, ends by a signal as any other does."""
    if StopSignal._entered:
        StopSignal._entered.clear()
        _give_back()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_back_in_child)


def _note(number: int, _frame: FrameType | None) -> None:
    innermost = StopSignal._entered[-1]
    if StopSignal._came is not None and not StopSignal._again:
        first, when = StopSignal._came
        if number == first and (number == HANG_UP or time.monotonic() - when < SAME_SECONDS):
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    StopSignal._came, StopSignal._again = StopSignal._came or (number, time.monotonic()), False
    if innermost.at_once:
        raise Interrupted(number, innermost._advice())
    name = signal.Signals(number).name
    logger.warning("%s: ending the iteration and saving; a second signal ends at once", name)


def _on_unraisable(unraisable: Any) -> None:  # noqa: ANN401 - sys.UnraisableHookArgs is no class
    """Raises an `Interrupted` again, in a moment, that was raised where exceptions are only printed."""
    if not isinstance(unraisable.exc_value, Interrupted):
        StopSignal._unraisable(unraisable)
        return
    number = unraisable.exc_value.number

    def again() -> None:
        if StopSignal._came is not None:
            StopSignal._again = True
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    if hasattr(signal, "pthread_kill"):
        timer = threading.Timer(AGAIN_SECONDS, again)
        timer.daemon = True
        timer.start()


def end_children() -> None:
    """Ends what `multiprocessing` would wait for at the exit, workers that ignore what it sends."""
    for child in mp.active_children():
        if child.daemon:
            child.kill()
