"""Every way out of a run, a deadline, a fault, a signal, lost output: one line and the right status."""

import contextlib
import errno
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import unruly_envs
from test_faults import end, start
from vectors import vector

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.distributions import make_distribution
from ppo_cli.envs import choose
from ppo_cli.envs.group import RENEWALS, EnvFaultError
from ppo_cli.envs.make import env_fn
from ppo_cli.envs.vector import SyncVector
from ppo_cli.envs.workers import AsyncVector
from ppo_cli.policy import BatchPolicy
from ppo_cli.runs import own_hooks
from ppo_cli.runs.evaluation import EvaluationPlan, evaluate
from ppo_cli.runs.signals import Interrupted, StopSignal, no_advice
from ppo_cli.runs.streams import LogFile, lasting_streams, output_failure
from ppo_cli.seeding import spawn_seeds

RUN = (
    "n_envs=2", "n_steps=64", "total_timesteps=256", "batch_size=64", "n_epochs=1", "vectorization=sync",
    "compile=false", "eval.episodes=1", "hydra.run.dir=run",
)  # fmt: skip


def unruly(name, *more):
    return (f"env.id=unruly_envs:{name}-v0", *RUN, *more)


def test_a_process_that_an_environment_starts_does_not_become_a_second_run(tmp_path):
    status, err = end(start(tmp_path, *unruly("Forks", "env.on_error=restart")))
    assert (status, err) == (0, "")
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 2
    assert len(list((tmp_path / "run").glob("events*"))) == 1


# The deadline


@pytest.mark.slow
def test_the_deadline_is_of_one_call(ppo_train):
    # 326 steps to find the kind of snapshot take 2 s, constructing 8 environments takes as long
    ended = ppo_train(*unruly("Slow", "n_envs=8", "n_steps=2", "total_timesteps=16", "env.timeout=1"))
    assert ended.status == 0, ended.err


@pytest.mark.parametrize(
    ("call", "at", "said"),
    [
        pytest.param("make", 1, "making an environment", marks=pytest.mark.slow),
        pytest.param("reset", 2, "a reset of", marks=pytest.mark.slow),
        ("step", 30, "a step of"),
    ],
)
def test_a_call_that_hangs_before_there_is_a_checkpoint(tmp_path, call, at, said):
    process = start(
        tmp_path, *unruly("Hangs", f"+env.kwargs.what={call}", f"+env.kwargs.at={at}", "env.timeout=1")
    )
    status, err = end(process)
    assert status == -signal.SIGKILL
    assert err.startswith(f"ppo-train: {said}")
    assert err.endswith("took more than env.timeout=1 s; a larger env.timeout waits longer\n")


def test_a_call_that_hangs_in_the_evaluation(tmp_path):
    seed = spawn_seeds(1000, "eval", 1)[0]
    status, err = end(start(tmp_path, *unruly("Hangs", f"+env.kwargs.seed={seed}", "env.timeout=1")))
    assert status == -signal.SIGKILL
    assert "a step of an environment took more than env.timeout=1 s; `ppo-train resume='run'`" in err


# Faults


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("exit", "raised SystemExit"),
        ("mute", "raised MuteError: (its text raised RuntimeError)"),
        ("base", "raised OwnBaseError: very"),
    ],
)
def test_whatever_an_environment_raises_is_its_fault(ppo_train, mode, said, vectorization):
    ended = ppo_train(*unruly("Ends", f"+env.kwargs.mode={mode}", f"vectorization={vectorization}"))
    assert ended.status == 1
    assert f"environment 0 {said}" in ended.err
    assert ended.err.count("\n") == 1


def test_a_reset_that_fails_takes_nothing_from_the_step_before():
    envs = SyncVector([env_fn("unruly_envs:FailingReset-v0")], on_error="restart")
    envs.reset(seed=0)
    for _ in range(10):
        _, rewards, terminated, truncated, info = envs.step(np.zeros(1, np.int64))
    assert (rewards[0], terminated[0], truncated[0]) == (1.0, True, False)
    assert info["final_obs"][0][0] == 10
    assert envs.faults == 1


