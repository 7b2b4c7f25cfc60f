"""Sweeps: a failing job stops no other, and a sweep that is stopped anywhere goes on to the same bits."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from run_ends import assert_same_end
from run_hooks import INTERRUPTIBLE, Interrupt

from ppo_cli.config.schema import conf_dir
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.new_folder import folder_name, job_names
from ppo_cli.sweeps.schema import SCHEMAS, read_settings

RUN = (  # 4 iterations
    "n_envs=2", "n_steps=64", "total_timesteps=512", "n_epochs=1", "eval.episodes=1", "vectorization=sync"
)  # fmt: skip
SWEEP = ("-m", "env=CartPole-v1", *RUN, INTERRUPTIBLE, "checkpoint.every=1", "seed=range(3)")
JOBS = ["seed=0", "seed=1", "seed=2"]
FAULTY = (
    "-m",
    "env.id=broken_envs:Faulty-v0",
    "+env.kwargs.mode=raise",
    "+env.kwargs.at=9999,131,9998",
    *RUN,
)


def killed(folder, after, *typed):
    """The status of a `ppo-train` that ends by SIGKILL in such an iteration, over all jobs."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "KILL_AFTER": str(after), "PYTHONPATH": path}
    program = "from ppo_cli.cli.train import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *typed], cwd=folder, env=environment, capture_output=True
    ).returncode


@pytest.fixture
def interrupt(monkeypatch):
    """A function that sends this process a signal in such an iteration, over all jobs."""
    monkeypatch.setattr(Interrupt, "left", 0)
    monkeypatch.setattr(Interrupt, "number", signal.SIGTERM)

    def after(count, number=signal.SIGTERM):
        Interrupt.left, Interrupt.number = count, number

    return after


def contents(folder):
    """Bytes and time of every file below a folder, but for the lock of whoever looks."""
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / ".lock"]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def assert_same_sweep(first, second, jobs=tuple(JOBS)):
    assert sorted(path.parent.name for path in second.glob("*/config.yaml")) == sorted(jobs)
    for job in jobs:
        assert_same_end(first / job, second / job)


