"""Runs that end before their budget is used up: by a return, a time, or evaluations that get no better."""

import csv
import json
import math
import time

import pytest
from refusals import refusal
from run_ends import assert_same_end
from run_hooks import INTERRUPTIBLE
from test_report import ppo_report, write_run  # noqa: F401 - a fixture

from ppo_cli.config.convert import from_dict, from_stored, to_dict
from ppo_cli.config.schema import StopConfig
from ppo_cli.episodes import Ended
from ppo_cli.hooks import RunState
from ppo_cli.report.runs import read_run
from ppo_cli.runs.checkpoint import load_checkpoint, plain_state
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.stopping import Stopping, make_stopping
from ppo_cli.shards import Shards, Told
from ppo_cli.text import seconds_of

TINY = (
    "env=CartPole-v1", "preset=none", "n_envs=2", "n_steps=64", "total_timesteps=768", "batch_size=64",
    "n_epochs=1", "eval.episodes=2", "vectorization=sync", "compile=false", "checkpoint.every=1",
)  # fmt: skip
GOAL = ("stop.return=15", "stop.window=10", "learning_rate=1e-4")  # random play returns some 22


def settings(**knobs):
    return StopConfig(**{"return": None, "window": 100, "time": None, "patience": None, **knobs})


def run_of(returns=()):
    return RunState(None, {}, None, Shards([], told=Told(Ended(list(returns)))), 1000, None)


def told(hook, run, returns):
    run.shards.told = Told(Ended(returns))
    hook.after_rollout(run, None)
    hook.after_iteration(run, {})
    return run.stopped


def gone_on(hook, **knobs):
    """A hook of another sitting, with the state of this one as a checkpoint holds it."""
    further = Stopping(settings(**knobs))
    further.load_state_dict(plain_state(hook.state_dict()))
    return further


def test_a_return_is_the_mean_of_whole_windows_of_episodes_across_sittings():
    knobs = {"return": 10.0, "window": 4}
    hook, run = Stopping(settings(**knobs)), run_of()
    assert not told(hook, run, [50.0, 50.0, 50.0])  # three of four
    hook = gone_on(hook, **knobs)
    assert told(hook, run, [-111.0]) == ""  # a mean of 9.75
    assert told(hook, run, [51.0]) == "stop.return=10: 10.0 over 4 episodes"  # 50, 50, -111, 51
    assert hook.state_dict()["reached"] == "stop.return"
    assert gone_on(hook, **knobs).state_dict()["reached"] == ""  # another sitting has its own end


def test_a_time_counts_earlier_sittings_and_not_what_lies_between(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    hook, run = Stopping(settings(time="1m")), run_of()
    hook.start(run)
    now = 140.0
    assert told(hook, run, []) == ""
    hook = gone_on(hook, time="1m")
    now = 9000.0
    hook.start(run)
    now = 9019.0
    assert told(hook, run, []) == ""
    now = 9020.0
    assert told(hook, run, []) == "stop.time=1m"


def test_patience_counts_evaluations_since_the_best_across_sittings():
    hook, run = Stopping(settings(patience=2)), run_of()
    run.best = 12.0
    for improved in (True, False, True, False):
        run.improved = improved
        hook.after_evaluation(run, None)
    assert not run.stopped
    hook = gone_on(hook, patience=2)
    hook.after_evaluation(run, None)
    assert run.stopped == "stop.patience=2: no evaluation above 12.0 since"
    run.stopped, run.trained = "", True
    hook.after_evaluation(run, None)
    assert not run.stopped and hook.state_dict()["reached"] == "stop.patience"


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        (90, 90), (0.5, 0.5), ("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1 d", 86400), ("2H", 7200),
        ("1e3", 1000), (0, None), (-3, None), ("2x", None), ("h", None), ("", None), (math.inf, None),
        (math.nan, None), ("1e999", None), ("²s", None),
    ],
)  # fmt: skip
def test_a_time_is_read_in_the_units_that_one_types(typed, seconds):
    assert seconds_of(typed) == seconds