def test_resets_that_fail_in_a_row_are_tried_again_and_not_for_ever():
    def run(times):
        envs = SyncVector([env_fn("unruly_envs:FailingReset-v0", {"times": times})], on_error="restart")
        envs.reset(seed=0)
        for _ in range(10):
            envs.step(np.zeros(1, np.int64))
        return envs.faults

    assert run(RENEWALS) == RENEWALS
    with pytest.raises(EnvFaultError, match=rf"no way at all.*made anew {RENEWALS} times in a row"):
        run(RENEWALS + 1)
    unruly_envs.FailingReset.left = 0


def policy_for(env):
    model = make_actor_critic(env.observation_space, env.action_space, hidden_sizes=[8])
    return BatchPolicy(model, make_distribution(env.action_space), None)


def test_an_evaluation_begins_a_failed_episode_again(caplog):
    unruly_envs.FailsOnce.made = 0
    make = env_fn("unruly_envs:FailsOnce-v0")
    actions = []
    plan = EvaluationPlan(make, 3, 0, True, on_error="restart")
    found = evaluate(policy_for(unruly_envs.Ten), plan, actions={0: actions})
    assert found.returns == [10.0] * 3
    assert len(actions) == 10
    assert "raised RuntimeError: once" in caplog.text
    unruly_envs.FailsOnce.made = 0
    with pytest.raises(EnvFaultError, match=r"once .* in evaluation episode 0, step 5"):
        evaluate(policy_for(unruly_envs.Ten), EvaluationPlan(make, 3, 0, True))


def test_a_worker_that_crashes_says_of_what():
    envs = AsyncVector([env_fn("unruly_envs:Ends-v0", {"mode": mode}) for mode in ("", "crash")], 2)
    envs.reset(seed=0)
    with pytest.raises(EnvFaultError, match="worker process of environment 1 died of SIGSEGV"):
        for _ in range(25):
            envs.step(np.zeros(2, np.int64))
    envs.close()


def test_auto_takes_sync_where_async_fails(monkeypatch):
    monkeypatch.setattr(choose, "available_cores", lambda: 2)
    envs, line = vector("unruly_envs:Server-v0", 2, "auto")
    assert isinstance(envs, SyncVector)
    assert "sync (async failed: env.id=unruly_envs:Server-v0 can't be made: AssertionError: daemonic" in line
    envs.close()


def test_closing_ends_nothing_and_one_environment_is_enough(ppo_train):
    assert ppo_train(*unruly("Window")).status == 0
    ended = ppo_train(*unruly("Single", "n_envs=1", "eval.episodes=0", "hydra.run.dir=single"))
    assert ended.status == 0, ended.err


def test_pytorchs_generator_is_seeded_in_workers():
    envs = AsyncVector([env_fn("unruly_envs:TorchNoise-v0")] * 2, 2)
    first, second = (np.array(envs.reset(seed=4)[0]) for _ in range(2))
    assert np.array_equal(first[1], second[1])
    envs.close()


def test_an_evaluation_copies_observations_whose_array_is_used_again(monkeypatch):
    policy, seen = make_policy_that_notes(monkeypatch)
    evaluate(policy, EvaluationPlan(env_fn("unruly_envs:OneArray-v0"), 3, 0, True))
    assert len({row[1] for row in seen[0]}) == 3


def make_policy_that_notes(monkeypatch):
    policy, seen = policy_for(unruly_envs.Ten), []
    act = BatchPolicy.act

    def noting(self, observations, *rest):
        seen.append(observations.tolist())
        return act(self, observations, *rest)

    monkeypatch.setattr(BatchPolicy, "act", noting)
    return policy, seen


# Signals


def test_a_signal_that_something_swallows_ends_it_all_the_same():
    with pytest.raises(Interrupted, match="SIGTERM: interrupted"), StopSignal(no_advice, at_once=True):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            StopSignal.check()


def test_a_signal_in_a_place_that_only_prints_is_raised_again():
    class Hook:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    begun = time.monotonic()
    with pytest.raises(Interrupted), StopSignal(no_advice, at_once=True):
        Hook()
        time.sleep(30)
    assert time.monotonic() - begun < 20


def test_an_error_that_an_interrupt_became_is_an_interrupt():
    with pytest.raises(Interrupted, match="SIGTERM: go on"), StopSignal(lambda: "go on", at_once=True):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as interrupt:
            raise RuntimeError("Error calling __set_name__") from interrupt


