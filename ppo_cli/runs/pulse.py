"""What a process of a run has of its sidecar; see `ppo_cli.runs.sidecar`."""

import multiprocessing as mp
import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from ppo_cli.errors import RunError
from ppo_cli.runs import ranks
from ppo_cli.runs.ranks import SILENCE, here
from ppo_cli.runs.sidecar import SETTLE, Sidecar
from ppo_cli.runs.signals import Interrupted
from ppo_cli.runs.talk import GRACE, PERIOD, Ending
from ppo_cli.stop_signals import held_back, leave_to_parent
from ppo_cli.text import headline


class Pulse:
    """What a process of a run has of its sidecar: it says how this one ends, and is told how all do."""

    def __init__(self, rank: int, processes: int) -> None:
        """Starts the sidecar of this process.

        Args:
            rank: The number of this process.
            processes: The number of all.
        """
        self.rank, self.processes = rank, processes
        self._advice: Callable[[], str] = str
        self._told: dict[str, Any] = {}
        self._has_parted = False
        self._pipe, theirs = mp.Pipe()
        process = os.getpid()
        with held_back():
            if not os.fork():
                leave_to_parent()
                be_sidecar(rank, processes, process, theirs)
        theirs.close()

    def meet(self) -> str:
        """The name of the run, once all of its processes are there.

        Raises:
            BaseException: As `lost` has it.
        """
        while "name" not in self._told:
            if self._listen("name", PERIOD) is None and self.ending(0.0) is not None:
                raise self.lost("")
        return str(self._told["name"])

    def advise(self, advice: Callable[[], str]) -> None:
        """Takes a function that says in a line what to do when the run has ended, or nothing."""
        self._advice = advice
        self._say("advice", advice)

    def end(self, line: str, status: int = 1, is_said: bool = False) -> None:
        """Ends all processes of the run.

        Args:
            line: Why; empty where nothing is to be said.
            status: Their status.
            is_said: Whether this process says it itself.
        """
        self._say("end", (line, status, is_said))

    def ending(self, seconds: float) -> Ending | None:
        """How the run ends, if that is known within some seconds."""
        found: Ending | None = self._listen("ending", seconds)
        return found

    def lost(self, reason: str) -> BaseException:
        """What to raise where another process is gone: how the run ends, once that is known.

        Args:
            reason: What else is known of it.
        """
        ending = self.ending(SILENCE + GRACE)
        if ending is None:
            return ConnectionError(f"another process of the run is gone ({reason}); it was {here()}")
        if self.rank or not ending.status:
            return SystemExit(ending.status)
        self._say("taken", None)
        if ending.status > 128:
            return Interrupted(ending.status - 128, self._advice())
        return ConnectionError(ending.line)

    def lost_by_signal(self, number: int) -> BaseException | None:
        """What to raise where this process was interrupted; None where that is why the run ends.

        torchrun sends a signal to all others where one is gone.

        Args:
            number: The number of the signal.
        """
        gone = None if self._has_parted else self.ending(SETTLE + PERIOD)
        if gone is None or gone.status != 1:
            self.end("", 128 + number, is_said=True)
            if ranks.is_launched() and "name" not in self._told:  # the launcher knows what was sent to whom
                return SystemExit(128 + number)
            if not self.rank:
                ranks.note_said()
                if gone is not None and gone.status > 128:  # by the signal that came first, to another
                    return Interrupted(gone.status - 128, self._advice())
            return None
        error = self.lost("")
        more = self._advice()
        return error if self.rank else RunError(f"{error}{more and f'; {more}'}")

    def part(self) -> None:
        """Has the run be over for this process: it does no longer matter who is gone."""
        self._has_parted = True
        self._say("part", None)

    def close(self) -> None:
        """Ends the sidecar; where nothing has ended the run, it is over."""
        self.end("", 0)
        self._say("close", None)
        self._pipe.close()

    def _say(self, kind: str, value: object) -> None:
        with suppress(OSError):  # it was killed
            self._pipe.send((kind, value))

    def _listen(self, kind: str, seconds: float) -> Any:  # noqa: ANN401
        """A value of a kind that the sidecar tells, or None."""
        end = time.monotonic() + seconds
        try:
            while kind not in self._told and self._pipe.poll(max(0.0, end - time.monotonic())):
                self._told.update([self._pipe.recv()])
        except (EOFError, OSError):
            self._told.setdefault("ending", Ending(f"the sidecar of {here()} was killed"))
        return self._told.get(kind)


def be_sidecar(
    rank: int,
    processes: int,
    process: int,
    pipe: Connection | None = None,
    end: tuple[str, int, bool] | None = None,
) -> NoReturn:
    """Is the sidecar of a process; see `Sidecar`.

    Args:
        rank: The number of that process.
        processes: The number of all.
        process: The number that the system has for it.
        pipe: The pipe to it, if there is one.
        end: How it ends, as `Pulse.end` takes it, if there is none and it was not killed.
    """
    ours, theirs = mp.Pipe()
    if end is not None:
        theirs.send(("end", end))
    try:
        Sidecar(rank, processes, process, pipe or ours).live()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def take_part(pulse: Pulse, lead: Callable[[], int | None], follow: Callable[[Pulse], None]) -> int | None:
    """Does what this process of a run has to, and tells the others how it ends.

    Args:
        pulse: That of this process.
        lead: What the first process does.
        follow: What any other does.

    Raises:
        RunError: Another process is gone.
    """
    ranks.pulse = pulse
    try:
        if not pulse.rank:
            return lead()
        follow(pulse)
        return None
    except KeyboardInterrupt as error:
        gone = pulse.lost_by_signal(getattr(error, "number", signal.SIGINT))
        if gone is None:
            raise
    except MemoryError as error:
        pulse.end(f"{here()} is out of memory ({headline(error)})", is_said=not pulse.rank)
        raise
    except Exception as error:
        pulse.end(f"{headline(error)}; it was {here()}", is_said=not pulse.rank)
        raise
    finally:
        ranks.pulse = None
        pulse.close()
    raise gone  # not where the signal would be its cause, which would count as how the run ended
