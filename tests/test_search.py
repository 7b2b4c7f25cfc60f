"""Searches: what is drawn and compared, and that none is lost, run twice or run by two processes at once."""

import csv
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("optuna")
pytest.importorskip("sklearn")

import optuna
from run_ends import assert_same_end
from run_hooks import INTERRUPTIBLE, tell
from test_sweep import contents, interrupt, killed  # noqa: F401 - a fixture

from ppo_cli.config.compose import load, parse_overrides
from ppo_cli.config.convert import dotted, load_yaml, to_dict
from ppo_cli.config.overrides import read_line
from ppo_cli.config.schema import KNOBS, conf_dir
from ppo_cli.episodes import Evaluation
from ppo_cli.errors import ConfigError
from ppo_cli.runs.build import check_environment
from ppo_cli.sweeps.eta import Pace
from ppo_cli.sweeps.live import Board
from ppo_cli.sweeps.search import run as search
from ppo_cli.sweeps.search import trial as search_trial
from ppo_cli.sweeps.search.plan import command_line, job_config, load_plan, make_plan
from ppo_cli.sweeps.search.results import importances
from ppo_cli.sweeps.search.space import Choice, Interval, to_axis
from ppo_cli.sweeps.search.trial import aggregate, score

RUN = (  # 4 iterations
    "env=CartPole-v1", "preset=none", "n_envs=2", "n_steps=64", "total_timesteps=512", "n_epochs=1",
    "eval.episodes=1", "vectorization=sync", "checkpoint.every=1",
)  # fmt: skip
SPACE = ("learning_rate=tag(log,interval(1e-4,1e-2))", "clip_ratio=choice(0.1,0.2)")
SEARCH = ("-m", "hydra/sweeper=optuna", *RUN, *SPACE, "seed=range(2)", "hydra.sweeper.evaluations=4")


def rows(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_search(first, second):
    assert rows(first) == rows(second)
    for row in rows(first):
        for run in (first / row["folder"]).glob("seed=*/eval.json"):
            assert_same_end(run.parent, second / row["folder"] / run.parent.name)


def axis(typed):
    (override,) = parse_overrides([typed], None)
    return to_axis(override)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("gamma=interval(0.9,1)", Interval("gamma", 0.9, 1.0, None, False, False)),
        (
            "learning_rate=tag(log,interval(1e-5,1e-2))",
            Interval("learning_rate", 1e-5, 1e-2, None, True, False),
        ),
        ("n_epochs=interval(3,20)", Interval("n_epochs", 3, 20, None, False, True)),
        ("n_epochs=tag(log,int(interval(3,20)))", Interval("n_epochs", 3, 20, None, True, True)),
        ("n_epochs=range(2,11,4)", Interval("n_epochs", 2, 10, 4, False, True)),
        ("gamma=range(0.9,1,0.05)", Interval("gamma", 0.9, 0.95, 0.05, False, False)),
        (
            "+optimizer_kwargs.weight_decay=tag(log,interval(1e-5,1e-2))",
            Interval("+optimizer_kwargs.weight_decay", 1e-5, 1e-2, None, True, False),
        ),
        ("clip_ratio=0.1,0.2", Choice("clip_ratio", ("0.1", "0.2"))),
        ("network.hidden_sizes=choice([64,64],[32])", Choice("network.hidden_sizes", ("[64,64]", "[32]"))),
        ("network=choice(mlp,mlp_sde)", Choice("network", ("mlp", "mlp_sde"))),
    ],
)
def test_hydras_sweeps_are_axes(typed, expected):
    assert axis(typed) == expected


@pytest.mark.parametrize(
    "typed",
    [
        "gamma=interval(1,0.9)",
        "n_epochs=interval(1.5,3)",
        "gamma=tag(log,interval(0,1))",
        "gamma=tag(log,choice(0.9,0.95))",
        "gamma=tag(maybe,interval(0,1))",
        "n_steps=tag(log,range(1,9,2))",
        "gamma=choice(0.9,0.9)",
        "network.activation=interval(0,1)",
    ],
)
def test_what_is_no_axis_is_said(typed):
    with pytest.raises(ConfigError, match=r"expected|needs|takes"):
        axis(typed)