@pytest.mark.slow
def test_killed_in_the_middle_of_a_job_and_resumed(ppo_train, tmp_path):
    assert ppo_train(*SWEEP, "hydra.sweep.dir=whole").status == 0
    assert killed(tmp_path, 6, *SWEEP, "hydra.sweep.dir=cut") == -signal.SIGKILL
    finished = contents(tmp_path / "cut" / JOBS[0])
    assert not (tmp_path / "cut" / JOBS[1] / "eval.json").exists()
    assert not (tmp_path / "cut" / JOBS[2]).exists()
    resumed = ppo_train("sweep.resume=cut")
    assert resumed.status == 0, resumed.err
    assert "finished already: 1 of 3 jobs" in resumed.out
    log = (tmp_path / "cut" / JOBS[1] / "train.log").read_text()
    assert f"going on from step 128 in cut/{JOBS[1]}" in log
    assert resumed.out.splitlines()[-2:] == ["finished: 3 of 3 jobs · cut", "next: ppo-report 'cut'"]
    assert contents(tmp_path / "cut" / JOBS[0]) == finished
    assert_same_sweep(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_a_signal_ends_the_sweep_and_a_finished_one_is_left_alone(ppo_train, tmp_path, interrupt):
    assert ppo_train(*SWEEP, "hydra.sweep.dir=whole").status == 0
    interrupt(11, signal.SIGINT)
    stopped = ppo_train(*SWEEP, "hydra.sweep.dir=cut")
    assert stopped.status == 130
    assert stopped.err == "ppo-train: SIGINT: `ppo-train sweep.resume='cut'` goes on with the sweep\n"
    shutil.rmtree(tmp_path / "cut" / JOBS[0])  # a job's folder may be gone too
    interrupt(2)
    assert ppo_train("sweep.resume=cut").status == 143
    shutil.move(tmp_path / "cut", tmp_path / "elsewhere")
    assert ppo_train("sweep.resume=elsewhere").status == 0
    assert_same_sweep(tmp_path / "whole", tmp_path / "elsewhere")
    before = contents(tmp_path / "elsewhere")
    again = ppo_train("sweep.resume=elsewhere/")
    assert again.status == 0
    assert [line for line in again.out.splitlines() if not line.startswith("importing run_hooks")] == [
        "finished already: 3 of 3 jobs", "finished: 3 of 3 jobs · elsewhere", "next: ppo-report 'elsewhere'"
    ]  # fmt: skip
    assert contents(tmp_path / "elsewhere") == before


def test_a_failing_job_is_said_at_once_and_at_the_end_and_stops_no_other(ppo_train, tmp_path):
    outcome = ppo_train(*FAULTY, "hydra.sweep.dir=sweep")
    assert outcome.status == 1
    failed = "+env.kwargs.at=131"
    reason = "environment 0 raised ArithmeticError: cursed"
    lines = outcome.out.splitlines()
    said = [i for i, line in enumerate(lines) if line.startswith(f"sweep/{failed} failed: {reason}")]
    assert len(said) == 1
    assert any(line.startswith("+env.kwargs.at=9998 finished: return ") for line in lines[said[0] :])
    assert lines[0].startswith(
        "3 jobs (+env.kwargs.at) · env.id=broken_envs:Faulty-v0 +env.kwargs.mode=raise n_envs=2 "
    )
    assert lines[-2:] == ["finished: 2 of 3 jobs · sweep", "next: ppo-report 'sweep'"]
    head, row, *again = outcome.err.splitlines()
    assert head == "ppo-train: 1 of 3 jobs failed"
    assert row.startswith(f"  {failed}  {reason}")
    assert "resume=" not in row  # the whole sweep's stands below
    assert again == ["to try them again:", "ppo-train sweep.resume='sweep'"]
    assert "Traceback" not in outcome.out
    assert len(list(tmp_path.glob("sweep/*/eval.json"))) == 2
    finished = contents(tmp_path / "sweep" / "+env.kwargs.at=9999")
    assert ppo_train("sweep.resume=sweep").status == 1  # it fails again, and alone
    assert contents(tmp_path / "sweep" / "+env.kwargs.at=9999") == finished


def test_another_sweeper_runs_and_its_failures_are_told(ppo_train, tmp_path):
    outcome = ppo_train(*FAULTY, "hydra/sweeper=basic", "hydra.sweep.dir=sweep")
    assert outcome.status == 1
    assert outcome.err.startswith("ppo-train: 1 jobs of sweep failed\n  +env.kwargs.at=131")
    assert len(list(tmp_path.glob("sweep/*/eval.json"))) == 2
    assert ppo_train("sweep.resume=sweep").status == 2


def test_any_exception_of_a_job_is_a_line(ppo_train, tmp_path, monkeypatch):
    from ppo_cli.runs import run

    whole = run.run

    def fail(config, folder, saved=None, **settings):
        if config.seed == 0:
            raise KeyError("lost")
        return whole(config, folder, saved, **settings)

    monkeypatch.setattr(run, "run", fail)
    outcome = ppo_train("-m", "env=CartPole-v1", *RUN, "seed=0,1", "hydra.sweep.dir=sweep")
    assert outcome.status == 1
    assert "sweep/seed=0 failed: KeyError: 'lost'" in outcome.out
    assert "  seed=0  KeyError: 'lost'" in outcome.err
    assert "Traceback" not in outcome.out + outcome.err
    assert "Traceback" in (tmp_path / "sweep" / "seed=0" / "failed.txt").read_text()
    monkeypatch.setattr(run, "run", whole)
    assert ppo_train("sweep.resume=sweep").status == 0
    assert not (tmp_path / "sweep" / "seed=0" / "failed.txt").exists()


@pytest.mark.slow
def test_jobs_keep_the_configs_that_they_began_with(ppo_train, tmp_path, interrupt):
    preset = tmp_path / "mine" / "env" / "FrozenLake-v1.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text("# @package _global_\ngamma: 0.9\n")
    sweep = ("-m", "--config-dir", "mine", "env=FrozenLake-v1", *RUN, INTERRUPTIBLE, "seed=0,1")
    assert ppo_train(*sweep, "hydra.sweep.dir=whole").status == 0
    interrupt(2)
    assert ppo_train(*sweep, "hydra.sweep.dir=cut").status == 143
    preset.write_text("# @package _global_\ngamma: 0.5\n")
    assert ppo_train("sweep.resume=cut").status == 0
    assert_same_sweep(tmp_path / "whole", tmp_path / "cut", ("seed=0", "seed=1"))


def test_a_range_is_a_sweep(ppo_train, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hydra"), "level", logging.ERROR)  # a program's own
    outcome = ppo_train(
        "-m", "env=CartPole-v1", *RUN, "total_timesteps=1", "eval.episodes=0", "seed=range(3)"
    )
    assert outcome.status == 0, outcome.err
    assert logging.getLogger("hydra").level == logging.ERROR
    (sweep,) = tmp_path.glob("outputs/sweeps/*")
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {"seed=0", "seed=1", "seed=2"}
    assert [job["folder"] for job in json.loads((sweep / "jobs.json").read_text())["jobs"]] == [
        "seed=0", "seed=1", "seed=2"
    ]  # fmt: skip
    assert ppo_train(f"sweep.resume={sweep}").out.splitlines()[0] == "finished already: 3 of 3 jobs"
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_joblib_launcher", None)
    missing = ppo_train(f"sweep.resume={sweep}", "hydra/launcher=joblib")
    assert missing.status == 2
    assert missing.err.endswith("needs an extra: pip install 'ppo-cli[joblib]'\n")


def test_hydra_makes_our_sweepers_whose_settings_are_knobs_with_a_default_and_a_comment():
    made = {kind.__name__: kind for kind in Plugins.instance().discover(Sweeper)}
    for name, schema in SCHEMAS.items():
        text = (conf_dir() / "hydra" / "sweeper" / f"{name}.yaml").read_text()
        defaults = yaml.safe_load(text)
        module, _, kind = defaults.pop("_target_").rpartition(".")
        assert made[kind].__module__ == module
        assert list(defaults) == [field.name for field in fields(schema)]
        assert read_settings(schema, defaults) == schema(**defaults)
        assert text.count(" # ") == len(defaults)


def test_importing_what_sweeps_changes_nothing_for_others():
    program = (
        "import os, warnings, optuna\n"
        "taken = []\nos.register_at_fork = lambda **hooks: taken.extend(hooks.values())\n"
        "level = optuna.logging.get_verbosity()\n"
        "import ppo_cli.sweeps.live, ppo_cli.sweeps.search.run, ppo_cli.sweeps.sweep\n"
        "assert optuna.logging.get_verbosity() == level\n"
        "assert not any(issubclass(optuna.exceptions.ExperimentalWarning, kind) and action == 'ignore'"
        " for action, _, kind, *_ in warnings.filters if kind is not Warning)\n"
        "assert not any(hook.__module__.startswith('ppo_cli.sweeps') for hook in taken)\n"
    )
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **path}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "typed", [("env=CartPole-v1,Acrobot-v1", "preset=none"), ("env.id=CartPole-v1,Acrobot-v1",)]
)
def test_environments_are_swept_without_their_presets(ppo_train, tmp_path, typed):
    done = ppo_train("-m", *typed, *RUN, "hydra.sweep.dir=sweep")
    assert done.status == 0, done.err
    configs = [RunFolder(file.parent).config for file in (tmp_path / "sweep").glob("*/config.yaml")]
    assert {config.env.id for config in configs} == {"CartPole-v1", "Acrobot-v1"}
    assert {config.gae_lambda for config in configs} == {0.95}
    assert ppo_train("-m", *typed, "--help").status == 0


