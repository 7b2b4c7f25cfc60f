"""A process beside a run that sees what the run itself can't say: that it hangs, or that it died."""

import multiprocessing as mp
import os
import signal
import sys
import time
from multiprocessing.sharedctypes import RawArray
from types import TracebackType

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

POLL_SECONDS = 0.25


class Watchdog:
    """Ends this process where its environments take too long for one step, and says so where it died.

    Attributes:
        pulse: one integer in shared memory, int64 [1]; whoever steps environments adds 1 before and 1 after,
            so that it is odd meanwhile.
    """

    def __init__(self, timeout: float, advice: str) -> None:
        """Shares the pulse.

        Args:
            timeout: seconds that the pulse may stay at one odd value.
            advice: what to do when the run has ended, a line.
        """
        self.pulse: npt.NDArray[np.int64] = np.frombuffer(RawArray("b", 8), np.int64)
        self._timeout, self._advice = timeout, advice
        self._process: mp.process.BaseProcess | None = None

    def __enter__(self) -> Self:
        """Starts to watch, where the system can fork."""
        if "fork" in mp.get_all_start_methods():
            arguments = (self.pulse, self._timeout, self._advice, os.getpid())
            self._process = mp.get_context("fork").Process(target=_watch, args=arguments, daemon=True)
            self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops watching."""
        if self._process is not None:
            self._process.kill()
            self._process.join()


def _watch(pulse: npt.NDArray[np.int64], timeout: float, advice: str, parent: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    last, stuck = 0, 0.0  # seconds of its own polling: a process that is stopped and goes on has not hung
    while True:
        time.sleep(POLL_SECONDS)
        if os.getppid() != parent:
            _say(f"the process of the run died; {advice}")
            return
        now = int(pulse[0])
        stuck = stuck + POLL_SECONDS if now == last and now % 2 else 0.0
        last = now
        if stuck > timeout:
            _say(f"a step of the environments took more than env.timeout={timeout:g} s; {advice}")
            os.kill(parent, signal.SIGKILL)
            return


def _say(line: str) -> None:
    print(f"ppo-train: {line}", file=sys.stderr, flush=True)