def test_scores_of_a_run():
    curve = {100: 10.0, 300: 40.0, 400: 20.0}
    assert score(curve, "final") == 20.0
    assert score(curve, "final", until=399) == 40.0
    assert score(curve, "auc") == pytest.approx((100 * 10 + 200 * 40 + 100 * 20) / 400)
    assert score(curve, "auc", until=300) == pytest.approx((100 * 10 + 200 * 40) / 300)
    assert score(curve, "auc", until=50) == 10.0
    assert aggregate([1.0, 2.0, 3.0, 94.0], "mean") == 25.0
    assert aggregate([1.0, 2.0, 3.0, 94.0], "iqm") == 2.5


def plan_of(*overrides):
    return make_plan(read_line(overrides).words, None, "config")


def test_the_best_trials_line_has_the_users_folder(ppo_train, tmp_path):
    preset = tmp_path / "mine" / "env" / "FrozenLake-v1.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text("# @package _global_\ngamma: 0.5\n")
    (tmp_path / "mine" / "encoders").mkdir()  # whatever else lies there
    (tmp_path / "mine" / "encoders" / "notes.yaml").write_text("a: 1\n")
    tiny = (
        "env=FrozenLake-v1",
        "n_envs=2",
        "n_steps=16",
        "total_timesteps=64",
        "eval.episodes=1",
        "compile=false",
    )
    searched = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "ent_coef=choice(0.0,0.01)")
    done = ppo_train("--config-dir", "mine", "-m", *searched, *tiny, "hydra.sweep.dir=found")
    assert done.status == 0, done.err
    (line,) = (line for line in done.out.splitlines() if "ppo-train " in line and "ent_coef=" in line)
    shown = ppo_train(*shlex.split(line)[1:], "--cfg", "job")
    assert shown.status == 0, shown.err
    assert yaml.safe_load(shown.out)["gamma"] == 0.5
    assert load_plan(tmp_path / "found").folders


@pytest.mark.parametrize(
    ("space", "given"), [("ppo_sde", "use_sde=True"), ("ppo_kl", "anneal.learning_rate.shape=kl")]
)
def test_what_a_ready_space_fixes_is_typed_for_its_best_trial(space, given):
    typed = ["hydra/sweeper=optuna", f"search={space}", "env=Pendulum-v1", "preset=none"]
    plan = make_plan(read_line(typed).words, None, "config")
    values = {axis.key: axis.ends()[0] for axis in plan.axes}
    typed = shlex.split(command_line(plan, values))[1:]
    assert given in typed
    wanted, found = (to_dict(config) for config in (job_config(plan, values, 0), load(*typed, "seed=0")))
    assert found | {key: wanted[key] for key in ("env", "eval")} == wanted  # which are checked further


def test_an_option_is_searched_beside_the_optimizers_that_take_it():
    plan = plan_of(
        "hydra/sweeper=optuna", "optimizer=choice(sgd,rmsprop)", "+optimizer_kwargs.momentum=interval(0,0.9)"
    )
    config = job_config(plan, {"optimizer": "rmsprop", "+optimizer_kwargs.momentum": "0.5"}, 0)
    assert (config.optimizer, config.optimizer_kwargs) == ("rmsprop", {"momentum": 0.5})


SPACES = sorted(path.stem for path in (conf_dir() / "search").glob("*.yaml"))
SMALL = ("ppo_rollout", "ppo_small")  # each end of each axis is checked with each network


def test_ready_spaces_are_of_knobs_and_of_what_can_be_searched():
    for space in SPACES:
        params = load_yaml(conf_dir() / "search" / f"{space}.yaml")["params"]
        read = parse_overrides([f"{key}={value}" for key, value in params.items()], None)
        searched = [to_axis(override) for override in read if override.is_sweep_override()]
        assert len(searched) >= 5, space
        assert {axis.key for axis in searched} <= {*KNOBS, "network"}


@pytest.mark.parametrize(
    "space", [pytest.param(name, marks=[] if name in SMALL else pytest.mark.slow) for name in SPACES]
)
def test_ready_spaces_compose_and_what_is_typed_wins(space):
    plan = plan_of(
        "env=Pendulum-v1", "preset=none", "hydra/sweeper=optuna", f"search={space}", "gamma=0.5",
        "gae_lambda=choice(0.1,0.2)",
    )  # fmt: skip
    assert "gamma" not in {axis.key for axis in plan.axes}
    assert Choice("gae_lambda", ("0.1", "0.2")) in plan.axes
    values = {axis.key: axis.ends()[-1] for axis in plan.axes}
    config = job_config(plan, values, 7)
    assert (config.seed, config.gamma, config.gae_lambda) == (7, 0.5, 0.2)
    named = dict(dotted(to_dict(config)))
    drawn = {key: value for key, value in values.items() if key in named}
    assert {key: str(named[key]) for key in drawn} == {key: str(yaml.safe_load(drawn[key])) for key in drawn}
    assert len(drawn) >= 5


