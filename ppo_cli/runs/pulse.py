"""Processes of a run that fall silent: stopped, out of memory, or behind a network that is gone."""

import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from threading import Event, Thread

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # exported, but not typed so

from ppo_cli.runs.signals import end_children

PERIOD, SILENCE = 2.0, 20.0  # seconds between two signs of life, and after which there is none


class Pulse:
    """Gives signs of life through the store by which all have met; where one gives none, this process ends.

    The first process listens to all others, and they to it. In a collective one waits for as long as another
    may compile or evaluate; only a process that has ended is found out at once, by its connections.
    """

    def __init__(self, rank: int, processes: int, advice: Callable[[], str]) -> None:
        """Begins.

        Args:
            rank: The number of this process.
            processes: Their number.
            advice: A function that says in a line what to do when the run has ended, or nothing.
        """
        self._rank, self._advice = rank, advice
        self._others = range(1, processes) if rank == 0 else range(1)
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        client = TCPStore(
            host, port, is_master=False, timeout=timedelta(seconds=SILENCE), wait_for_workers=False
        )
        self._store = PrefixStore(f"pulse/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", client)
        # What each said last, and how many looks ago: a run that is stopped as a whole and goes on is silent
        # for no longer than it looks.
        self._heard: dict[int, tuple[str, int]] = {}
        self._over = Event()
        Thread(target=self._beat, name="pulse", daemon=True).start()

    def close(self) -> None:
        """Neither speaks nor listens any more."""
        self._over.set()

    def _beat(self) -> None:
        number, host = 0, socket.gethostname()
        while not self._over.wait(PERIOD):
            number += 1
            try:
                self._store.set(str(self._rank), f"{number} {host}")
                silent = next(filter(None, map(self._silence_of, self._others)), None)
            except RuntimeError:  # of the store: its machine is gone, or its process
                silent = "the first process can't be reached"
            if silent is not None and not self._over.is_set():
                self._end(silent)

    def _silence_of(self, rank: int) -> str | None:
        """What to say where another process gives no sign of life; one that has not begun has time to."""
        if not self._store.check([str(rank)]):
            return None
        said = self._store.get(str(rank)).decode()
        last, looks = self._heard.get(rank, ("", 0))
        looks = looks + 1 if said == last else 0
        self._heard[rank] = said, looks
        if looks * PERIOD < SILENCE:
            return None
        host = said.partition(" ")[2]
        return f"process {rank} on {host} has given no sign of life for {SILENCE:.0f} seconds"

    def _end(self, why: str) -> None:
        """Ends this process, wherever it is; the first one says why, or the second of the first."""
        if self._rank <= 1:
            advice = self._advice()
            print(f"ppo-train: {why}{advice and f'; {advice}'}", file=sys.stderr, flush=True)
        end_children()  # the watchdog too, which would say that this one died
        os._exit(1)
