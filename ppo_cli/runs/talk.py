"""What the sidecars of a run's processes tell each other: signs of life, and how the run ends."""

import json
import os
import socket
import time
from contextlib import suppress
from datetime import timedelta
from threading import Event, Thread
from typing import NamedTuple
from uuid import uuid4

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # exported, but not typed so

from ppo_cli.runs.ranks import POLL, SILENCE, has_agent

PERIOD = 0.5  # seconds between two signs of life
MEETING = 300.0 if has_agent() else 25.0  # for all to come; who is killed meanwhile is found out
GRACE = 4.0  # for a process to end by itself, once it can know that the run has ended


class Ending(NamedTuple):
    """How a run ends.

    Attributes:
        line: Why; empty where nothing is to be said.
        status: The status of its processes: 0 where it is over, 128 + n by signal n.
        speaker: The number of the process that says the line, or whose sidecar does.
    """

    line: str
    status: int = 1
    speaker: int = 0


class Talk(Thread):
    """What the sidecars of a run's processes tell each other.

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
        who = "what started it" if has_agent() else "process 0"
        self.first = "{} at {MASTER_ADDR}:{MASTER_PORT}".format(who, **os.environ)
        self._hosts = not rank and not has_agent()
        self._store: PrefixStore | None = None
        self._called: dict[int, bytes] = {}  # the names of those that the first process has seen
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
        while not self.name and self.ending is None:
            if store.check(["run"]):
                run = store.get("run").decode()
                self._store = shared = PrefixStore(run, store)
                self.is_connected = True
                if not self._rank:
                    self._answer(shared)
                    if len(self._called) == len(self._others):
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
                self._miss()
            self.looks += 1
            self._wake.wait(POLL)

    def _answer(self, shared: PrefixStore) -> None:
        """Has those know that are there that the first process has seen them."""
        shared.set("beat/0", f"0 {socket.gethostname()}")
        for rank in self._others:
            if shared.check([f"call/{rank}"]):
                own = shared.get(f"call/{rank}")
                if self._called.get(rank) != own:
                    shared.set(f"seen/{rank}", own.decode())
                self._called[rank] = own

    def _miss(self) -> None:
        """Ends what has not come together."""
        missing = ", ".join(str(rank) for rank in self._others if rank not in self._called)
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
        elif not self._rank:  # it has ended already, and who comes now is told
            self._answer(shared)
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
            end = time.monotonic() + (GRACE * 2 if self.name else MEETING)  # they may still be starting
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


def own_store(run: str) -> PrefixStore:
    """The part of the store of which the collectives of a run make use."""
    return PrefixStore(f"{run}/collectives", connect(MEETING))


def answers(address: str, port: int) -> bool:
    """Whether somebody is there; PyTorch's store, which waits too, prints a page where nobody comes."""
    try:
        socket.create_connection((address, port), SILENCE).close()
    except OSError:
        return False
    return True