def test_a_group_is_searched_with_its_knobs_and_rollouts_are_compared_by_steps():
    plan = plan_of(
        "hydra/sweeper=optuna", "preset=none", "network=choice(mlp,mlp_large)", "n_steps=choice(64,2048)",
        "total_timesteps=20480", "hydra.sweeper.evaluations=5",
    )  # fmt: skip
    large = job_config(plan, {"network": "mlp_large", "n_steps": "64"}, 0)
    small = job_config(plan, {"network": "mlp", "n_steps": "2048"}, 0)
    assert large.network.hidden_sizes != small.network.hidden_sizes == [64, 64]
    assert (large.eval.every, small.eval.every) == (64, 2)
    typed = plan_of("hydra/sweeper=optuna", "gamma=choice(0.9,1)", "eval.every=3")
    assert job_config(typed, {"gamma": "1"}, 0).eval.every == 3


def test_a_search_leaves_runs_a_table_and_what_to_type(ppo_train, tmp_path):
    outcome = ppo_train(*SEARCH, "hydra.sweeper.n_trials=3", "hydra.sweep.dir=found")
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    found = rows(tmp_path / "found")
    assert [row["state"] for row in found] == ["complete"] * 3
    for row in found:
        scores = []
        for seed in (0, 1):
            run = tmp_path / "found" / row["folder"] / f"seed={seed}"
            scores.append(json.loads((run / "eval.json").read_text())["mean"])
            steps = [line.split(",")[0] for line in (run / "evaluations.csv").read_text().splitlines()]
            assert steps == ["step", "128", "256", "384", "512"]
        assert float(row["value"]) == sum(scores) / 2
    best = max(found, key=lambda row: float(row["value"]))
    line = outcome.out.splitlines()[-1].strip()
    assert line.endswith(f"learning_rate={best['learning_rate']} clip_ratio={best['clip_ratio']}")
    typed = load(*shlex.split(line)[1:])
    experiment = tmp_path / "mine" / "experiment" / "best.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text((tmp_path / "found" / "best.yaml").read_text())
    overrides = ["experiment=best", "eval.episodes=1", "checkpoint.every=1"]
    stored = load(*overrides, config_dir=str(tmp_path / "mine"))
    assert stored == check_environment(typed).config  # which decides on masks
    again = ppo_train("sweep.resume=found")
    assert again.status == 0
    assert "trial 0:" not in again.out and "goes on" not in again.out
    assert not (tmp_path / "found" / "importances.csv").exists()  # three are too few
    more = ppo_train("sweep.resume=found", "hydra.sweeper.n_trials=5")
    assert more.status == 0
    assert rows(tmp_path / "found")[:3] == found
    assert len(rows(tmp_path / "found")) == 5
    shares = dict(csv.reader((tmp_path / "found" / "importances.csv").read_text().splitlines()))
    assert shares.pop("knob") == "importance"
    assert sorted(shares) == ["clip_ratio", "learning_rate"]
    assert sum(map(float, shares.values())) == pytest.approx(1, abs=1e-3)
    assert "what mattered: " in more.out


def test_without_scikit_learn_a_search_says_what_to_install(ppo_train, tmp_path, monkeypatch):
    monkeypatch.setattr("ppo_cli.sweeps.search.results.find_spec", lambda name: None)
    outcome = ppo_train(*SEARCH, "hydra.sweeper.n_trials=1", "hydra.sweep.dir=found")
    assert outcome.status == 0, outcome.err
    assert "needs scikit-learn, pip install 'ppo-cli[optuna]'" in outcome.out


def test_an_axis_matters_by_what_it_explains():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    assert importances(study) == {}
    for _ in range(40):
        trial = study.ask()
        rate, gamma = trial.suggest_float("rate", 1e-4, 1e-2, log=True), trial.suggest_float("gamma", 0.9, 1)
        kind = trial.suggest_categorical("kind", ["a", "b"])
        study.tell(trial, -abs(math.log10(rate / 1e-3)) + (kind == "a") + 0.1 * gamma)
    shares = importances(study)
    assert list(shares)[-1] == "gamma" and shares["gamma"] < 0.1
    assert shares["rate"] > 0.2 and shares["kind"] > 0.2


