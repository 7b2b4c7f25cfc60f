"""A sidecar of each process of a run, which finds out when one of them is gone, and ends all of them.

Sidecars talk in a store (`torch.distributed.TCPStore`): that of torchrun's agent, or where there is none one
that the first one's has. Whatever a process of the run does, compile, wait for another or hang, its sidecar
gives signs of life, and looks for those of the others. Whichever finds that a process was killed, stands
still, can't be reached or failed puts that into the store, where the first word counts. All processes are
told, have a moment to end by themselves, and are killed. The first one says why, or its sidecar.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from ppo_cli.runs.ranks import (
    POLL,
    SILENCE,
    has_agent,
    has_ended_launcher,
    here,
    is_first_here,
    note_said,
    still,
)
from ppo_cli.runs.system import descendants, killed_for_memory, status_of
from ppo_cli.runs.talk import GRACE, MEETING, PERIOD, Ending, Talk

SETTLE = 1.5  # seconds until a signal counts as why a run ends: torchrun sends one where a process is gone


class Sidecar:
    """The sidecar of a process of a run: a process of its own.

    Args:
        rank: The number of that process.
        processes: The number of all.
        process: The number that the system has for it.
        pipe: The pipe that carries what it says, as pairs of a kind and a value, and what it is told.
    """

    def __init__(self, rank: int, processes: int, process: int, pipe: Connection) -> None:
        self._rank, self._pipe, self._parent = rank, pipe, process
        self._talk = Talk(rank, processes)
        self._advice: Callable[[], str] = str
        self._own: tuple[Ending, float] | None = None  # of that process, and when it counts
        self._has_parted = self._is_closed = self._is_said = False
        self._stopped = self._stuck = 0  # looks in a row
        self._looks = -1
        self._is_lost = False  # whether nobody can be told anything any more
        _, self._agent, _ = status_of(process)
        self._agent_began = status_of(self._agent)[2]
        self._kills = killed_for_memory()

    def live(self) -> None:
        """Watches until the run has ended."""
        self._talk.start()
        ending = None
        is_told = False
        while ending is None and not (self._has_parted and self._is_gone()):
            self._take()
            if self._talk.name and not is_told:
                self._send("name", self._talk.name)
                is_told = True
            ending = None if self._has_parted else self._find()
        if ending is not None:
            self._end(ending)
        if not self._is_lost:
            self._talk.leave()
        elif not self._has_parted and is_first_here() and is_last_try():
            self._end_agent()

    def _is_gone(self) -> bool:
        return self._is_closed or os.getppid() != self._parent

    def _take(self) -> None:
        """Takes what the process says, for a moment; what is told of it by its watchdog, too."""
        if not self._pipe.poll(POLL):
            return
        try:
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            time.sleep(POLL)
            return
        if kind == "end" and self._own is None:
            line, status, is_said = value
            self._is_said |= is_said
            waits = SETTLE if status > 128 else 0.0
            self._own = Ending(line, status), time.monotonic() + waits
        elif kind == "advice":
            self._advice = value
        self._has_parted |= kind == "part"
        self._is_closed |= kind == "close"
        self._is_said |= kind == "taken"

    def _find(self) -> Ending | None:
        """How the run ends, if it does."""
        self._stopped = self._stopped + 1 if status_of(self._parent)[0] == "T" else 0
        if self._own is not None:
            if time.monotonic() >= self._own[1]:
                self._talk.publish(self._own[0])
        elif self._is_gone():
            memory = ": the system was out of memory" if killed_for_memory() > self._kills else ""
            self._talk.publish(Ending(f"{here()} was killed, or crashed{memory}"))
        elif self._stopped * POLL >= SILENCE:
            self._talk.publish(Ending(still()))
        return self._talk.ending or self._find_lost()

    def _find_lost(self) -> Ending | None:
        """How the run ends where the others can't be reached any more."""
        looks = self._talk.looks
        self._stuck = self._stuck + 1 if looks == self._looks else 0
        self._looks = looks
        patience = SILENCE if self._talk.is_connected or self._is_gone() else MEETING + PERIOD
        if not self._talk.failed and self._stuck * POLL < patience:
            return None
        self._is_lost = True
        why = self._talk.own or Ending(f"{here()} can't reach {self._talk.first}")
        speaks = (is_first_here() or self._is_gone()) and not has_ended_launcher()
        return why._replace(speaker=self._rank if speaks else -1)

    def _end(self, ending: Ending) -> None:
        """Has the process end, and says why where it does not."""
        if not self._is_gone():
            self._send("ending", ending)
        for patience in (GRACE if ending.status else MEETING, GRACE):  # it may still be starting
            end = time.monotonic() + patience
            while time.monotonic() < end and not (self._is_gone() or self._has_parted):
                self._take()
            if not self._is_said or self._rank:
                break
        if self._has_parted:
            return
        speaks = ending.line and ending.speaker == self._rank
        if speaks:
            note_said()
        if not self._is_gone():  # killed first, it can't say why as well
            for process in descendants(self._parent):  # with a compiler that it runs
                with suppress(OSError):
                    os.kill(process, signal.SIGKILL)
        if speaks and (self._rank or not self._is_said):
            more = self._advice()
            print(f"ppo-train: {ending.line}{more and f'; {more}'}", file=sys.stderr, flush=True)

    def _end_agent(self) -> None:
        """Ends torchrun's agent, which for minutes would wait for an answer of the network that is gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            end = time.monotonic() + GRACE
            if self._agent_began and status_of(self._agent)[2] == self._agent_began:
                os.kill(self._agent, number)
            while time.monotonic() < end and status_of(self._agent)[0] not in ("", "Z"):
                time.sleep(POLL)

    def _send(self, kind: str, value: object) -> None:
        try:
            self._pipe.send((kind, value))
        except OSError:  # it has just ended
            return


def is_last_try() -> bool:
    """Whether torchrun's agent, or ours, starts the processes no further time."""
    done, most = (os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return has_agent() and int(done) >= int(most)
