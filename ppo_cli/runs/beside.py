"""A process beside each process of a run, which finds out when one of them is gone, and ends all of them.

They talk in a store (`torch.distributed.TCPStore`): that of torchrun's agent, or where there is none one
that the process beside the first has. Whatever a process of the run does, compile, wait for another or hang,
what is beside it gives signs of life, and looks for those of the others. Who finds that a process was killed,
stands still, can't be reached or failed puts that into the store, where the first word counts. All others are
told, have a moment to end by themselves, and are killed. The first process says why, or what is beside it.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple
from uuid import uuid4

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # exported, but not typed so

from ppo_cli.runs.ranks import has_agent, here, note_said

POLL, PERIOD = 0.1, 0.5  # seconds between two looks at a process, and between two signs of life
SILENCE = 12.0  # seconds after which what gives no sign of life is gone
MEETING = 300.0 if has_agent() else 15.0  # for all to come; torchrun sees who is gone of those that it starts
GRACE = 4.0  # for a process to end by itself, once it can know that the run has ended
SETTLE = 1.5  # until a signal counts as why a run ends: torchrun sends one where a process is gone


class Ending(NamedTuple):
    """How a run ends.

    Attributes:
        line: Why; empty where nothing is to be said.
        status: The status of its processes: 0 where it is over, 128 + n by signal n.
        speaker: The number of the process beside which the line is said, if not by it.
    """

    line: str
    status: int = 1
    speaker: int = 0


class Beside:
    """What is beside a process of a run.

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
        elif not self._has_parted and is_first_here(self._rank) and is_last_try():
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
            line, status, self._is_said = value
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
            self._talk.publish(Ending(f"{here()} stands still for {SILENCE:.0f} seconds"))
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
        return why._replace(speaker=self._rank if is_first_here(self._rank) else -1)

    def _end(self, ending: Ending) -> None:
        """Has the process end, and says why where it does not."""
        if not self._is_gone():
            self._send("ending", ending)
        for patience in (GRACE, GRACE):
            end = time.monotonic() + patience
            while time.monotonic() < end and not (self._is_gone() or self._has_parted):
                self._take()
            if not self._is_said or self._rank:
                break
        if self._has_parted:
            return
        if ending.line and ending.speaker == self._rank:
            if not self._is_said or self._rank:
                more = self._advice()
                print(f"ppo-train: {ending.line}{more and f'; {more}'}", file=sys.stderr, flush=True)
            note_said()
        if not self._is_gone():
            os.kill(self._parent, signal.SIGKILL)

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