@pytest.mark.slow
def test_killed_and_interrupted_and_resumed_it_is_the_same_search(ppo_train, tmp_path, interrupt):  # noqa: F811
    typed = (
        *SEARCH,
        INTERRUPTIBLE,
        "hydra.sweeper.n_trials=4",
        "+hydra.sweeper.sampler_kwargs.n_startup_trials=1",
    )
    assert ppo_train(*typed, "hydra.sweep.dir=whole").status == 0
    # in the middle of the second seed of the first trial
    assert killed(tmp_path, 6, *typed, "hydra.sweep.dir=cut") == -signal.SIGKILL
    (first,) = (tmp_path / "cut").glob("000_*")
    finished = contents(first / "seed=0")
    interrupt(9, signal.SIGINT)  # 3 iterations end the first trial
    stopped = ppo_train("sweep.resume=cut")
    assert stopped.status == 130
    assert stopped.err == "ppo-train: SIGINT: `ppo-train sweep.resume='cut'` goes on with the search\n"
    assert contents(first / "seed=0") == finished
    assert ppo_train("sweep.resume=cut").status == 0
    assert contents(first / "seed=0") == finished
    assert_same_search(tmp_path / "whole", tmp_path / "cut")
    assert ppo_train(*typed, "hydra.sweeper.seed=1", "hydra.sweep.dir=other").status == 0
    assert rows(tmp_path / "other") != rows(tmp_path / "whole")


def evaluation(mean):
    return Evaluation([mean], [1])


@pytest.fixture
def curves(monkeypatch):
    """A function that makes runs end at once, with the evaluations that it gives for a config."""

    def set_curve(curve):
        def run(config, folder, caller):
            begun.append((config.gamma, config.seed))
            for steps, mean in curve(config):
                tell(caller, folder, config, steps, evaluation(mean))

        begun = []
        monkeypatch.setattr(search_trial, "begin_or_go_on", run)
        return begun

    return set_curve


PRUNING = (
    "-m", "hydra/sweeper=optuna", "env=CartPole-v1", "total_timesteps=400", "gamma=range(0.5,1,0.01)",
    "seed=0,1", "hydra.sweeper.evaluations=4", "hydra.sweeper.n_trials=8",
    "+hydra.sweeper.pruner_kwargs.n_warmup_steps=2", "+hydra.sweeper.pruner_kwargs.n_startup_trials=2",
    "hydra.sweeper.sampler=random", "hydra.sweep.dir=found",
)  # fmt: skip


