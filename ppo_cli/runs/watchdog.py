"""A process beside a run that sees what the run itself can't say: that it hangs, or that it died."""

import multiprocessing as mp
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import RawArray
from types import TracebackType
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from ppo_cli.envs import calls
from ppo_cli.runs import ranks
from ppo_cli.stop_signals import held_back, leave_to_parent, without_jax

POLL_SECONDS = 0.25


class Watchdog:
    """Ends this process where one call of an environment takes too long, and says so where it died.

    A call is one step, one reset, one construction or one closing, in this process or in a worker; see
    `ppo_cli.envs.calls`.
    """

    _watching: ClassVar[bool] = False

    def __init__(self, timeout: float, advice: Callable[[], str]) -> None:
        """Shares the memory that calls are marked in.

        Args:
            timeout: The seconds that one call may take.
            advice: A function that says in a line what to do when the run has ended, or nothing.
        """
        self._calls = memoryview(RawArray("b", 8 * calls.WIDTH * calls.SLOTS)).cast("B").cast("q")
        self._timeout, self._advice = timeout, advice
        self._process: mp.process.BaseProcess | None = None

    def __enter__(self) -> Self:
        """Starts to watch, where the system can fork; once a process is enough."""
        if "fork" in mp.get_all_start_methods() and not Watchdog._watching:
            self._before = calls.report_to(self._calls)
            watched = np.frombuffer(self._calls, np.int64).reshape(calls.SLOTS, calls.WIDTH)
            arguments = (watched, self._timeout, self._advice, os.getpid())
            self._process = mp.get_context("fork").Process(target=_watch, args=arguments, daemon=True)
            with held_back(), without_jax():
                self._process.start()
            Watchdog._watching = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops watching."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            calls.report_to(self._before)
            Watchdog._watching = False


def _watch(watched: npt.NDArray[np.int64], timeout: float, advice: Callable[[], str], parent: int) -> None:
    leave_to_parent()
    last = watched.copy()
    stuck = np.zeros(len(watched))  # seconds of its own polling: what is stopped and goes on has not hung
    while True:
        time.sleep(POLL_SECONDS)
        if os.getppid() != parent:
            if ranks.pulse is None:
                _say("the process of the run died", advice())
            return
        now = watched.copy()
        stuck = np.where((now == last).all(1) & (now[:, 0] != calls.IDLE), stuck + POLL_SECONDS, 0.0)
        last = now
        longest = int(np.argmax(stuck))
        if stuck[longest] > timeout:
            what = calls.describe(int(now[longest, 0]))
            more = advice() or "a larger env.timeout waits longer"
            _say(f"{what} took more than env.timeout={timeout:g} s", more)
            os.kill(parent, signal.SIGKILL)
            return


def _say(line: str, advice: str) -> None:
    if ranks.pulse is not None:  # which the first process says
        ranks.pulse.end(f"{line}; it was {ranks.here()}")
        return
    print(f"ppo-train: {line}{advice and f'; {advice}'}", file=sys.stderr, flush=True)
