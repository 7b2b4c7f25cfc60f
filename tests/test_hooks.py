"""Hooks: what they are told, what they may do, and that a run with them has the bits of one without."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from run_ends import assert_same_end, events, rows
from run_hooks import INTERRUPTIBLE

from ppo_cli.config.compose import load
from ppo_cli.errors import RunError, UserCodeError
from ppo_cli.hooks import Hook, Hooks, RunState, UserHook, telling_hooks
from ppo_cli.runs.caller import Caller
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.run import run

RUN = (  # 4 iterations
    "env=CartPole-v1", "n_envs=2", "n_steps=64", "total_timesteps=512", "n_epochs=1", "eval.episodes=2",
    "eval.every=2", "vectorization=sync", "compile=false",
)  # fmt: skip


class Listener(Hook):
    """Notes what it is told, in a list that all share."""

    told: ClassVar[list[tuple]] = []

    def __init__(self, name="one"):
        self.name = name

    def note(self, method, run, *rest):
        self.told.append((self.name, method, run.iteration, *rest))

    def start(self, run):
        self.note("start", run, run.steps, run.total_timesteps, run.config["n_steps"])

    def after_rollout(self, run, rollout):
        self.note("after_rollout", run, tuple(rollout.rewards.shape))

    def before_update(self, run, batch):
        self.note("before_update", run, tuple(batch.advantages.shape))

    def after_iteration(self, run, scalars):
        self.note("after_iteration", run, run.steps, "losses/entropy" in scalars)

    def after_evaluation(self, run, evaluation):
        self.note("after_evaluation", run, len(evaluation.returns), run.improved, run.trained)

    def after_checkpoint(self, run, path):
        self.note("after_checkpoint", run, path.name, path.exists())

    def end(self, run, error):
        self.note("end", run, type(error).__name__, (run.folder / "eval.json").exists())


class Drawing(Hook):
    """Draws from all global generators, wherever it is told, and sums up what it drew."""

    def __init__(self):
        self.total = torch.zeros(())
        self.drawn = []

    def draw(self, *_):
        value = random.random() + np.random.random() + torch.rand(()).item()
        self.drawn.append(value)
        self.total += value

    start = after_evaluation = after_checkpoint = end = draw

    def after_rollout(self, run, rollout):
        self.draw()
        self.total = self.total.clone()

    def after_iteration(self, run, scalars):
        self.draw()
        scalars["own/drawn"] = self.drawn[-1]
        if run.iteration % 2:  # a column that comes on the way, with gaps
            scalars["own/sum"] = self.total
        if run.iteration == 3:
            scalars["own/late"] = np.float32(0.5)

    def state_dict(self):
        return {"total": self.total, "drawn": self.drawn[-2:], "nested": {"words": ["a", None, True]}}

    def load_state_dict(self, state):
        assert state["nested"] == {"words": ["a", None, True]}
        self.total, self.drawn = state["total"].clone(), list(state["drawn"])


class Steady(Hook):
    """Draws once an iteration, and counts them."""

    def __init__(self):
        self.calls = 0

    def after_iteration(self, run, scalars):
        scalars["own/drawn"] = random.random() + np.random.random() + torch.rand(()).item()
        self.calls += 1
        if run.iteration % 2 == 0:
            scalars["own/calls"] = self.calls

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


class Stop(Hook):
    """Stops a run."""

    def __init__(self, at, reason="far enough"):
        self.at, self.reason = at, reason

    def after_iteration(self, run, scalars):
        if run.iteration == self.at:
            run.stop(self.reason)
            run.stop("another reason")


class StopTold(Hook):
    """Stops a run where it is told of one thing, from a number of iterations on."""

    def __init__(self, method, at):
        def stop(run, *_):
            if run.iteration >= at:
                run.stop(method)

        setattr(self, method, stop)


class Raising(Hook):
    """Raises in one method."""

    def __init__(self, method):
        def fail(*_):
            raise ZeroDivisionError("by\nmistake")

        if method == "__init__":
            fail()
        setattr(self, method, fail)


class Adding(Hook):
    """Adds a scalar."""

    def __init__(self, tag, value):
        self.tag, self.value = tag, value

    def after_iteration(self, run, scalars):
        scalars[self.tag] = self.value


class Doubled(Hook):
    """Learns from twice the rewards."""

    def after_rollout(self, run, rollout):
        rollout.rewards *= 2


class Indifferent(Hook):
    """Has the policy learn from nothing."""

    def before_update(self, run, batch):
        with torch.inference_mode():
            batch.advantages.zero_()


class Odd(Hook):
    """Has a state that no checkpoint holds."""

    def __init__(self, kind):
        endless = {}
        endless["self"] = endless
        self.state = {"object": {"x": object()}, "endless": endless, "list": [], "keys": {1: 2}}[kind]

    def state_dict(self):
        return self.state


def config_of(*typed):
    config = load(*typed)
    return config


def hooks(*names):
    return f"hooks=[{','.join(f'{{name: test_hooks.{name}}}' for name in names)}]"


@pytest.fixture
def told_of():
    Listener.told.clear()
    return Listener.told


def test_hooks_are_told_in_order_and_before_the_runs_own(tmp_path, told_of):
    config = config_of(*RUN, "total_timesteps=256", "checkpoint.every=1")
    (tmp_path / "run").mkdir()
    run(config, tmp_path / "run", caller=Caller(hooks=[Listener("one"), Listener("two")]))
    steps = 128
    expected = [
        ("start", 0, 0, 256, 64),
        ("after_checkpoint", 0, "0.pt", True),
        ("after_rollout", 0, (64, 2)),
        ("before_update", 0, (128,)),
        ("after_iteration", 1, steps, True),
        ("after_checkpoint", 1, "128.pt", True),
        ("after_rollout", 1, (64, 2)),
        ("before_update", 1, (128,)),
        ("after_iteration", 2, 2 * steps, True),
        ("after_evaluation", 2, 2, True, False),
        ("after_checkpoint", 2, "best.pt", True),
        ("after_checkpoint", 2, "256.pt", True),
        ("after_evaluation", 2, 2, False, True),
        ("end", 2, "NoneType", True),
    ]
    assert told_of == [(name, *each) for each in expected for name in ("one", "two")]


def test_a_run_has_the_same_bits_with_a_hook_that_draws(ppo_train, tmp_path):
    assert ppo_train(*RUN, "hydra.run.dir=without").status == 0
    assert ppo_train(*RUN, hooks("Drawing", "Listener"), "hydra.run.dir=with").status == 0
    without, drawing = (
        load_checkpoint(tmp_path / name / "checkpoints/last.pt") for name in ("without", "with")
    )
    for part in ("model", "optimizer", "generators", "environments"):
        assert json.dumps(without[part], default=repr) == json.dumps(drawing[part], default=repr), part
    own = [{tag: v for tag, v in row.items() if "own/" not in tag} for row in rows(tmp_path / "with")]
    assert own == rows(tmp_path / "without")
    assert (tmp_path / "with/eval.json").read_text() == (tmp_path / "without/eval.json").read_text()


class Slow(Hook):
    """Needs its time before the update, as intrinsic rewards do."""

    def after_rollout(self, run, rollout):
        time.sleep(0.05)


def test_what_is_done_with_a_rollout_is_in_the_time_of_the_update(ppo_train, tmp_path):
    typed = ("env=CartPole-v1", "n_envs=2", "n_steps=32", "total_timesteps=128", "eval.episodes=0")
    assert ppo_train(*typed, "hooks=[{name: test_hooks.Slow}]", "hydra.run.dir=run").status == 0
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        logged = list(csv.DictReader(file))
    assert logged
    for row in logged:
        assert float(row["time/update"]) >= 0.05
        total = float(row["time/update"]) + float(row["time/collect"])
        assert float(row["charts/SPS"]) == pytest.approx(64 / total, rel=1e-3)


def test_scalars_of_hooks_are_logged_like_others(ppo_train, tmp_path):
    assert ppo_train(*RUN, hooks("Drawing"), "hydra.run.dir=run").status == 0
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[-3:] == ["own/drawn", "own/sum", "own/late"]
    assert len({row["own/drawn"] for row in table}) == 4
    assert [bool(row["own/sum"]) for row in table] == [True, False, True, False]
    assert [row["own/late"] for row in table] == ["", "", "0.5", ""]
    points = [(step, tag) for step, tag, _ in events(tmp_path / "run") if tag.startswith("own/")]
    assert points == [
        (128, "own/drawn"), (128, "own/sum"), (256, "own/drawn"), (384, "own/drawn"), (384, "own/sum"),
        (384, "own/late"), (512, "own/drawn"),
    ]  # fmt: skip


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_hook_goes_on_where_it_was_when_the_run_was_interrupted(
    ppo_train, tmp_path, interrupt, vectorization
):
    own = f"{hooks('Steady')[:-1]},{INTERRUPTIBLE.partition('[')[2]}"
    arguments = (*RUN, f"vectorization={vectorization}", own)
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    interrupt(1)
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    interrupt(3)
    assert ppo_train("resume=cut").status == 143
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    assert [row["own/calls"] for row in rows(tmp_path / "cut")] == ["", "2.0", "", "4.0"]
    saved = load_checkpoint(tmp_path / "cut/checkpoints/last.pt")["hooks"]
    assert saved == [
        {"name": "test_hooks.Steady", "state": {"calls": 4}}, {"name": "run_hooks.Interrupt", "state": {}}
    ]  # fmt: skip


def test_a_hook_goes_on_where_it_was_when_the_run_was_killed(ppo_train, tmp_path):
    own = f"{hooks('Steady')[:-1]},{INTERRUPTIBLE.partition('[')[2]}"
    arguments = (*RUN, "checkpoint.every=2", own)
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    killed = subprocess.run(
        [sys.executable, "-m", "ppo_cli", "train", *arguments, "hydra.run.dir=cut"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "KILL_AFTER": "3"}, capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(rows(tmp_path / "cut")) == 2
    assert ppo_train("resume=cut").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


def test_a_hook_stops_a_run_which_is_evaluated_saved_and_finished(ppo_train, tmp_path):
    outcome = ppo_train(*RUN, "hooks=[{name: test_hooks.Stop, at: 3}]", "hydra.run.dir=run")
    assert outcome.status == 0, outcome.err
    assert "stopped at 384 steps: far enough\n" in outcome.out
    summary = json.loads((tmp_path / "run/eval.json").read_text())
    assert (summary["stopped"], summary["steps"]) == ("far enough", 384)
    assert RunFolder(tmp_path / "run").is_finished
    again = ppo_train("resume=run")
    assert again.status == 0
    assert "run is finished: 384 of total_timesteps=512 (far enough); other hooks= or a larger" in again.out
    longer = ppo_train("resume=run", "hooks=[]")
    assert longer.status == 0
    assert len(rows(tmp_path / "run")) == 4
    assert "stopped" not in json.loads((tmp_path / "run/eval.json").read_text())
    assert ppo_train(*RUN, "hydra.run.dir=whole").status == 0
    assert rows(tmp_path / "whole") == rows(tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "at", "steps"),
    [
        ("start", 0, 0),
        ("after_checkpoint", 0, 0),
        ("after_rollout", 0, 128),
        ("after_evaluation", 1, 256),
        ("after_checkpoint", 1, 128),
        ("after_checkpoint", 4, None),  # it has its budget by then
        ("after_evaluation", 5, None),
    ],
)
def test_a_run_is_stopped_wherever_a_hook_is_told_and_stays_so(ppo_train, tmp_path, method, at, steps):
    own = f"hooks=[{{name: test_hooks.StopTold, method: {method}, at: {at}}}]"
    assert ppo_train(*RUN, "checkpoint.every=1", own, "hydra.run.dir=run").status == 0
    summary = json.loads((tmp_path / "run/eval.json").read_text())
    assert summary["steps"] == (512 if steps is None else steps)
    if steps:
        assert summary["stopped"] == method
        assert "run is finished" in ppo_train("resume=run").out


def test_a_hook_can_not_stop_what_has_ended(ppo_train, tmp_path, told_of):
    class Late(Hook):
        def after_evaluation(self, run, evaluation):
            if run.trained:
                run.stop("too late")

    (tmp_path / "run").mkdir()
    run(config_of(*RUN), tmp_path / "run", caller=Caller(hooks=[Late()]))
    assert "stopped" not in json.loads((tmp_path / "run/eval.json").read_text())


def test_a_stopped_run_that_was_killed_before_its_evaluation_is_only_evaluated(ppo_train, tmp_path):
    stop = "hooks=[{name: test_hooks.Stop, at: 2}]"
    assert ppo_train(*RUN, stop, "hydra.run.dir=run").status == 0
    before = (tmp_path / "run/eval.json").read_text()
    (tmp_path / "run/eval.json").unlink()
    assert not RunFolder(tmp_path / "run").is_finished
    assert ppo_train("resume=run").status == 0
    assert (tmp_path / "run/eval.json").read_text() == before
    assert len(rows(tmp_path / "run")) == 2
    assert ppo_train("resume=run", "total_timesteps=640").status == 0  # it is past where it would stop
    assert len(rows(tmp_path / "run")) == 5


def test_jobs_that_stop_are_finished_jobs(ppo_train, tmp_path):
    stop = "hooks=[{name: test_hooks.Stop, at: 1}]"
    swept = ppo_train("-m", *RUN, stop, "seed=1,2", "hydra.sweep.dir=sweep")
    assert swept.status == 0, swept.err
    assert "finished: 2 of 2 jobs" in swept.out
    again = ppo_train("sweep.resume=sweep")
    assert "finished already: 2 of 2 jobs" in again.out


def test_rewards_that_a_hook_changes_are_learned_from_and_not_told(ppo_train, tmp_path):
    assert ppo_train(*RUN, "hydra.run.dir=plain").status == 0
    assert ppo_train(*RUN, hooks("Doubled"), "hydra.run.dir=doubled").status == 0
    plain, doubled = rows(tmp_path / "plain")[0], rows(tmp_path / "doubled")[0]
    assert plain["charts/episodic_return"] == doubled["charts/episodic_return"]
    assert float(doubled["losses/value_loss"]) > 2 * float(plain["losses/value_loss"])


def test_advantages_that_a_hook_changes_are_learned_from(ppo_train, tmp_path):
    assert ppo_train(*RUN, hooks("Indifferent"), "hydra.run.dir=run").status == 0
    for row in rows(tmp_path / "run"):
        assert float(row["losses/policy_loss"]) == 0
        assert float(row["losses/value_loss"]) > 0


METHODS = (
    "__init__", "start", "after_rollout", "before_update", "after_iteration", "after_evaluation",
    "after_checkpoint", "state_dict", "end",
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_what_a_hook_raises_ends_the_run_with_a_line(ppo_train, tmp_path, told_of, method):
    both = f"hooks=[{{name: test_hooks.Raising, method: {method}}},{{name: test_hooks.Listener}}]"
    outcome = ppo_train(*RUN, both, "hydra.run.dir=run")
    assert outcome.status == 1
    line = f"hook test_hooks.Raising: {method} raised ZeroDivisionError: by mistake"
    assert outcome.err.startswith(f"ppo-train: {line}")
    assert outcome.err.count("\n") == 1
    note = (tmp_path / "run/failed.txt").read_text()
    assert note.startswith(line)
    assert "in fail" in note  # the traceback
    ends = [each for each in told_of if each[1] == "end"]
    assert len(ends) == (method != "__init__")
    if method in ("after_rollout", "after_iteration", "after_evaluation", "end"):
        assert "resume='run'" in outcome.err
        assert ppo_train("resume=run", "hooks=[]", "total_timesteps=640").status == 0


def test_an_end_that_fails_keeps_what_failed_before(ppo_train, tmp_path):
    both = "hooks=[{name: test_hooks.Raising, method: end},{name: test_hooks.Raising, method: after_rollout}]"
    outcome = ppo_train(*RUN, both, "hydra.run.dir=run")
    assert "after_rollout raised ZeroDivisionError" in outcome.err
    assert "hook test_hooks.Raising: end raised ZeroDivisionError: by mistake" in outcome.out


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [
        ("losses/entropy", "0.5", "changed losses/entropy, which is logged already; choose another tag"),
        ("eval/mine", "0.5", "added 'eval/mine': such tags are the run's own"),
        ("info/mine", "0.5", "added 'info/mine': such tags are the run's own"),
        ("step", "0.5", "added 'step': such tags are the run's own"),
        ("my tag", "0.5", "added 'my tag': expected a tag of at most 200 letters"),
        ("my/tag", "word", "added 'my/tag' = 'word': expected a number"),
        ("my/tag", "null", "added 'my/tag' = None: expected a number"),
        ("my/tag", "[1,2]", "added 'my/tag' = [1, 2]: expected a number"),
    ],
)
def test_a_scalar_that_can_not_be_logged_is_refused(ppo_train, tag, value, said):
    outcome = ppo_train(*RUN, f"hooks=[{{name: test_hooks.Adding, tag: '{tag}', value: {value}}}]")
    assert outcome.status == 1
    assert f"hook test_hooks.Adding: after_iteration {said}" in outcome.err
    assert outcome.err.count("\n") == 1


def test_no_number_is_an_empty_cell(ppo_train, tmp_path):
    assert (
        ppo_train(*RUN, "hooks=[{name: test_hooks.Adding, tag: a, value: nan}]", "hydra.run.dir=run").status
        == 0
    )
    assert "a" not in rows(tmp_path / "run")[0]  # not even a column, as long as there is no number


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("object", "state_dict: a checkpoint holds tensors and plain values, given object"),
        ("endless", "state_dict: its contents are nested too deeply, or hold themselves"),
        ("list", "state_dict returned list: expected a dict"),
        ("keys", "state_dict: a checkpoint's keys are strings, given [1]"),
    ],
)
def test_a_state_that_can_not_be_saved_is_refused(ppo_train, kind, said):
    outcome = ppo_train(*RUN, f"hooks=[{{name: test_hooks.Odd, kind: {kind}}}]")
    assert outcome.status == 1
    assert f"hook test_hooks.Odd: {said}" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "[{name: wanb}]",
            "no hook 'wanb': expected wandb, mlflow or package.module.Class; did you mean 'wandb'?",
        ),
        ("[{name: test_hooks.Stp}]", "test_hooks has no 'Stp'; did you mean 'Stop'?"),
        ("[{name: nowhere.Hook}]", "importing nowhere raised ModuleNotFoundError"),
        ("[{name: torch.nn.Module}]", "torch.nn.Module is no subclass of ppo_cli.hooks.Hook"),
        (
            "[{name: test_hooks.Stop}]",
            "test_hooks.Stop: missing a required argument: 'at'; it takes at, reason",
        ),
        ("[{name: test_hooks.Stop, at: 1, reson: x}]", "it takes at, reason; did you mean 'reason'?"),
        ("[{at: 1}]", "expected {name: HOOK, ...}, given {'at': 1} without a name"),
        ("Stop", "expected a list of mappings such as"),
    ],
)
def test_a_hook_that_can_not_be_made_is_refused_before_there_is_a_folder(ppo_train, tmp_path, typed, said):
    outcome = ppo_train(*RUN, f"hooks={typed}")
    assert outcome.status == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_hooks_come_from_python_too_in_any_thread_and_nothing_is_taken_over(tmp_path, told_of):
    import threading

    config = config_of(*RUN, "total_timesteps=256")
    (tmp_path / "run").mkdir()
    before = signal.getsignal(signal.SIGTERM)
    caller = Caller(live=False, hooks=[Listener(), Steady()], owns_process=False, watchdog=False)
    failures = []

    def go():
        try:
            run(config, tmp_path / "run", caller=caller)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert failures == []
    assert signal.getsignal(signal.SIGTERM) is before
    assert told_of[-1] == ("one", "end", 2, "NoneType", True)
    assert [each["name"] for each in load_checkpoint(tmp_path / "run/checkpoints/last.pt")["hooks"]] == [
        "test_hooks.Listener", "test_hooks.Steady"
    ]  # fmt: skip


def test_a_state_without_its_hook_is_said(ppo_train, tmp_path, interrupt):
    own = f"{hooks('Steady')[:-1]},{INTERRUPTIBLE.partition('[')[2]}"
    interrupt(2)
    assert ppo_train(*RUN, own, "hydra.run.dir=run").status == 143
    interrupt(None)
    resumed = ppo_train("resume=run", "hooks=[]")
    assert resumed.status == 0
    assert (
        "the checkpoint has a state of hooks that the run goes on without: test_hooks.Steady\n" in resumed.out
    )
    assert [bool(row["own/drawn"]) for row in rows(tmp_path / "run")] == [True, True, False, False]


def test_every_end_is_called_and_the_first_failure_is_raised():
    ended = []

    class Ending(Hook):
        def __init__(self, error):
            self.error = error

        def end(self, run, error):
            ended.append(error)
            raise self.error

    state = RunState(Path(), {}, None, None, 1, Hooks([Ending(RunError("one")), Ending(RunError("two"))]))
    with pytest.raises(RunError, match="one"), telling_hooks(state):
        pass
    assert ended == [None, None]
    with pytest.raises(KeyboardInterrupt), telling_hooks(state):
        raise KeyboardInterrupt
    assert [type(error) for error in ended[2:]] == [KeyboardInterrupt] * 2


def test_a_method_that_is_not_overridden_costs_nothing(monkeypatch):
    monkeypatch.setattr("ppo_cli.hooks.other_generators", None)  # would be called
    hook = UserHook(Hook(), "plain", 0, 0)
    state = RunState(Path(), {}, None, None, 1, hook)
    hook.start(state)
    hook.after_iteration(state, {"a": float("nan")})
    assert hook.state_dict() == {}


def test_a_hooks_error_is_an_error_of_a_run():
    assert issubclass(UserCodeError, RunError)
