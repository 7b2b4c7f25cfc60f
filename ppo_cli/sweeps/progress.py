"""A sweep while it runs: a live table on a terminal, elsewhere a line for each job that ends.

All of it is read from the jobs' folders, so that it is the same with every launcher.
"""

import contextlib
import csv
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from rich.console import Console, Group
from rich.file_proxy import FileProxy
from rich.live import Live
from typing_extensions import Self

from ppo_cli.files import printable, read_json
from ppo_cli.names import shared_parts, short_names, split_name
from ppo_cli.runs.folder import RunFolder
from ppo_cli.sweeps.eta import about, makespan
from ppo_cli.tables import Column, draw
from ppo_cli.terminal import is_live, output_console
from ppo_cli.text import clock, mean_and_deviation, short

State = Literal["waiting", "running", "finished", "failed"]

POLL_SECONDS = 1.0  # a table takes some milliseconds to draw
TAIL_BYTES = 4096  # of metrics.csv: some rows, so that one has the return of an episode
STYLES: dict[State, str] = {"running": "cyan", "failed": "bold red", "waiting": "dim", "finished": "green"}
COUNTED: tuple[State, ...] = ("finished", "failed", "running", "waiting")
SHOWN_FIRST = list(STYLES)  # where the terminal has not a line for every job
OTHER_LINES = 6  # of the table that are not jobs, a title of two lines among them, and one below it
METRICS, EVALUATION, FAILED = RunFolder.metrics_csv.name, RunFolder.eval_json.name, RunFolder.failed_txt.name


@dataclass(frozen=True)
class Job:
    """What is known of a job before it runs.

    Attributes:
        name: its folder's.
        total_timesteps: its budget, in whole iterations.
        evaluated: whether it is evaluated at its end.
        overrides: as typed for it; its name stands for them where there are none.
    """

    name: str
    total_timesteps: int
    evaluated: bool
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a job is, by its folder; None is what is not known."""

    state: State = "waiting"
    steps: int = 0
    episodic_return: float | None = None
    speed: float | None = None
    seconds: float = 0.0  # since it was first seen running

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be expected of it."""
        return self.state in ("finished", "failed")


_Marks = dict[str, tuple[int, int] | None]


def marks(folder: Path) -> _Marks:
    """Time and size of the files that tell how a job is, to see later which have changed."""
    run = RunFolder(folder)
    files = (run.train_log, run.metrics_csv, run.eval_json, run.failed_txt)
    return {file.name: _mark(file) for file in files}


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def look(folder: Path, job: Job, before: _Marks) -> Progress:
    """What a job's folder says.

    Args:
        folder: of the job.
        job: what it is to do.
        before: `marks` of the folder when the sweep began or went on: files as old as that say nothing.
    """
    new = {name for name, mark in marks(folder).items() if mark is not None and mark != before[name]}
    if not new:
        return Progress()
    rows = last_rows(RunFolder(folder).metrics_csv) if METRICS in new else []
    steps = int(rows[-1]["step"]) if rows else 0
    returns = [row["charts/episodic_return"] for row in rows if row["charts/episodic_return"]]
    state: State = "running"
    if FAILED in new:
        state = "failed"
    elif EVALUATION in new or (not job.evaluated and steps >= job.total_timesteps):
        state = "finished"
    return Progress(
        state,
        steps,
        float(returns[-1]) if returns else None,
        float(rows[-1]["charts/SPS"]) if rows and rows[-1]["charts/SPS"] else None,
    )


def steps_in(folder: Path) -> int:
    """Environment steps of a job so far, by its metrics.csv."""
    rows = last_rows(RunFolder(folder).metrics_csv)
    return int(rows[-1]["step"]) if rows else 0


def time_left(jobs: Sequence[tuple[Job, Progress]], gained: Sequence[int], workers: int) -> float | None:
    """Seconds until the last job ends, as far as it can be told.

    A running job needs what its steps per second say; a waiting one its steps times p, the seconds for a step
    over all jobs so far (starts, compilation and evaluations included); `makespan` says how they follow each
    other.

    Args:
        jobs: all of them.
        gained: environment steps of each since it began or went on.
        workers: the most jobs that were seen to run at once.

    Returns:
        The seconds, or None where no job has got anywhere yet.
    """
    seconds = sum(progress.seconds for (_, progress), steps in zip(jobs, gained, strict=True) if steps)
    if not sum(gained):
        return None
    pace = seconds / sum(gained)
    running = [(job, progress) for job, progress in jobs if progress.state == "running"]
    waiting = [pace * job.total_timesteps for job, progress in jobs if progress.state == "waiting"]
    left = [
        own if (own := job_left(job, progress)) is not None else pace * (job.total_timesteps - progress.steps)
        for job, progress in running
    ]
    return makespan(left, waiting, max(workers, len(left)))


