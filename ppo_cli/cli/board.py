"""A sweep while it runs: a live table on a terminal, elsewhere a line for each job that ends.

All of it is read from the jobs' folders, so that it is the same with every launcher.
"""

import contextlib
import csv
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.table import Table
from typing_extensions import Self

from ppo_cli.files import first_line

State = Literal["waiting", "running", "finished", "failed"]

POLL_SECONDS = 1.0  # a table takes some milliseconds to draw
TAIL_BYTES = 4096  # of metrics.csv: some rows, so that one has the return of an episode
STYLES: dict[State, str] = {"running": "cyan", "failed": "bold red", "waiting": "dim", "finished": "green"}
SHOWN_FIRST = list(STYLES)  # where the terminal has not a line for every job
OTHER_COLUMNS = 54  # cells of a row that are not the job's name
OTHER_LINES = 7  # of the table that are not jobs, and one below it


@dataclass(frozen=True)
class Job:
    """What is known of a job before it runs: its folder's name, its budget, and whether it is evaluated."""

    name: str
    total_timesteps: int
    evaluated: bool


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
    return {name: _mark(folder / name) for name in ("train.log", "metrics.csv", "eval.json", "failed.txt")}


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
    rows = last_rows(folder / "metrics.csv") if "metrics.csv" in new else []
    steps = int(rows[-1]["step"]) if rows else 0
    returns = [row["charts/episodic_return"] for row in rows if row["charts/episodic_return"]]
    state: State = "running"
    if "failed.txt" in new:
        state = "failed"
    elif "eval.json" in new or (not job.evaluated and steps >= job.total_timesteps):
        state = "finished"
    return Progress(
        state,
        steps,
        float(returns[-1]) if returns else None,
        float(rows[-1]["charts/SPS"]) if rows and rows[-1]["charts/SPS"] else None,
    )


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
        self._console = console or Console(highlight=False)
        self._live: Live | None = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="board", daemon=True)

    def __enter__(self) -> Self:
        """Starts to look."""
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
            for name in sorted(ended, key=self._ended_at):
                if self._live is None or self._progress[name].state == "failed":
                    self._console.print(self._line(name), soft_wrap=True, markup=False)
            if self._live is not None:
                self._live.update(self.table(), refresh=True)

    def _ended_at(self, name: str) -> int:
        found = marks(self._folder / name)
        mark = found["failed.txt"] or found["eval.json"] or found["metrics.csv"]
        return mark[0] if mark else 0

    def _line(self, name: str) -> str:
        folder, progress = self._folder / name, self._progress[name]
        if progress.state == "failed":
            return f"{folder} failed: {reason(folder)}"
        result = ""
        if self._jobs[name].evaluated:
            evaluation = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
            result = f"return {evaluation['mean']:.1f} ± {evaluation['std']:.1f} after "
        return f"{folder} finished: {result}{progress.steps:,} steps, {_duration(progress.seconds)}"

    def table(self) -> Table:
        """The jobs as they were last seen; where there are more than lines, those that matter now."""
        counts = Counter(progress.state for progress in self._progress.values())
        title = " · ".join(
            f"{counts[state]} {state}" for state in ("finished", "failed", "running", "waiting")
        )
        room = max(1, self._console.height - OTHER_LINES)
        shown = sorted(self._progress, key=lambda name: SHOWN_FIRST.index(self._progress[name].state))[:room]
        hidden = len(self._progress) - len(shown)
        table = Table(box=SIMPLE_HEAD, title=title, caption=f"{hidden} more jobs" if hidden else None)
        table.add_column("job", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for heading in ("steps", "return", "steps/s", "time"):
            table.add_column(heading, justify="right", no_wrap=True)
        width = max(12, self._console.width - OTHER_COLUMNS)
        for name in (name for name in self._progress if name in set(shown)):
            progress = self._progress[name]
            table.add_row(
                name if len(name) <= width else f"…{name[1 - width :]}",  # names differ at the end
                progress.state,
                f"{progress.steps:,}/{self._jobs[name].total_timesteps:,}",
                "" if progress.episodic_return is None else f"{progress.episodic_return:.1f}",
                "" if progress.speed is None else f"{progress.speed:,.0f}",
                "" if progress.state == "waiting" else _duration(progress.seconds),
                style=STYLES[progress.state],
            )
        return table


def reason(folder: Path) -> str:
    """Why a job did not finish, in a line."""
    return first_line(folder / "failed.txt") or f"it did not finish; {folder / 'train.log'} may say why"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
