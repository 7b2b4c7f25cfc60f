"""What can go wrong while a run goes on: one line, a status, and a checkpoint that loads."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ppo_cli.envs.make import env_fn
from ppo_cli.envs.snapshot import find_kind
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.runs.folder import own_run

RUN = ("n_envs=3", "n_steps=40", "total_timesteps=720", "batch_size=60", "eval.episodes=0", "compile=false")
PROGRAM = "from ppo_cli.cli.train import main; main()"


def faulty(mode, at=131):
    return ("env.id=broken_envs:Faulty-v0", f"+env.kwargs.mode={mode}", f"+env.kwargs.at={at}", *RUN)


def start(folder, *arguments, **options):
    """`ppo-train` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def end(process):
    """Status, and what it wrote to stderr."""
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("raise", "environment 0 raised ArithmeticError: cursed (broken_envs.py, line"),
        ("reset", "environment 0 raised RuntimeError: no way back"),
        ("not_a_number", "environment 0 returned a NaN or an infinity"),
        ("infinite", "environment 0 returned a NaN or an infinity"),
        ("shape", "environment 0 returned an observation of shape (1,), where its space says (3,)"),
        ("dtype", "environment 0 returned an observation of dtype complex128"),
        ("last", "environment 0 returned a NaN or an infinity in its episode's last observation"),
        ("reward", "environment 0 returned a reward 'much', where one number is expected"),
        ("four", "step (observation, reward, terminated, truncated, info)"),
    ],
)
def test_an_environment_that_fails_ends_the_run_with_a_line(ppo_train, tmp_path, mode, said, vectorization):
    ended = ppo_train(
        *faulty(mode), "checkpoint.every=1", "hydra.run.dir=run", f"vectorization={vectorization}"
    )
    assert ended.status == 1
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert "resume='run'" in ended.err
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert last["steps"] >= 120
    assert all(torch.isfinite(weight).all() for weight in last["model"].values())


def test_an_observation_outside_its_space_ends_the_run_with_a_line(ppo_train):
    ended = ppo_train("env.id=broken_envs:OffByOne-v0", *RUN)
    assert ended.status == 1
    assert "environment 0 returned an observation of 5, where its space has 0 to 4" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("raise", "an environment raised ArithmeticError: cursed (broken_envs.py, line"),
        ("reward", "an environment returned a reward 'much', where one number is expected"),
    ],
)
def test_an_environment_that_fails_in_the_evaluation_ends_the_run_with_a_line(ppo_train, mode, said):
    ended = ppo_train(*faulty(mode, at=15), "env.on_error=restart", "eval.episodes=1", "total_timesteps=120")
    assert ended.status == 1
    assert said in ended.err
    assert "in evaluation episode 0, step 15" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("vectorization", [pytest.param("sync", marks=pytest.mark.slow), "async"])
@pytest.mark.parametrize("mode", ["raise", "not_a_number", "infinite", "shape", "reset"])
def test_it_may_go_on_with_a_fresh_episode(ppo_train, tmp_path, mode, vectorization):
    arguments = (*faulty(mode), "env.on_error=restart", f"vectorization={vectorization}")
    ended = ppo_train(*arguments, "total_timesteps=480", "hydra.run.dir=run")
    assert ended.status == 0, ended.err
    header, *lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    faults = float(lines[-1].split(",")[header.split(",").index("charts/env_faults")])
    assert faults >= 3
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert all(torch.isfinite(weight).all() for weight in last["model"].values())


@pytest.mark.parametrize("vectorization", [pytest.param("sync", marks=pytest.mark.slow), "async"])
@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("die", "the process of the run died"),
        pytest.param("hang", "took more than env.timeout=2 s", marks=pytest.mark.slow),
    ],
)
def test_a_watchdog_speaks_for_a_process_that_can_not(tmp_path, mode, said, vectorization):
    process = start(  # it dies after what is tried with environments before a run begins
        tmp_path, *faulty(mode, at=301), "total_timesteps=2000", "hydra.run.dir=run", "env.timeout=2",
        "checkpoint.every=1", f"vectorization={vectorization}",
    )  # fmt: skip
    status, err = end(process)
    assert status != 0
    assert said in err
    assert "resume='run'" in err
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["steps"] >= 120


def test_weights_that_are_no_numbers_are_never_saved(ppo_train, tmp_path):
    ended = ppo_train("env=CartPole-v1", *RUN, "learning_rate=1e30", "max_grad_norm=inf", "hydra.run.dir=run")
    assert ended.status == 1
    assert "lower learning_rate" in ended.err
    assert ended.err.count("\n") == 1
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert all(torch.isfinite(weight).all() for weight in last["model"].values())


def test_a_full_disk_ends_with_a_line_and_the_last_checkpoint(tmp_path):
    fill = "hooks=[{name: run_hooks.FullDisk, at: 3}]"
    process = start(tmp_path, "env=CartPole-v1", *RUN, "hydra.run.dir=run", "checkpoint.every=1", fill)
    status, err = end(process)
    assert status == 1
    assert "File too large" in err
    assert "Traceback" not in err
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["iteration"] == 2
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_two_processes_do_not_share_a_folder(ppo_train, tmp_path):
    assert ppo_train("env=CartPole-v1", *RUN, "hydra.run.dir=run").status == 0
    holder = (
        "from pathlib import Path; from ppo_cli.runs.folder import own_run\n"
        "with own_run(Path('run')): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        second = ppo_train("resume=run", "total_timesteps=3000")
        assert second.status == 1
        assert "run is in use by another process" in second.err
        process.kill()
    with own_run(tmp_path / "run"):  # a killed holder leaves no lock behind
        pass


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        signal.SIGTERM,
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_from_outside_saves_and_the_second_ends_at_once(tmp_path, number):
    arguments = ("env=CartPole-v1", "total_timesteps=1e7", "compile=false", "hydra.run.dir=run")
    process = start(tmp_path, *arguments)
    rows = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 60
    while not (rows.exists() and rows.read_text().count("\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    status, err = end(process)
    assert status == 128 + number
    assert err.strip().splitlines()[-1] == (
        f"ppo-train: {number.name}: `ppo-train resume='run'` goes on from the last checkpoint"
    )
    steps = int(rows.read_text().splitlines()[-1].split(",")[1])
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["steps"] == steps


@pytest.mark.parametrize(
    ("env_id", "kind"),
    [
        ("CartPole-v1", "replay"),
        ("LunarLander-v3", "replay"),
        ("FrozenLake-v1", "replay"),
        ("BipedalWalker-v3", "none"),
        ("broken_envs:OwnGenerator-v0", "seed"),
        ("broken_envs:Drifting-v0", "none"),
    ],
)
def test_the_kind_of_snapshot_is_found_by_trying(env_id, kind):
    assert find_kind(env_fn(env_id)) == kind
