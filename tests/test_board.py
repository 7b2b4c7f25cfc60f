"""What a sweep shows while it runs, read from its jobs' folders alone."""

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.file_proxy import FileProxy

from ppo_cli.hooks import RunState, telling_hooks
from ppo_cli.runs.log import TAGS, RunLog
from ppo_cli.sweeps import live
from ppo_cli.sweeps.job import Job
from ppo_cli.sweeps.live import Board, _columns
from ppo_cli.sweeps.progress import Progress, last_rows, look, marks, time_left


def a_job(folder, steps, evaluated=True, overrides=()):
    """A job of so many steps, each an iteration."""
    config = {"total_timesteps": steps, "n_envs": 1, "n_steps": 1, "vectorization": "sync"}
    return Job(folder, list(overrides), {**config, "eval": {"episodes": int(evaluated)}})


JOB = a_job("seed=0", 512)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def write_rows(folder, steps, returns, total=512):
    """A job's metrics.csv as a run leaves it, a row for each number of steps."""
    folder.mkdir(exist_ok=True)
    for events in folder.glob("events.*"):
        events.unlink()
    log = RunLog(folder)
    run = RunState(folder, {}, None, None, total, log)
    with telling_hooks(run):
        for i, (step, mean) in enumerate(zip(steps, returns, strict=True)):
            values = {**dict.fromkeys(TAGS, 0.5), "charts/episodic_return": mean, "charts/SPS": 1000.0 + i}
            run.iteration, run.steps = i + 1, step
            log.after_iteration(run, values)


def evaluate(folder, mean=20.0):
    (folder / "eval.json").write_text(json.dumps({"mean": mean, "std": 1.5}))


def test_a_job_waits_runs_and_finishes(tmp_path):
    folder = tmp_path / JOB.folder
    before = marks(folder)
    assert look(folder, JOB, before) == Progress()
    folder.mkdir()
    (folder / "train.log").touch()
    assert look(folder, JOB, before) == Progress("running")
    write_rows(folder, [128, 256], [9.0, float("nan")])  # no episode ended in the second iteration
    assert look(folder, JOB, before) == Progress("running", 256, 9.0, 1001.0)
    write_rows(folder, [128, 512], [9.0, 11.0])
    assert look(folder, JOB, before).state == "running"  # it is still to be evaluated
    assert look(folder, a_job(JOB.folder, 512, evaluated=False), before).state == "finished"
    evaluate(folder)
    assert look(folder, JOB, before) == Progress("finished", 512, 11.0, 1001.0)


def test_what_was_there_before_a_sweep_goes_on_says_nothing(tmp_path):
    folder = tmp_path / JOB.folder
    write_rows(folder, [128], [9.0])
    (folder / "failed.txt").write_text("RuntimeError: last time\n")
    (folder / "train.log").write_text("began\n")
    before = marks(folder)
    assert look(folder, JOB, before) == Progress()
    (folder / "train.log").write_text("began\ngoing on\n")
    assert look(folder, JOB, before).state == "running"
    (folder / "failed.txt").write_text("RuntimeError: this time too\n")
    assert look(folder, JOB, before).state == "failed"


def test_only_whole_rows_count_however_long_the_file_is(tmp_path):
    write_rows(tmp_path, range(1, 1001), [1.0] * 1000, total=1000)
    path = tmp_path / "metrics.csv"
    rows = last_rows(path)
    assert 1 < len(rows) < 100
    assert [int(row["step"]) for row in rows] == list(range(1001 - len(rows), 1001))
    whole = path.read_bytes()
    path.write_bytes(whole + b"1001,10")  # a row that is being written
    assert last_rows(path)[-1]["step"] == "1000"
    path.write_bytes(whole[:20])
    assert last_rows(path) == []
    assert last_rows(tmp_path / "none.csv") == []


def test_without_a_terminal_there_is_a_line_for_each_job_that_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live, "POLL_SECONDS", 0.02)
    out = io.StringIO()
    jobs = [a_job(name, 512, evaluated=True) for name in ("a", "b", "c")]
    with Board(Path("sweep"), jobs, Console(file=out, width=40)):
        write_rows_of = {"b": 256, "a": 512}
        for name, steps in write_rows_of.items():
            (tmp_path / "sweep" / name).mkdir(parents=True)
            write_rows(tmp_path / "sweep" / name, [steps], [9.0])
        (tmp_path / "sweep" / "b" / "failed.txt").write_text("OSError: disk full\n\nTraceback ...\n")
        deadline = time.monotonic() + 5
        while "failed" not in out.getvalue():
            assert time.monotonic() < deadline, "a failure is not said while the sweep runs"
            time.sleep(0.02)
        evaluate(tmp_path / "sweep" / "a")
    lines = out.getvalue().splitlines()  # longer than the console is wide, and whole
    assert lines[0] == "3 jobs · sweep"
    assert re.fullmatch(r"sweep/b failed: OSError: disk full · 1/3 done(, less than 1 min left)?", lines[1])
    assert re.fullmatch(r"a finished: return 20\.0 ± 1\.5, 0:0\d · 2/3 done, less than 1 min left", lines[2])
    assert len(lines) == 3