def test_the_same_signal_at_the_same_time_is_one_and_the_innermost_decides():
    with pytest.raises(Interrupted, match="SIGTERM: inner"), StopSignal(no_advice, at_once=True):  # noqa: SIM117
        with StopSignal(lambda: "inner", at_once=False) as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert inner.number == signal.SIGTERM
    assert inner.number is None


def test_nohup_stays_and_handlers_are_given_back():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal(no_advice, at_once=True):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_that_an_environment_forks_ends_by_a_signal():
    with StopSignal(no_advice, at_once=False):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        time.sleep(0.1)
        child.terminate()
        child.join(30)
    assert child.exitcode == -signal.SIGTERM


def test_a_signal_while_it_is_imported_ends_with_a_line(tmp_path):
    program = (
        "import os, signal, threading\nfrom ppo_cli.cli.entry import train\n"
        "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()\ntrain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "env=CartPole-v1"], cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (143, "ppo-train: SIGTERM: interrupted\n")


def test_a_signal_in_the_final_evaluation_goes_on_with_it(ppo_train, tmp_path, monkeypatch):
    whole = own_hooks.evaluate_part
    assert ppo_train("env=CartPole-v1", *RUN, "hydra.run.dir=whole").status == 0

    def interrupted(*arguments, **named):
        os.kill(os.getpid(), signal.SIGUSR1)
        return whole(*arguments, **named)

    monkeypatch.setattr(own_hooks, "evaluate_part", interrupted)
    ended = ppo_train("env=CartPole-v1", *RUN)
    assert ended.status == 128 + signal.SIGUSR1
    assert ended.err == "ppo-train: SIGUSR1: `ppo-train resume='run'` goes on from the last checkpoint\n"
    monkeypatch.setattr(own_hooks, "evaluate_part", whole)
    assert ppo_train("resume=run").status == 0
    assert json.loads(Path("run/eval.json").read_text()) == json.loads(Path("whole/eval.json").read_text())


def test_a_signal_between_the_jobs_of_a_sweep_ends_it(ppo_train, monkeypatch):
    whole = own_hooks.evaluate_part

    def swallowed(*arguments, **named):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(*arguments, **named)

    monkeypatch.setattr(own_hooks, "evaluate_part", swallowed)
    ended = ppo_train("-m", "env=CartPole-v1", *RUN[:-1], "seed=1,2", "hydra.sweep.dir=sweep")
    assert ended.status == 143
    assert ended.err == "ppo-train: SIGTERM: `ppo-train sweep.resume='sweep'` goes on with the sweep\n"
    assert not Path("sweep/seed=2/config.yaml").exists()


# Output


@pytest.mark.parametrize(
    "how", ["full", *(pytest.param(how, marks=pytest.mark.slow) for how in ("closed", "gone"))]
)
def test_output_that_can_not_be_written_ends_nothing(tmp_path, how):
    program = "import os, sys\nfrom ppo_cli.cli.train import main\n"
    if how == "full":
        program += "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
    elif how == "gone":
        program += "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
    else:
        program += "os.close(1); sys.stdout = None\n"
    done = subprocess.run(
        [sys.executable, "-c", program + "main()", "env=CartPole-v1", *RUN], cwd=tmp_path,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "eval.json").exists()
    assert "return" in (tmp_path / "run" / "train.log").read_text()


def test_a_stream_notes_what_it_could_not_write(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with lasting_streams():
            print("lost", flush=True)
            assert output_failure().errno == errno.ENOSPC
            assert sys.stdout.encoding == full.encoding


def test_a_log_that_can_not_be_written_is_named_once(tmp_path, capsys):
    (tmp_path / "train.log").symlink_to(tmp_path / "elsewhere")
    log = LogFile(tmp_path / "train.log")
    for _ in range(3):
        log.emit(logging.makeLogRecord({"msg": "a line"}))
        log.flush()
    log.close()
    err = capsys.readouterr().err
    assert err.count("the run goes on without this log") == err.count("\n") == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_log_goes_on_at_its_end_in_utf_8(tmp_path):
    for text in ("one ±", "two"):
        log = LogFile(tmp_path / "train.log", encoding=None)
        log.emit(logging.makeLogRecord({"msg": text}))
        log.close()
    assert (tmp_path / "train.log").read_bytes() == "one ±\ntwo\n".encode()