def test_stopped_jobs_are_finished_also_where_their_checkpoints_are_gone(ppo_train, tmp_path):
    stopped = ("stop.return=1", "stop.window=1", "total_timesteps=4096", "seed=1,2", "hydra.sweep.dir=sweep")
    assert ppo_train("-m", "env=CartPole-v1", *RUN, *stopped).status == 0
    for folder in (tmp_path / "sweep").glob("*/checkpoints"):
        shutil.rmtree(folder)
    assert ppo_train("sweep.resume=sweep").status == 0
    assert not list((tmp_path / "sweep").glob("*/failed.txt"))


def test_a_name_is_short_enough_for_a_file_system_in_any_script():
    assert folder_name("clip_ratio=0.1") == "clip_ratio=0.1"
    names = [folder_name(f"tags={'学习' * 100}{number}") for number in range(2)]
    assert names[0] != names[1]
    assert all(len(os.fsencode(name)) <= 120 for name in names)


def test_names_of_jobs_say_what_differs_and_never_collide():
    def names(*axis):
        return job_names([["env=CartPole-v1", override, "hydra.verbose=true"] for override in axis])

    assert names("seed=0", "seed=1") == ["seed=0", "seed=1"]
    assert names("env.id=a/b", "env.id=a:b", "env.id=A-b") == ["env.id=a-b", "env.id=a-b_2", "env.id=A-b_3"]
    assert names("env.id=a/b", "env.id=a:b", "env.id=a-b_2") == [
        "env.id=a-b",
        "env.id=a-b_2",
        "env.id=a-b_2_2",
    ]
    assert job_names([["env=CartPole-v1", "seed=3"]]) == ["env=CartPole-v1,seed=3"]
    assert job_names([[]]) == ["job"]
    long = names(*(f"env.id={'x' * 200}{i}" for i in range(3)))
    assert len(set(long)) == 3
    assert max(map(len, long)) <= 120


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sweep.resume=nothing",), "sweep.resume=nothing: no sweep there (no jobs.json)"),
        (("sweep.resume=a", "sweep.resume=b"), "name one folder"),
        (("sweep.resume=nothing", "seed=1"), "seed=1: sweep.resume= takes settings of Hydra's only"),
        (("sweep.resume=nothing", "hydra/sweeper=basic"), "goes on with the sweeper that planned it"),
        (("-m", "seed=0,1", "hydra.sweep.subdir=x"), "hydra.sweep.subdir"),
        (("-m", "seed=0,1", "hydra.verbose=true,false"), "can't be swept"),
        (("-m", "seed=0,1", "hydra.searchpath=[file:///nowhere]"), "/nowhere: no such folder"),
        (("-m", "env=CartPole-v1", "network=glob(zzz*)"), "the sweep has no job"),
        (
            ("-m", "env=CartPole-v1", "seed=0,1", "hydra.sweeper.max_batch_size=-3"),
            "max_batch_size=-3: expected",
        ),
    ],
)
def test_what_can_not_be_swept_is_a_line(ppo_train, tmp_path, arguments, said):
    outcome = ppo_train(*arguments)
    assert outcome.status == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_in_a_file_is_refused(ppo_train, tmp_path):
    file = tmp_path / "mine" / "experiment" / "grid.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nhydra: {sweeper: {params: {seed: '0,1'}}}\n")
    outcome = ppo_train("-m", "--config-dir", "mine", "experiment=grid")
    assert outcome.status == 2
    assert outcome.err == "ppo-train: hydra.sweeper.params: type what to sweep on the command line\n"
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}