class Talk(Thread):
    """What the processes beside those of a run tell each other.

    A run has a name, which is new each time that it is started, since a store may have seen others.

    Attributes:
        name: The name of the run, once all have met.
        ending: How the run ends, once one has said so.
        own: How it ends as this one has found.
        looks: The number of times that it has looked.
        is_connected: Whether the store is there.
        failed: Whether it is not any more.
        first: The first process, in words.
    """

    def __init__(self, rank: int, processes: int) -> None:
        super().__init__(daemon=True)
        self._rank, self._others = rank, range(1, processes)
        self.name = ""
        self.ending: Ending | None = None
        self.own: Ending | None = None
        self.looks, self.is_connected, self.failed = 0, False, False
        self.first = "process 0 at {MASTER_ADDR}:{MASTER_PORT}".format(**os.environ)
        self._hosts = not rank and not has_agent()
        self._store: PrefixStore | None = None
        self._heard: dict[int, tuple[bytes, int]] = {}  # what each said last, and how many looks ago
        self._wake = Event()

    def publish(self, ending: Ending) -> None:
        """Says how the run ends, unless somebody has."""
        if self.own is None:
            self.own = ending
            self._wake.set()

    def run(self) -> None:
        """Meets the others, and talks with them."""
        until = time.monotonic() + MEETING
        while not self._tries_to_meet(until):
            if time.monotonic() > until:
                self.failed = True
                return
            time.sleep(POLL)
        assert self._store is not None
        with suppress(RuntimeError):
            while True:
                self._beat(self._store)
        self.failed = True

    def _tries_to_meet(self, until: float) -> bool:
        """Whether it has met the others, or how the run ends."""
        try:
            self._meet(connect(until - time.monotonic(), is_master=self._hosts), until)
        except RuntimeError:  # nobody is there yet, or the store of an earlier run still was
            self.is_connected = False
            return False
        return True

    def _meet(self, store: TCPStore, until: float) -> None:
        """Waits until all processes of the run are there, each of which has a name of its own."""
        own, mine = uuid4().hex, f"seen/{self._rank}"
        if not self._rank:
            store.set("run", own)
        called: dict[int, bytes] = {}
        while not self.name and self.ending is None:
            if store.check(["run"]):
                run = store.get("run").decode()
                self._store = shared = PrefixStore(run, store)
                self.is_connected = True
                if not self._rank:
                    self._answer(shared, called)
                    if len(called) == len(self._others):
                        shared.set("met", "")
                else:
                    shared.set(f"beat/{self._rank}", f"0 {socket.gethostname()}")
                    shared.set(f"call/{self._rank}", own)
                # A run that an earlier process has seen is not this one's.
                if not self._rank or (shared.check([mine]) and shared.get(mine).decode() == own):
                    self._exchange(shared)
                    if shared.check(["met"]):
                        self.name = run
            if time.monotonic() > until:
                self._miss(called)
            self.looks += 1
            self._wake.wait(POLL)

    def _answer(self, shared: PrefixStore, called: dict[int, bytes]) -> None:
        """Has those know that are there that the first process has seen them."""
        shared.set("beat/0", f"0 {socket.gethostname()}")
        for rank in self._others:
            if shared.check([f"call/{rank}"]):
                own = shared.get(f"call/{rank}")
                if called.get(rank) != own:
                    shared.set(f"seen/{rank}", own.decode())
                called[rank] = own

    def _miss(self, called: dict[int, bytes]) -> None:
        """Ends what has not come together."""
        missing = ", ".join(str(rank) for rank in self._others if rank not in called)
        if not self._rank and missing:
            self.publish(Ending(f"process {missing} has not come within {MEETING:.0f} seconds of process 0"))
        elif self._rank:
            raise RuntimeError

    def _beat(self, shared: PrefixStore) -> None:
        """Gives a sign of life, and looks for those of the others: the first process of all, they of it."""
        shared.set(f"beat/{self._rank}", f"{self.looks} {socket.gethostname()}")
        watched = [0] if self._rank else list(self._others)
        if self.name:
            said = shared.multi_get([f"beat/{rank}" for rank in watched])
            for rank, beat in zip(watched, said, strict=True):
                self._hear(rank, bytes(beat))
        self._exchange(shared)
        self.looks += 1
        self._wake.wait(PERIOD)
        self._wake.clear()

    def _hear(self, rank: int, said: bytes) -> None:
        last, looks = self._heard.get(rank, (b"", 0))
        looks = looks + 1 if said == last else 0
        self._heard[rank] = said, looks
        who = f"process {rank} on {said.decode().partition(' ')[2]}"
        if not rank:
            self.first = who
        if looks * PERIOD >= SILENCE:
            speaker = 0 if rank else self._rank
            self.publish(Ending(f"{who} gives no sign of life for {SILENCE:.0f} seconds", 1, speaker))

    def _exchange(self, shared: PrefixStore) -> None:
        """Puts an ending into the store, and takes what is there."""
        if self.own is not None and self.ending is None:
            shared.compare_set("end", "", json.dumps(self.own))
        if self.ending is None and shared.check(["end"]):
            self.ending = Ending(*json.loads(shared.get("end")))

    def leave(self) -> None:
        """Ends the talk; whose store it is waits for the others, who may still have to be told."""
        if self._store is None or self.failed or not self.is_connected:
            return
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):  # whoever reads what the run says need not wait
            os.dup2(nothing, number)
        try:
            self._store.set(f"left/{self._rank}", "")
            end = time.monotonic() + GRACE * 2
            left = [f"left/{rank}" for rank in self._others]
            while self._hosts and time.monotonic() < end and not self._store.check(left):
                time.sleep(POLL)
        except RuntimeError:
            return


def connect(seconds: float, is_master: bool = False) -> TCPStore:
    """The store in which all processes of a run meet.

    Args:
        seconds: How long to try.
        is_master: Whether it is made here.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    end = time.monotonic() + seconds
    while not is_master and not answers(address, port):
        if time.monotonic() > end:
            raise RuntimeError(f"nothing answers at {address}:{port}")
        time.sleep(POLL)
    timeout = timedelta(seconds=max(1.0, end - time.monotonic()))
    return TCPStore(address, port, is_master=is_master, timeout=timeout, wait_for_workers=False)


def answers(address: str, port: int) -> bool:
    """Whether somebody is there; PyTorch's store, which waits too, prints a page where nobody comes."""
    try:
        socket.create_connection((address, port), SILENCE).close()
    except OSError:
        return False
    return True


def status_of(process: int) -> tuple[str, int, str]:
    """What Linux has of a process: a letter, T where it is stopped; its parent's number; when it began."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return words[0], int(words[1]), words[19]
    except (OSError, IndexError):
        return "", 0, ""


def is_first_here(rank: int) -> bool:
    """Whether a process is the first one of its machine, as far as that is known."""
    return os.environ.get("LOCAL_RANK", "0" if rank <= 1 else "1") == "0"


def is_last_try() -> bool:
    """Whether torchrun's agent, or ours, starts the processes no further time."""
    done, most = (os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return has_agent() and int(done) >= int(most)


def killed_for_memory() -> int:
    """How many processes this machine has killed because it was out of memory, where it says so."""
    try:
        words = Path("/proc/vmstat").read_text().split()
        return int(words[words.index("oom_kill") + 1])
    except (OSError, ValueError):
        return 0
