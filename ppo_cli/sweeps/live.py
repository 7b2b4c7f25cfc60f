"""Sweeps and trials while they run: a live table on a terminal, elsewhere a line for each job that ends."""

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.file_proxy import FileProxy
from rich.live import Live
from typing_extensions import Self

from ppo_cli.files import printable, read_json
from ppo_cli.names import shared_parts, short_names, split_name
from ppo_cli.runs.folder import RunFolder
from ppo_cli.sweeps.ending import reason
from ppo_cli.sweeps.eta import about
from ppo_cli.sweeps.job import Job
from ppo_cli.sweeps.progress import (
    EVALUATION,
    FAILED,
    METRICS,
    Progress,
    State,
    job_left,
    look,
    marks,
    steps_in,
    time_left,
)
from ppo_cli.tables import Column, draw
from ppo_cli.terminal import is_live, output_console
from ppo_cli.text import clock, counted, mean_and_deviation, short

POLL_SECONDS = 1.0  # a table takes some milliseconds to draw
STYLES: dict[State, str] = {"running": "cyan", "failed": "bold red", "waiting": "dim", "finished": "green"}
COUNTED: tuple[State, ...] = ("finished", "failed", "running", "waiting")
SHOWN_FIRST = list(STYLES)  # where the terminal has not a line for every job
OTHER_LINES = 6  # of the table that are not jobs, a title of two lines among them, and one below it
Cell = Callable[[Job, Progress], str | None]


@cache
def drawing() -> threading.RLock:
    """The lock of whoever draws a table; from the first one on, a child is forked while nobody does.

    A job that runs in this process may fork, and a child must not get a lock that a table's thread holds.
    """
    lock = threading.RLock()

    def after_fork() -> None:
        lock.release()
        for name in ("stdout", "stderr"):  # what a child prints is not for the parent's table
            stream = getattr(sys, name)
            if isinstance(stream, FileProxy):
                setattr(sys, name, stream.rich_proxied_file)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=after_fork)
    return lock