def test_a_folder_that_is_in_use_is_refused(ppo_train, tmp_path):
    assert ppo_train("-m", "env=CartPole-v1", *RUN, "seed=0,1", "hydra.sweep.dir=sweep").status == 0
    second = ppo_train("-m", "env=CartPole-v1", *RUN, "seed=0,1", "hydra.sweep.dir=sweep")
    assert second.status == 2
    assert "hydra.sweep.dir=sweep is not empty" in second.err
    (tmp_path / "sweep" / "jobs.json").write_text("[1]")
    broken = ppo_train("sweep.resume=sweep")
    assert broken.status == 2
    assert "is not a list of jobs" in broken.err
    assert broken.err.count("\n") == 1


@pytest.mark.parametrize(
    ("launcher", "extra", "module"),
    [
        ("joblib", "joblib", "hydra_plugins.hydra_joblib_launcher"),
        ("submitit_local", "submitit", "hydra_plugins.hydra_submitit_launcher"),
        ("submitit_slurm", "submitit", "hydra_plugins.hydra_submitit_launcher"),
        ("ray", "ray", "ray"),
    ],
)
def test_a_launcher_that_is_not_installed_names_its_extra(
    ppo_train, tmp_path, monkeypatch, launcher, extra, module
):
    monkeypatch.setitem(sys.modules, module, None)
    outcome = ppo_train("-m", "env=CartPole-v1", "seed=0,1", f"hydra/launcher={launcher}")
    assert outcome.status == 2
    assert outcome.err == (
        f"ppo-train: hydra/launcher={launcher} needs an extra: pip install 'ppo-cli[{extra}]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def start(folder, *arguments, **environment):
    """`ppo-train` as a process of its own, from which launchers start theirs.

    As with the installed command, modules are not looked for in the current folder; but for ``PYTHONPATH=.``.
    """
    tests = Path(__file__).parent
    script = folder / "bin" / "ppo-train"
    script.parent.mkdir(exist_ok=True)
    script.write_text("from ppo_cli.cli.train import main; main()")
    shutil.copy(tests / "broken_envs.py", folder)
    path = [".", *(entry for entry in sys.path if Path(entry) != tests)]
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def started(folder, *arguments, **environment):
    """`start` to its end."""
    process = start(folder, *arguments, **environment)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def process_of(folder):
    """Id of the process of the job in a folder, which is in the name of its event file."""
    (file,) = folder.glob("events.out.tfevents.*")
    return int(file.name.rpartition(".")[2])


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rows(folder):
    """Number of iterations that a job has logged."""
    path = folder / "metrics.csv"
    return path.read_text().count("\n") - 1 if path.exists() else 0


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(("joblib", "hydra.launcher.n_jobs=2"), id="joblib"),
        pytest.param(("submitit_local",), id="submitit", marks=pytest.mark.slow),
        pytest.param(("ray", "hydra.launcher.ray.init.num_cpus=2"), id="ray", marks=pytest.mark.slow),
    ],
)
def test_a_launcher_gives_the_same_bits_and_tells_failed_jobs_apart(ppo_train, tmp_path, launcher):
    name, *settings = launcher
    alone = ppo_train(*FAULTY, "hydra.sweep.dir=alone")
    assert alone.status == 1
    parallel = started(tmp_path, *FAULTY, "hydra.sweep.dir=beside", f"hydra/launcher={name}", *settings)
    assert parallel.returncode == 1
    assert parallel.stderr.replace("beside", "alone").splitlines()[-4:] == alone.err.splitlines()
    assert "Traceback" not in parallel.stdout + parallel.stderr
    for at in (9999, 9998):
        job = f"+env.kwargs.at={at}"
        assert_same_end(tmp_path / "alone" / job, tmp_path / "beside" / job)
    shutil.rmtree(tmp_path / "beside" / job)
    resumed = ppo_train("sweep.resume=beside", "hydra/launcher=basic")
    assert resumed.status == 1
    assert_same_end(tmp_path / "alone" / job, tmp_path / "beside" / job)