def test_where_the_terminal_is_too_low_the_jobs_that_matter_are_shown(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=90, height=10)
    jobs = [a_job(f"job{i}", 512, evaluated=True) for i in range(20)]
    shown = Board(tmp_path, jobs, console)
    write_rows(tmp_path / "job17", [1], [1.0])
    write_rows(tmp_path / "job18", [1], [1.0])
    (tmp_path / "job18" / "failed.txt").write_text("broken\n")
    for name in ("job2", "job3"):
        write_rows(tmp_path / name, [512], [1.0])
        evaluate(tmp_path / name)
    shown._update()
    with console.capture() as capture:
        console.print(shown.table())
    text = CONTROL.sub("", capture.get())
    assert "2 finished · 1 failed · 1 running · 16 waiting" in text
    assert re.findall(r"job\d+", text) == ["job0", "job1", "job17", "job18"]
    assert "16 more jobs" in text
    assert len(text.rstrip("\n").splitlines()) <= console.height - 1


def shown(tmp_path, width, jobs, height=40, **console):
    """The table of a sweep whose jobs wait, as a console of some width prints it."""
    out = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, **console)
    with out.capture() as capture:
        out.print(Board(tmp_path, jobs, out).table())
    return CONTROL.sub("", capture.get())


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_table_fits_its_width_and_tells_twelve_groups_of_seeds_apart(tmp_path, width):
    grid = [(clip, lam, seed) for clip in (0.1, 0.2, 0.3) for lam in (0.9, 0.95) for seed in (0, 1)]
    jobs = [
        a_job(
            f"{clip},{lam},{seed}", 100_000_000, True,
            ("env=CartPole-v1", "n_steps=64", f"ppo.clip_ratio={clip}", f"gae_lambda={lam}", f"seed={seed}"),
        )
        for clip, lam, seed in grid
    ]  # fmt: skip
    text = shown(tmp_path, width, jobs)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "CartPole" not in text
    assert "n_steps" not in text
    rows = [line.split()[0] for line in lines if "waiting" in line and "=" in line]
    assert len(set(rows)) == len(grid)
    for row, (clip, lam, seed) in zip(rows, grid, strict=True):  # what is swept stands whole
        assert re.fullmatch(rf"[^=]+={lam},[^=]+={clip},[^=]+={seed}", row)
    assert {"state", "done", "return", "left"} <= set(lines[1].split())
    assert ("steps/s" in lines[1]) == (width == 100)


def test_what_is_swept_stands_in_rows_that_happen_to_share_it(tmp_path):
    jobs = [
        a_job(f"{clip},{seed}", 512, True, ("env=CartPole-v1", f"clip_ratio={clip}", f"seed={seed}"))
        for clip in (0.1, 0.2)
        for seed in range(6)
    ]
    text = shown(tmp_path, 80, jobs, height=9)  # three rows, all of the first group
    names = [line.split()[0] for line in text.splitlines() if "clip_ratio" in line]
    assert names == [f"clip_ratio=0.1,seed={seed}" for seed in range(3)]


def test_a_long_name_is_cut_where_jobs_do_not_differ(tmp_path):
    text = shown(tmp_path, 80, [a_job(f"{'x' * 100},seed={seed}", 100_000_000, True) for seed in (7, 8)])
    assert re.findall(r"^(\S+=\S+) +waiting", text, re.MULTILINE) == ["seed=7", "seed=8"]
    assert "0/100,000,000" in text
    assert "x" not in text


def test_what_all_jobs_share_is_said_once(tmp_path):
    out = io.StringIO()
    jobs = [a_job(f"seed={i}", 8, True, ("env=CartPole-v1", "n_steps=64", f"seed={i}")) for i in (0, 1)]
    with Board(tmp_path / "sweep", jobs, Console(file=out, width=40)):
        pass
    assert out.getvalue() == f"2 jobs (seed) · env=CartPole-v1 n_steps=64 · {tmp_path / 'sweep'}\n"


def test_a_console_that_lacks_signs_gets_a_table_of_plain_letters(tmp_path):
    out = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), force_terminal=True, width=60)
    jobs = [a_job(f"{i}", 8, True, (f"env.id={'é' * 80}{i}{'é' * 80}",)) for i in range(9)]
    with out.capture() as capture:
        out.print(Board(tmp_path, jobs, out).table())
    text = CONTROL.sub("", capture.get())
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 60
    rows = re.findall(r"^(\S+) +.waiting", text, re.MULTILINE)
    assert len(rows) == len(set(rows)) == 9


JOBS = [a_job(name, 1000, True) for name in ("a", "b", "c", "d")]