class Board:
    """Shows how jobs are while it is entered, from a thread that looks into their folders."""

    def __init__(
        self, folder: Path, jobs: Sequence[Job], console: Console | None = None, passing: bool = False
    ) -> None:
        """Notes how the folders are before the jobs start.

        Args:
            folder: The folder of the sweep, or of the trial.
            jobs: The jobs that are to run.
            console: The console to print on; standard output by default.
            passing: Whether the table passes with the jobs, and nothing else is said of them.
        """
        self._folder = folder
        self._passing = passing
        self._jobs = {job.folder: job for job in jobs}
        self._before = {name: marks(folder / name) for name in self._jobs}
        self._progress = {name: Progress() for name in self._jobs}
        self._began: dict[str, float] = {}
        self._first = {name: steps_in(folder / name) for name in self._jobs}
        self._workers = 0  # the most that were seen to run at once
        given = [sorted(job.overrides) for job in jobs]
        told_apart = all(given) and len(set(map(tuple, given))) == len(given)
        self._parts = {
            job.folder: [f",{part}" for part in own] if told_apart else split_name(job.folder)
            for job, own in zip(jobs, given, strict=True)
        }
        self._shared = [part for part in shared_parts([job.overrides for job in jobs]) if part != "~env"]
        self._labels = dict(zip(self._jobs, short_names(list(self._parts.values())), strict=True))
        self._console = console or output_console()
        self._live: Live | None = None
        if is_live(self._console):
            self._live = Live(console=self._console, auto_refresh=False, transient=passing)
        self._drawing = drawing()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="board", daemon=True)

    def __enter__(self) -> Self:
        """Says in which knobs jobs differ, in their names' order, and what all share; starts to look."""
        own = (o for job in self._jobs.values() for o in sorted(job.overrides) if o not in self._shared)
        knobs = dict.fromkeys(override.partition("=")[0] for override in own if override != "~env")
        jobs = counted(len(self._jobs), "job")
        if knobs:
            jobs += f" ({', '.join(knobs)})"
        self._say(" · ".join([jobs, *([" ".join(self._shared)] if self._shared else []), str(self._folder)]))
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Looks a last time; the table stays on the terminal."""
        self._stop.set()
        self._thread.join()
        self._update()
        if self._live is not None:
            self._live.stop()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._update()

    def _update(self) -> None:
        """Looks at the jobs that have not ended, and says what is new."""
        with (
            self._drawing,
            contextlib.suppress(OSError),
        ):  # of a reader that is gone: the sweep itself will say so
            ended = []
            for name, job in self._jobs.items():
                if self._progress[name].ended:
                    continue
                now = look(self._folder / name, job, self._before[name])
                if now.state != "waiting":
                    began = self._began.setdefault(name, time.monotonic())
                    now = replace(now, seconds=time.monotonic() - began)
                self._progress[name] = now
                if now.ended:
                    ended.append(name)
            states = Counter(progress.state for progress in self._progress.values())
            self._workers = max(self._workers, states["running"])
            before = sum(progress.ended for progress in self._progress.values()) - len(ended)
            for number, name in enumerate(sorted(ended, key=self._ended_at), before + 1):
                if self._live is None or self._progress[name].state == "failed":
                    self._say(self._line(name, number))
            if self._live is not None:
                self._live.update(self.table(), refresh=True)

    def _say(self, line: str) -> None:
        """A line: whole where it goes into a file or a pipe, and else broken between words alone."""
        if self._passing:
            return
        self._console.print(printable(line), soft_wrap=not self._console.is_terminal, markup=False)

    def _ended_at(self, name: str) -> int:
        found = marks(self._folder / name)
        mark = found[FAILED] or found[EVALUATION] or found[METRICS]
        return mark[0] if mark else 0

    def _line(self, name: str, number: int) -> str:
        """How a job ended, the ``number``-th to end; without a table also how far the sweep is."""
        folder, progress, label = self._folder / name, self._progress[name], self._labels[name]
        if progress.state == "failed":
            said = f"{folder if self._live is None else label} failed: {reason(folder)}"
        elif self._jobs[name].evaluated:
            evaluation = read_json(RunFolder(folder).eval_json)
            result = f"return {mean_and_deviation(evaluation['mean'], evaluation['std'])}"
            said = f"{label} finished: {result}, {clock(progress.seconds)}"
        else:
            said = f"{label} finished: {progress.steps:,} steps, {clock(progress.seconds)}"
        if self._live is not None:
            return said
        return f"{said} · {number}/{len(self._jobs)} done{self._left(', ')}"

    def _left(self, before: str) -> str:
        """What is left of the sweep, in words; nothing where that can't be told, or nothing is."""
        jobs = [(self._jobs[name], progress) for name, progress in self._progress.items()]
        gained = [max(0, progress.steps - self._first[job.folder]) for job, progress in jobs]
        left = time_left(jobs, gained, self._workers)
        ended = all(progress.ended for _, progress in jobs)
        return "" if ended or left is None else f"{before}{about(left)}"

    def table(self) -> Group:
        """The jobs as they were last seen; where there are more than lines, those that matter now."""
        counts = Counter(progress.state for progress in self._progress.values())
        states = [f"{counts[state]} {state}" for state in COUNTED if counts[state]]
        room = max(1, self._console.height - OTHER_LINES)
        shown = sorted(self._progress, key=lambda name: SHOWN_FIRST.index(self._progress[name].state))[:room]
        names = [name for name in self._progress if name in set(shown)]
        hidden = len(self._progress) - len(names)
        rows = [(self._jobs[name], self._progress[name]) for name in names]
        return draw(
            self._console,
            "job",
            [self._parts[name] for name in names],
            _columns(rows),
            [STYLES[progress.state] for _, progress in rows],
            f"{' · '.join(states)}{self._left(' · ')}",
            f"{hidden} more jobs" if hidden else "",
            shared_parts(list(self._parts.values())),
        )


def _columns(rows: Sequence[tuple[Job, Progress]]) -> list[Column]:
    """What is known of each job beside its name; where it is narrow, the steps go first."""

    def column(heading: str, cell: Cell, rank: int = 0, least: int = 0, right: bool = True) -> Column:
        return Column(heading, [cell(job, progress) or "" for job, progress in rows], rank, right, least)

    return [
        column("state", lambda _, progress: progress.state, least=len("finished"), right=False),
        column("done", lambda job, progress: f"{min(100, 100 * progress.steps // job.steps)}%"),
        column("steps", lambda job, progress: f"{progress.steps:,}/{job.steps:,}", rank=4, least=9),
        column(
            "return",
            lambda _, now: _said(now.episodic_return, short),
            least=7,
        ),
        column("steps/s", lambda _, now: _said(now.speed, "{:,.0f}".format), rank=3),
        column(
            "time", lambda _, progress: "" if progress.state == "waiting" else clock(progress.seconds), 2, 5
        ),
        column("left", lambda *row: _said(job_left(*row), clock), least=5),
    ]


def _said(value: float | None, words: Callable[[float], str]) -> str | None:
    return None if value is None else words(value)