def test_the_section_is_like_others_though_python_keeps_one_of_its_words():
    config = from_stored({"env": {"id": "CartPole-v1"}, "stop": {"return": 3, "time": "2h"}})
    assert to_dict(config)["stop"] == {"return": 3.0, "window": 100, "time": "2h", "patience": None}
    assert from_dict(to_dict(config)).stop == config.stop != settings()
    assert "return" in repr(config) and make_stopping(config.stop) is not None
    assert make_stopping(from_stored({"env": {"id": "CartPole-v1"}}).stop) is None


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "stop.time=2x",
            "stop.time=2x: expected a number of seconds above 0, or a time such as 90s, 30m, 2h",
        ),
        ("stop.time=true", "expected seconds, a time such as 90s, 30m, 2h or 1d, or null"),
        ("stop.patience=3", "stop.patience=3 counts evaluations on the way: set eval.every, given 0"),
        ("stop.patience=0 eval.every=1", "stop.patience=0: expected a value from 1"),
        ("stop.return=nan", "stop.return=nan: expected a value"),
        ("stop.retrun=3", "did you mean 'stop.return'?"),
    ],
)
def test_what_could_end_no_run_is_refused_in_a_line(typed, said):
    assert said in refusal(TINY, *typed.split())


@pytest.fixture
def stopped(ppo_train, tmp_path):
    assert ppo_train(*TINY, *GOAL, INTERRUPTIBLE, "hydra.run.dir=run").status == 0
    return tmp_path / "run"


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_that_reached_its_return_is_finished_marked_and_the_same_after_a_stop(
    ppo_train, tmp_path, interrupt, stopped
):
    summary = json.loads((stopped / "eval.json").read_text())
    assert summary["stopped"].startswith("stop.return=15: ") and summary["steps"] < 768
    assert summary["steps"] == int(rows(stopped)[-1]["step"]) > 128  # a window is longer than an iteration
    assert RunFolder(stopped).is_finished
    interrupt(1)
    assert ppo_train(*TINY, *GOAL, INTERRUPTIBLE, "hydra.run.dir=cut").status == 143
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert_same_end(stopped, tmp_path / "cut")
    # what it asked for is reached, whatever the budget
    assert ppo_train("resume=run", "total_timesteps=2000").status == 0
    last = (stopped / "train.log").read_text().splitlines()[-1]
    assert "is finished" in last and "(stop.return=15: " in last
    assert last.endswith("another stop.return= extends it")
    assert len(rows(stopped)) == summary["steps"] / 128
    assert ppo_train("resume=run", "stop.return=null", "total_timesteps=768").status == 0
    assert "stopped" not in json.loads((stopped / "eval.json").read_text())
    assert int(rows(stopped)[-1]["step"]) == 768


def test_no_better_evaluation_ends_a_run_with_its_last_checkpoint(ppo_train, tmp_path):
    typed = ("eval.every=1", "stop.patience=2", "learning_rate=1e-30", "hydra.run.dir=run")
    assert ppo_train(*TINY, *typed).status == 0
    assert len(rows(tmp_path / "run")) == 3
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert last["stopped"].startswith("stop.patience=2")
    assert last["own_hooks"]["stop"] == {"waited": 2, "reached": "stop.patience"}
    assert RunFolder(tmp_path / "run").is_finished


@pytest.mark.slow
def test_a_sweep_takes_runs_that_stopped_for_finished(ppo_train, tmp_path):
    typed = (*TINY, *GOAL, "seed=0,1", "hydra.sweep.dir=sweep")
    assert ppo_train("-m", *typed).status == 0
    again = ppo_train("sweep.resume=sweep")
    assert again.status == 0 and "finished already: 2 of 2 jobs" in again.out


@pytest.mark.slow
def test_a_report_shows_runs_that_stopped_and_compares_none_that_have_other_steps(tmp_path, ppo_report):  # noqa: F811
    for seed in range(3):
        write_run(tmp_path / f"whole{seed}", [1.0] * 8, evaluated=5.0 + seed, seed=seed)
        folder = write_run(
            tmp_path / f"stopped{seed}", [1.0] * (3 + seed), evaluated=9.0, seed=seed, stop__return=1.0
        )
        config = (folder / "config.yaml").read_text()
        steps = json.loads((folder / "eval.json").read_text())["steps"]
        (folder / "config.yaml").write_text(
            config.replace(f"total_timesteps: {steps}", f"total_timesteps: {steps // (3 + seed) * 8}")
        )
        summary = {"mean": 9.0, "steps": steps, "stopped": "stop.return=1: 1.000 over 3 episodes"}
        (folder / "eval.json").write_text(json.dumps(summary))
    run = read_run(tmp_path / "stopped0")
    assert (run.status, run.stopped) == ("finished", "stop.return=1: 1.000 over 3 episodes")
    status, out, err = ppo_report(tmp_path)
    assert status == 0, err
    said = " ".join(out.split())
    assert "stop.return=1.0: 3 of 3 runs stopped at" in said
    assert "still short of" not in said
    assert "steps not equal" in said