@pytest.mark.parametrize(
    ("progress", "gained", "workers", "seconds"),
    [
        ([Progress()] * 4, [0] * 4, 0, None),
        ([Progress("running", 0, seconds=3.0), *[Progress()] * 3], [0] * 4, 1, None),
        # 10 s a job; the running one needs 5 s more: 5 + 10 + 10
        ([Progress("finished", 1000, seconds=10.0), Progress("running", 500, speed=100.0, seconds=5.0),
          *[Progress()] * 2], [1000, 500, 0, 0], 1, 25.0),
        # two at a time: 5 + 10 beside 10
        ([Progress("finished", 1000, seconds=10.0), Progress("running", 500, speed=100.0, seconds=5.0),
          *[Progress()] * 2], [1000, 500, 0, 0], 2, 15.0),
        # what went on with a job at step 900 took 2 s for 100 steps; of a failed one nothing is left
        ([Progress("finished", 1000, seconds=2.0), Progress("failed", 0, seconds=9.0), *[Progress()] * 2],
         [100, 0, 0, 0], 1, 40.0),
        ([Progress("finished", 1000, seconds=10.0)] * 4, [1000] * 4, 2, 0.0),
    ],
)  # fmt: skip
def test_the_time_left_follows_from_steps_speeds_and_jobs_at_once(progress, gained, workers, seconds):
    found = time_left(list(zip(JOBS, progress, strict=True)), gained, workers)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_no_process_is_forked_while_the_table_is_drawn_and_a_child_prints_plainly(monkeypatch):
    forked = threading.Event()

    def fork():
        if (child := os.fork()) == 0:
            os._exit(0 if not isinstance(sys.stdout, FileProxy) else 1)
        status.append(os.waitpid(child, 0)[1])
        forked.set()

    status = []
    monkeypatch.setattr(sys, "stdout", FileProxy(Console(file=io.StringIO()), io.StringIO()))
    thread = threading.Thread(target=fork)
    with live.drawing():
        thread.start()
        assert not forked.wait(0.2)
    assert forked.wait(5)
    thread.join()
    assert status == [0]


@pytest.mark.slow
def test_on_a_terminal_there_is_one_table_and_no_progress_line_of_a_job(tmp_path):
    ours, theirs = pty.openpty()
    arguments = [
        "-m", "env.id=broken_envs:Faulty-v0", "+env.kwargs.mode=raise", "+env.kwargs.at=99999,131,99998",
        "n_envs=2", "n_steps=64", "total_timesteps=1024", "n_epochs=1", "eval.episodes=1",
        "vectorization=async", "hydra.sweep.dir=sweep",
    ]  # fmt: skip
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", "from ppo_cli.cli.train import main; main()", *arguments],
        cwd=tmp_path, stdout=theirs, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while True:
            shown += os.read(ours, 65536)
    os.close(ours)
    assert process.wait(60) == 1
    assert process.stderr.read().startswith("ppo-train: 1 of 3 jobs failed")
    process.stderr.close()
    text = CONTROL.sub("", shown.decode())
    assert "━" not in text  # the bar of a run
    assert text.count("+env.kwargs.at=131 failed: environment 0 raised ArithmeticError: cursed") == 1
    last = text[text.rindex("2 finished · 1 failed") :]
    states = re.findall(r"\+env\.kwargs\.at=(\d+) +(\w+) +\d+% +([\d,]+/1,024)", last)
    assert [(at, state) for at, state, _ in states] == [
        ("99999", "finished"),
        ("131", "failed"),
        ("99998", "finished"),
    ]
    assert states[0][2] == "1,024/1,024"


def test_a_job_is_as_far_as_its_whole_iterations_are_and_small_returns_are_told_apart(tmp_path):
    config = {"total_timesteps": 70, "n_envs": 1, "n_steps": 64, "vectorization": "auto"}
    job = Job("seed=0", [], {**config, "eval": {"episodes": 1}})
    columns = _columns([(job, Progress("running", 64, 0.968, 1000.0))])
    cells = {column.heading: column.cells[0] for column in columns}
    assert (cells["done"], cells["steps"], cells["return"]) == ("50%", "64/128", "0.968")
    (tmp_path / job.folder).mkdir()
    (tmp_path / job.folder / "eval.json").write_text('{"mean": 0.9684, "std": 0.0061}')
    assert "finished: return 0.968 ± 0.006, " in Board(tmp_path, [job])._line(job.folder, 1)


@pytest.mark.parametrize("count", [200])
def test_looking_at_many_jobs_costs_next_to_nothing(tmp_path, count):
    jobs = [a_job(f"seed={i}", 100_000, evaluated=True) for i in range(count)]
    shown = Board(tmp_path, jobs, Console(file=io.StringIO(), force_terminal=True, height=40, width=100))
    for job in jobs[:8]:
        write_rows(tmp_path / job.folder, range(1, 200), [1.0] * 199, total=100_000)
    start = time.process_time()
    for _ in range(5):
        shown._update()
    assert (time.process_time() - start) / 5 < 0.1