LONGER = ("-m", "env=CartPole-v1", *RUN, "total_timesteps=16e3", "checkpoint.every=8", "seed=range(3)")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_killed_with_joblib_its_workers_end_too_and_the_sweep_goes_on_to_the_same_bits(ppo_train, tmp_path):
    assert ppo_train(*LONGER, "hydra.sweep.dir=whole").status == 0
    cut = tmp_path / "cut"
    process = start(
        tmp_path, *LONGER, "hydra.sweep.dir=cut", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    wait_for(lambda: rows(cut / JOBS[0]) > 12 and rows(cut / JOBS[1]) > 12)
    workers = [process_of(cut / job) for job in JOBS[:2]]
    process.kill()
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 5)
    began = sorted(path.parent.name for path in cut.glob("*/metrics.csv"))
    assert not all((cut / job / "eval.json").exists() for job in began)
    resumed = ppo_train("sweep.resume=cut", "hydra/launcher=basic")
    assert resumed.status == 0, resumed.err
    assert_same_sweep(tmp_path / "whole", cut)


@pytest.mark.slow
def test_ray_starts_a_job_again_whose_process_was_killed(ppo_train, tmp_path):
    assert ppo_train(*LONGER, "hydra.sweep.dir=whole").status == 0
    cut = tmp_path / "cut"
    process = start(
        tmp_path, *LONGER, "hydra.sweep.dir=cut", "hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=1"
    )
    wait_for(lambda: rows(cut / JOBS[0]) > 12)
    os.kill(process_of(cut / JOBS[0]), signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "finished: 3 of 3 jobs · cut" in out.splitlines()
    assert "going on from step" in (cut / JOBS[0] / "train.log").read_text()
    assert_same_sweep(tmp_path / "whole", cut)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_jobs_find_what_was_compiled_before_with_any_launcher(tmp_path, launcher):
    compiled = ("-m", "env=CartPole-v1", *RUN, "compile=true", "seed=0,1")
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert started(tmp_path, *compiled, "hydra.sweep.dir=alone", **cache).returncode == 0
    before = contents(tmp_path / "cache")
    assert before
    beside = started(tmp_path, *compiled, "hydra.sweep.dir=beside", f"hydra/launcher={launcher}", **cache)
    assert beside.returncode == 0, beside.stderr
    assert contents(tmp_path / "cache") == before
    assert_same_sweep(tmp_path / "alone", tmp_path / "beside", ("seed=0", "seed=1"))


@pytest.mark.slow
def test_a_signal_ends_a_sweep_on_ray_and_it_goes_on_to_the_same_bits(ppo_train, tmp_path):
    assert ppo_train(*LONGER, "hydra.sweep.dir=whole").status == 0
    cut = tmp_path / "cut"
    process = start(tmp_path, *LONGER, "hydra.sweep.dir=cut", "hydra/launcher=ray")
    wait_for(lambda: rows(cut / JOBS[0]) > 12)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == "ppo-train: SIGTERM: `ppo-train sweep.resume='cut'` goes on with the sweep\n"
    resumed = ppo_train("sweep.resume=cut", "hydra/launcher=basic")
    assert resumed.status == 0, resumed.err
    assert_same_sweep(tmp_path / "whole", cut)


def test_what_is_to_be_known_of_all_jobs_is_said_once(ppo_train):
    tiny = ("n_envs=1", "n_steps=8", "total_timesteps=8", "eval.episodes=0", "vectorization=sync")
    outcome = ppo_train("-m", "env=LunarLander-v2", *tiny, "seed=0,1", "hydra.sweep.dir=sweep")
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert "LunarLander-v2" in lines[0]
    assert "LunarLander-v3" in lines[0]
    assert lines[1].startswith("2 jobs (seed) · env=LunarLander-v2 n_envs=1 ")
    assert sorted(line.split(" finished: ")[0] for line in lines[2:4]) == ["seed=0", "seed=1"]
    assert lines[4:] == ["finished: 2 of 2 jobs · sweep", "next: ppo-report 'sweep'"]


def test_groups_can_be_swept_by_a_pattern(ppo_train, tmp_path):
    outcome = ppo_train("-m", "env=CartPole-v1", *RUN, "total_timesteps=1", "network=glob(mlp_s*)")
    assert outcome.status == 0, outcome.err
    assert "network=mlp_separate finished: " in outcome.out