def job_left(job: Job, progress: Progress) -> float | None:
    """Seconds that a running job needs for its steps; None where it has not said how fast it is."""
    if progress.state != "running" or not progress.speed:
        return None
    return max(0, job.total_timesteps - progress.steps) / progress.speed


def last_rows(path: Path) -> list[dict[str, str]]:
    """The last whole rows of a metrics.csv, by column; none where there is none yet."""
    try:
        with path.open("rb") as file:
            header = file.readline()
            start = max(len(header), file.seek(0, os.SEEK_END) - TAIL_BYTES)
            file.seek(start)
            tail = file.read()
    except OSError:
        return []
    lines = tail[: tail.rfind(b"\n") + 1].decode(errors="replace").splitlines()
    if start > len(header):
        lines = lines[1:]  # it may be a part of a row
    columns = next(csv.reader([header.decode()]), [])
    rows = [dict(zip(columns, row, strict=False)) for row in csv.reader(lines) if len(row) == len(columns)]
    return rows if "charts/SPS" in columns and "charts/episodic_return" in columns else []


# A job that runs in this process may fork, and a child must not get a lock that the thread below holds.
_drawing = threading.RLock()


def _after_fork() -> None:
    _drawing.release()
    for name in ("stdout", "stderr"):  # what a child prints is not for the parent's table
        stream = getattr(sys, name)
        if isinstance(stream, FileProxy):
            setattr(sys, name, stream.rich_proxied_file)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_drawing.acquire, after_in_parent=_drawing.release, after_in_child=_after_fork)


class Board:
    """Shows how the jobs of a sweep are while it is entered, from a thread that looks into their folders."""

    def __init__(self, folder: Path, jobs: Sequence[Job], console: Console | None = None) -> None:
        """Notes how the folders are before the jobs start.

        Args:
            folder: of the sweep.
            jobs: those that are to run.
            console: where to; standard output by default.
        """
        self._folder = folder
        self._jobs = {job.name: job for job in jobs}
        self._before = {name: marks(folder / name) for name in self._jobs}
        self._progress = {name: Progress() for name in self._jobs}
        self._began: dict[str, float] = {}
        self._first = {name: steps_in(folder / name) for name in self._jobs}
        self._workers = 0  # the most that were seen to run at once
        given = [sorted(job.overrides) for job in jobs]
        told_apart = all(given) and len(set(map(tuple, given))) == len(given)
        self._parts = {
            job.name: [f",{part}" for part in own] if told_apart else split_name(job.name)
            for job, own in zip(jobs, given, strict=True)
        }
        self._shared = [part for part in shared_parts([job.overrides for job in jobs]) if part != "~env"]
        self._labels = dict(zip(self._jobs, short_names(list(self._parts.values())), strict=True))
        self._console = console or output_console()
        self._live: Live | None = None
        if is_live(self._console):
            self._live = Live(console=self._console, auto_refresh=False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="board", daemon=True)

    def __enter__(self) -> Self:
        """Says in which knobs jobs differ, in their names' order, and what all share; starts to look."""
        own = (o for job in self._jobs.values() for o in sorted(job.overrides) if o not in self._shared)
        knobs = dict.fromkeys(override.partition("=")[0] for override in own if override != "~env")
        jobs = f"{len(self._jobs)} job{'s'[: len(self._jobs) - 1]}"
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
        with _drawing, contextlib.suppress(OSError):  # of a reader that is gone: the sweep itself will say so
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
        gained = [max(0, progress.steps - self._first[job.name]) for job, progress in jobs]
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

    def column(
        heading: str,
        cell: Callable[[Job, Progress], str | None],
        rank: int = 0,
        least: int = 0,
        right: bool = True,
    ) -> Column:
        return Column(heading, [cell(job, progress) or "" for job, progress in rows], rank, right, least)

    return [
        column("state", lambda _, progress: progress.state, least=len("finished"), right=False),
        column("done", lambda job, progress: f"{min(100, 100 * progress.steps // job.total_timesteps)}%"),
        column("steps", lambda job, progress: f"{progress.steps:,}/{job.total_timesteps:,}", rank=4, least=9),
        column("return", lambda _, progress: _number(progress.episodic_return, short), least=7),
        column("steps/s", lambda _, progress: _number(progress.speed, "{:,.0f}".format), rank=3),
        column(
            "time", lambda _, progress: "" if progress.state == "waiting" else clock(progress.seconds), 2, 5
        ),
        column("left", lambda job, progress: _number(job_left(job, progress), clock), least=5),
    ]


def _number(value: float | None, words: Callable[[float], str]) -> str | None:
    return None if value is None else words(value)


def reason(folder: Path) -> str:
    """Why a job did not finish, in a line, without how to go on with it alone."""
    run = RunFolder(folder)
    return run.failure or f"it did not finish; {run.train_log} may say why"
