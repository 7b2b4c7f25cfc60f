"""How far jobs are, read from their folders alone, so that it is the same with every launcher."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppo_cli.runs.folder import RunFolder
from ppo_cli.sweeps.eta import makespan
from ppo_cli.sweeps.job import Job

State = Literal["waiting", "running", "finished", "failed"]

TAIL_BYTES = 4096  # of metrics.csv: some rows, so that one has the return of an episode


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


METRICS, EVALUATION, FAILED = RunFolder.metrics_csv.name, RunFolder.eval_json.name, RunFolder.failed_txt.name
_Marks = dict[str, tuple[int, int] | None]


def marks(folder: Path) -> _Marks:
    """Time and size of the files that tell how a job is, to see later which have changed."""
    run = RunFolder(folder)
    return {
        file.name: _mark(file) for file in (run.train_log, run.metrics_csv, run.eval_json, run.failed_txt)
    }


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def look(folder: Path, job: Job, before: _Marks) -> Progress:
    """What a job's folder says.

    Args:
        folder: The folder of the job.
        job: The job that it does.
        before: The `marks` of the folder when the sweep began or went on: files as old as that say nothing.
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
    elif EVALUATION in new or (not job.evaluated and steps >= job.steps):
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
        jobs: All jobs.
        gained: Environment steps of each since it began or went on.
        workers: The most jobs that were seen to run at once.

    Returns:
        The seconds, or None where no job has got anywhere yet.
    """
    seconds = sum(progress.seconds for (_, progress), steps in zip(jobs, gained, strict=True) if steps)
    if not sum(gained):
        return None
    pace = seconds / sum(gained)
    running = [(job, progress) for job, progress in jobs if progress.state == "running"]
    waiting = [pace * job.steps for job, progress in jobs if progress.state == "waiting"]
    left = [
        own if (own := job_left(job, progress)) is not None else pace * (job.steps - progress.steps)
        for job, progress in running
    ]
    return makespan(left, waiting, max(workers, len(left)))


def job_left(job: Job, progress: Progress) -> float | None:
    """Seconds that a running job needs for its steps; None where it has not said how fast it is."""
    if progress.state != "running" or not progress.speed:
        return None
    return max(0, job.steps - progress.steps) / progress.speed


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