@pytest.mark.slow
def test_a_bad_trial_is_pruned_on_its_first_seed(ppo_train, tmp_path, curves):
    begun = curves(lambda config: [(steps, steps * config.gamma) for steps in (100, 200, 300, 400)])
    outcome = ppo_train(*PRUNING)
    assert outcome.status == 0, outcome.err
    found = rows(tmp_path / "found")
    pruned = [row for row in found if row["state"] == "pruned"]
    assert pruned
    complete = []
    for row in found:  # the rule, by hand: below the median of those that are complete
        gamma = float(row["gamma"])
        middle = sorted(complete)
        median = (middle[(len(middle) - 1) // 2] + middle[len(middle) // 2]) / 2 if len(middle) > 1 else 0
        assert (row["state"] == "pruned") == (gamma < median), row
        if row["state"] == "complete":
            complete.append(gamma)
    for row in pruned:
        assert not (tmp_path / "found" / row["folder"] / "seed=1").exists()
        note = (tmp_path / "found" / row["folder"] / "pruned.txt").read_text()
        assert note.startswith("seed=0 pruned at step 200: ")
    before = len(begun)
    assert ppo_train("sweep.resume=found").status == 0
    assert len(begun) == before


@pytest.mark.slow
def test_a_good_first_seed_does_not_shield_a_bad_second_one(ppo_train, tmp_path, curves):
    def curve(config):
        best = config.gamma < 0.75
        good = {0: 2.0, 1: -9.0} if best else {0: 1.0, 1: 1.0}
        return [(steps, steps * good[config.seed]) for steps in (100, 200, 300, 400)]

    curves(curve)
    assert ppo_train(*PRUNING).status == 0
    found = rows(tmp_path / "found")
    late = [row for row in found[2:] if float(row["gamma"]) < 0.75]
    assert late
    for row in late:
        note = (tmp_path / "found" / row["folder"] / "pruned.txt").read_text()
        assert note.startswith("seed=1 pruned at step 200: ")


@pytest.mark.slow
def test_a_failing_trial_stops_no_other_and_is_not_tried_again(ppo_train, tmp_path, curves):
    def curve(config):
        if config.gamma > 0.75:
            raise KeyError("lost")
        return [(400, config.gamma)]

    begun = curves(curve)
    outcome = ppo_train(*PRUNING)
    found = rows(tmp_path / "found")
    failed = [row["folder"] for row in found if row["state"] == "failed" or row["state"] == "fail"]
    assert 0 < len(failed) < len(found) == 8
    assert outcome.status == 1
    head, *table = outcome.err.splitlines()
    assert head.startswith(f"ppo-train: {len(failed)} of 8 trials failed")
    assert [line.split()[0] for line in table] == failed
    assert all(line.endswith("seed=0: KeyError: 'lost'") for line in table)
    assert "failed: seed=0: KeyError: 'lost'" in outcome.out
    assert "Traceback" not in outcome.out + outcome.err
    before = len(begun)
    assert ppo_train("sweep.resume=found").status == 1
    assert len(begun) == before


@pytest.mark.slow
def test_a_trial_that_another_process_owns_is_left_to_it(ppo_train, tmp_path, curves, monkeypatch):
    curves(lambda config: signal.raise_signal(signal.SIGTERM))
    assert ppo_train(*PRUNING).status == 143  # trial 0 is nobody's now
    hold = (
        "import fcntl, sys\nfile = open('found/.locks/0', 'w')\nfcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", hold], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout.readline() == b"held\n"
        pause = time.sleep

        def let_go(seconds):  # what the process does that waits for the owner
            owner.kill()
            owner.wait()
            pause(0.01)

        monkeypatch.setattr(search.time, "sleep", let_go)
        curves(lambda config: [(400, config.gamma)])
        outcome = ppo_train("sweep.resume=found")
    assert outcome.status == 0, outcome.err
    numbers = [int(line.split()[1].strip(":")) for line in outcome.out.splitlines() if ": gamma=" in line]
    assert sorted(numbers) == list(range(8))
    assert numbers[0] == 1
    assert numbers[-1] == 0
    assert "waiting for trial 0, which another process runs\ntrial 0 goes on: gamma=" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("learning_rat=interval(1,2)",), "did you mean 'learning_rate'?"),
        (("learning_rate=interval(0,1)",), "learning_rate=0.0: expected a value above 0"),
        (("gamma=interval(0.9,1.1)",), "gamma=1.1: expected a value from 0 to 1"),
        (("clip_ratio=choice(0.1,abc)",), "clip_ratio=abc: expected a number"),
        (("network=choice(mlp,mlpp)",), "did you mean 'mlp'?"),
        (("optimizer=choice(adam,adamm)",), "did you mean 'adam'?"),
        (("+optimizer_kwargs.momentum=interval(0,0.9)",), "takes no option 'momentum'"),
        (("+network.encoders.camera=interval(0,1)",), "network.encoders"),
        (("env=CartPole-v1,Acrobot-v1", "gamma=choice(0,1)"), "env can't be searched"),
        (("seed=interval(0,3)", "gamma=choice(0,1)"), "a trial's seeds are listed"),
        (("eval.episodes=0", "gamma=choice(0,1)"), "eval.episodes=0"),
        (("gamma=choice(0,1)", "hydra.sweeper.n_trails=3"), "did you mean 'n_trials'?"),
        (("gamma=choice(0,1)", "hydra.sweeper.n_trials=0"), "n_trials=0: expected a value from 1 to"),
        (("gamma=choice(0,1)", "hydra.sweeper.pruner=medean"), "did you mean 'median'?"),
        (("gamma=choice(0,1)", "+hydra.sweeper.pruner_kwargs.patience=3"), "expected one of n_startup"),
        (("gamma=choice(0,1)", "+hydra.sweeper.sampler_kwargs.n_startup_trials=x"), "expected an integer"),
        (("gamma=choice(0,1)", "hydra/launcher=joblib"), "in another terminal"),
        (("gamma=0.9",), "nothing to search"),
        (("search=ppo_smal",), "did you mean 'ppo_small'?"),
    ],
)
def test_what_can_not_be_searched_is_a_line(ppo_train, tmp_path, arguments, said):
    outcome = ppo_train("-m", "hydra/sweeper=optuna", *arguments)
    assert outcome.status == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_or_without_m_it_is_a_line(ppo_train, tmp_path, monkeypatch):
    assert "a search takes -m" in ppo_train("search=ppo_small").err
    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = ppo_train("-m", "search=ppo_small")
    assert outcome.status == 2
    assert outcome.err == ("ppo-train: hydra/sweeper=optuna needs an extra: pip install 'ppo-cli[optuna]'\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_only_the_number_of_trials_changes_on_going_on(ppo_train, tmp_path):
    overrides = ("hydra/sweeper=optuna", "gamma=choice(0,1)")
    (tmp_path / "found").mkdir()
    from ppo_cli.sweeps.search.plan import save_plan

    save_plan(plan_of(*overrides), tmp_path / "found")
    assert load_plan(tmp_path / "found") == plan_of(*overrides)
    for override in ("gamma=0.5", "hydra.sweeper.n_trials=x", "hydra.sweeper.pruner=none"):
        outcome = ppo_train("sweep.resume=found", override)
        assert outcome.status == 2
        assert "only hydra.sweeper.n_trials=N" in outcome.err
    (tmp_path / "found" / "search.json").write_text("[1]")
    assert "search.json is no search" in ppo_train("sweep.resume=found").err


def start(folder, *arguments):
    """`ppo-train` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", "from ppo_cli.cli.train import main; main()", *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_share_a_search_and_one_takes_over_what_the_other_leaves(tmp_path):
    first = start(
        tmp_path, *SEARCH, "total_timesteps=2e4", "hydra.sweeper.n_trials=8", "hydra.sweep.dir=found"
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "found").glob("000_*/seed=0/metrics.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    second = start(tmp_path, "sweep.resume=found")
    assert second.stdout.readline().startswith("trial ")
    first.kill()
    out, err = second.communicate(timeout=300)
    first.communicate()
    assert second.returncode == 0, err
    found = rows(tmp_path / "found")
    assert [int(row["number"]) for row in found] == list(range(8))
    assert {row["state"] for row in found} <= {"complete", "pruned"}
    assert " goes on: " in out


@pytest.mark.slow
def test_two_processes_take_different_trials(tmp_path):
    first = start(
        tmp_path, *SEARCH, "total_timesteps=4e3", "hydra.sweeper.n_trials=10", "hydra.sweep.dir=found"
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "found").glob("000_*/seed=0/metrics.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    processes = [first, start(tmp_path, "sweep.resume=found")]
    outs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    begun = [{line.split()[1] for line in out.splitlines() if ": learning_rate=" in line} for out, _ in outs]
    assert begun[0] and begun[1]
    assert not begun[0] & begun[1]
    assert len(begun[0] | begun[1]) == 10


@pytest.mark.slow
def test_one_line_begins_a_search_and_goes_on_with_it(ppo_train, tmp_path, curves):
    begun = curves(lambda config: [(400, config.gamma)])
    assert ppo_train(*PRUNING, "resume=auto").status == 0
    before, found = len(begun), rows(tmp_path / "found")
    again = ppo_train(*PRUNING, "resume=auto")
    assert (again.status, again.err) == (0, "")
    assert (len(begun), rows(tmp_path / "found")) == (before, found)
    other = ppo_train(*PRUNING, "resume=auto", "n_epochs=2")
    assert (other.status, other.err.count("\n")) == (2, 1)
    assert "found has other jobs than are typed now" in other.err


def test_on_a_terminal_the_runs_of_a_trial_that_are_left_are_shown(tmp_path, monkeypatch):
    plan = plan_of("hydra/sweeper=optuna", "gamma=choice(0.9,1)")
    configs = {seed: job_config(plan, {"gamma": "1"}, seed) for seed in (0, 1)}
    assert not isinstance(search_trial._table(tmp_path, configs), Board)
    monkeypatch.setattr(search_trial, "is_live", lambda _: True)
    monkeypatch.setattr(
        search_trial.RunFolder, "is_finished", property(lambda run: run.path.name == "seed=0")
    )
    table = search_trial._table(tmp_path, configs)
    assert [job.folder for job in table._jobs.values()] == ["seed=1"]


def test_the_time_left_follows_from_the_trials_that_ended_meanwhile():
    pace = Pace(began=100.0, ended=3)  # of another process, or before this one was stopped
    assert pace.time_left(100.0, 3, 10) is None
    assert pace.time_left(130.0, 5, 10) == pytest.approx(75.0)  # two in 30 s, five are left
    assert pace.time_left(130.0, 10, 10) is None
