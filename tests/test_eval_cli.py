"""ppo-eval: the numbers of the training run itself, the same every time, and one line for what is wrong."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from rich.console import Console

from ppo_cli.cli.evaluate import main
from ppo_cli.distributions import make_distribution
from ppo_cli.envs.make import env_fn
from ppo_cli.errors import ConfigError
from ppo_cli.report.evaluations import EvaluatedRun, table
from ppo_cli.runs.checkpoint import load_checkpoint, save_checkpoint
from ppo_cli.runs.evaluation import EvaluationPlan, evaluate, mean_interval
from ppo_cli.runs.film import choose_episode
from ppo_cli.runs.folder import find_checkpoint

TINY = (
    "total_timesteps=200", "n_envs=2", "n_steps=50", "batch_size=50", "n_epochs=2", "eval.episodes=5",
    "compile=false", "vectorization=sync", "preset=none", "checkpoint.every=1",
)  # fmt: skip
NORMALISED = ("normalize.observations=true", "normalize.rewards=true")


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def ppo_eval(ppo_train, monkeypatch, capfd):
    """A function that runs `ppo-eval ARGUMENTS` in the folder of `ppo_train`."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ppo-eval", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return Outcome(ended.value.code, captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the runs of `trained` are kept."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def trained(ppo_train, kept):
    """A function that puts a finished run into a folder; each command line is trained once."""

    def call(*arguments, name="run"):
        run = kept / hashlib.sha256(repr(arguments).encode()).hexdigest()[:8]
        if not run.exists():
            outcome = ppo_train(*TINY, *arguments, f"hydra.run.dir={run}")
            assert outcome.status == 0, outcome.err
        shutil.copytree(run, name)
        return Path(name)

    return call


@pytest.fixture
def cartpole(trained):
    """A finished run on CartPole, with normalisation, in the folder `run`."""
    return trained("env=CartPole-v1", *NORMALISED)


def refused(outcome, status, *words):
    """Whether it ended in one line with these words."""
    assert outcome.status == status, outcome.err
    assert outcome.out == ""
    assert outcome.err.startswith("ppo-eval: ")
    assert outcome.err.count("\n") == 1, outcome.err
    for word in words:
        assert word in outcome.err, outcome.err
    return True


def contents(folder):
    """What lies in a folder, to the bit."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Globals(gym.Env):
    """Rewards from the generators that everybody shares."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), float(np.random.normal()), self.t == 5, False, {}


class Shapes(gym.Env):
    """Spaces as asked for; rewards too."""

    def __init__(self, n=3, kind="discrete", reward=1.0, size=2, observation=0.0):
        self.observation_space = spaces.Box(-1, 1, (size,), np.float32)
        self.action_space = spaces.Discrete(n) if kind == "discrete" else spaces.MultiBinary(n)
        self.reward = reward
        self.seen = np.full(size, observation, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.low, {}

    def step(self, action):
        self.t += 1
        if self.reward == "raise":
            raise ArithmeticError("cursed\nenvironment")
        return self.seen, self.reward, self.t == 5, False, {}


@pytest.fixture(autouse=True)
def own_environments():
    gym.register("Globals-v0", Globals)
    gym.register("Shapes-v0", Shapes)
    yield
    del gym.registry["Globals-v0"]
    gym.registry.pop("Shapes-v0", None)


@pytest.fixture
def shapes(trained):
    """A run on `Shapes`."""
    return trained("env.id=Shapes-v0")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("env=CartPole-v1", *NORMALISED), marks=pytest.mark.slow),
        pytest.param(
            ("env=CartPole-v1", *NORMALISED, "eval.deterministic=false", "eval.seed=5", "eval.episodes=20"),
            marks=pytest.mark.slow,
        ),
        pytest.param(("env=Pendulum-v1", *NORMALISED, "use_sde=true"), marks=pytest.mark.slow),
        ("env=Pendulum-v1", "use_sde=true", "eval.deterministic=false", "+env.kwargs.g=3.5"),
    ],
    ids=["CartPole", "CartPole sampled", "gSDE", "gSDE sampled, arguments"],
)
def test_another_process_repeats_the_runs_own_evaluation_bit_for_bit(trained, arguments):
    run = trained(*arguments)
    program = "from ppo_cli.cli.evaluate import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, str(run), "--json"], capture_output=True, text=True, check=True
    )
    again = json.loads(done.stdout)
    saved = json.loads((run / "eval.json").read_text())
    assert {key: again[key] for key in saved} == saved
    assert set(again) == {*saved, "checkpoint", "interval"}
    assert again["checkpoint"] == "run/checkpoints/last.pt"


def test_environments_that_share_generators_repeat_too(trained, ppo_eval):
    run = trained("env.id=Globals-v0")
    saved = json.loads((run / "eval.json").read_text())
    np.random.seed(77)
    assert ppo_eval("run", "--json").json["returns"] == saved["returns"]


def test_what_is_printed(ppo_eval, cartpole):
    saved = json.loads((cartpole / "eval.json").read_text())
    outcome = ppo_eval("run")
    assert outcome.status == 0
    assert outcome.err == ""
    assert "run · last.pt, 200 steps · 5 deterministic episodes, seed 1000" in outcome.out
    assert f"{saved['mean']:.2f} ± {saved['std']:.2f}" in outcome.out
    assert f"{saved['iqm']:.2f}" in outcome.out
    assert f"{min(saved['lengths'])} to {max(saved['lengths'])}" in outcome.out


def test_settings_override_the_runs(ppo_eval, cartpole):
    saved = json.loads((cartpole / "eval.json").read_text())
    more = ppo_eval("run", "--json", "--episodes", "40").json
    assert more["episodes"] == len(more["returns"]) == len(more["lengths"]) == 40
    assert more["lengths"][:5] == saved["lengths"]
    assert ppo_eval("run", "--json", "--seed", "3").json["returns"] != saved["returns"]
    sampled = ppo_eval("run", "--json", "--sampled", "--episodes", "40").json
    assert not sampled["deterministic"]
    assert sampled["returns"] != more["returns"]
    assert sampled == ppo_eval("run", "--sampled", "--episodes", "40", "--json").json


def test_checkpoints_by_name(ppo_eval, cartpole):
    first = ppo_eval("run", "--checkpoint", "100", "--json").json
    assert first["steps"] == 100
    assert first["checkpoint"].endswith("100.pt")
    assert ppo_eval("run", "--checkpoint", "200", "--json").json["steps"] == 200
    best = ppo_eval("run", "--checkpoint", "best", "--json").json
    assert best["returns"] == json.loads((cartpole / "eval.json").read_text())["returns"]
    file = ppo_eval("run/checkpoints/100.pt", "--json").json
    assert file == first


def test_runs_without_evaluation_get_twenty_episodes(trained, ppo_eval):
    trained("env=CartPole-v1", "eval.episodes=0")
    assert ppo_eval("run", "--json").json["episodes"] == 20
    assert refused(ppo_eval("run", "--checkpoint", "best"), 2, "no checkpoint best", "it has 100, 200, last")


def test_older_runs_lack_younger_knobs(ppo_eval, cartpole):
    payload = load_checkpoint(cartpole / "checkpoints" / "last.pt")
    del payload["config"]["checkpoint"]
    del payload["config"]["eval"]["every"]
    save_checkpoint(Path("old.pt"), payload)
    assert ppo_eval("old.pt", "--json").json["returns"] == ppo_eval("run", "--json").json["returns"]


def test_a_run_from_a_machine_with_a_gpu_is_evaluated_without(ppo_eval, cartpole):
    payload = load_checkpoint(cartpole / "checkpoints" / "last.pt")
    payload["config"]["device"] = "cuda:99"
    save_checkpoint(Path("gpu.pt"), payload)
    assert ppo_eval("gpu.pt", "--json").json["returns"] == ppo_eval("run", "--json").json["returns"]


def test_several_runs_make_a_table_in_their_order(trained, ppo_eval):
    for name, seed in (("b[1]", 1), ("a", 2)):
        trained("env=CartPole-v1", f"seed={seed}", name=name)
    outcome = ppo_eval("b[1]", "a", "b[1]")
    title, head, _, *rows = outcome.out.splitlines()
    assert title == "5 deterministic episodes each · seed 1000 · last.pt · 200 steps"
    assert head.split()[:3] == ["run", "return", "IQM"]
    assert [row.split()[0] for row in rows] == ["b[1]", "a", "b[1]"]
    several = ppo_eval("b[1]", "a", "--json").json
    assert [each["checkpoint"] for each in several] == ["b[1]/checkpoints/last.pt", "a/checkpoints/last.pt"]
    assert several[1] == ppo_eval("a", "--json").json


def test_all_of_a_sweeps_folder_is_its_runs_and_what_they_import_is_said_once(trained, ppo_eval):
    trained("env.id=info_envs:Parts-v0", name="sweep/seed=0")
    trained("env.id=info_envs:Parts-v0", name="sweep/seed=1")
    (Path("sweep") / "report").mkdir()
    for name in ("jobs.json", "multirun.yaml", "study.db"):
        (Path("sweep") / name).touch()
    outcome = ppo_eval(*map(str, sorted(Path("sweep").iterdir())))
    assert outcome.status == 0
    assert [row.split()[0] for row in outcome.out.splitlines()[3:]] == ["seed=0", "seed=1"]
    assert outcome.err.count("\n") == outcome.err.count("importing info_envs") == 1
    assert refused(ppo_eval("sweep/jobs.json"), 1, "jobs.json is not a readable checkpoint")
    assert refused(ppo_eval("sweep/report"), 2, "no run there")


def test_a_table_tells_returns_below_one_apart():
    summary = {
        "std": 0.0, "iqm": 0.9, "episodes": 1, "lengths": [9], "steps": 9, "deterministic": True, "seed": 0,
        "checkpoint": "last.pt", "interval": (0.9641, 0.9649),
    }  # fmt: skip
    console = Console(width=100, file=io.StringIO())
    console.print(
        table([EvaluatedRun(run, {**summary, "mean": m}) for run, m in (("a", 0.968), ("b", 0.969))], console)
    )
    for text in ("0.968 ± 0.000", "0.969 ± 0.000", "0.964 to 0.965"):
        assert text in console.file.getvalue()


def test_one_of_several_fails_and_the_others_are_evaluated(ppo_eval, cartpole):
    outcome = ppo_eval("run", "nowhere", "run/checkpoints/100.pt", "--json")
    assert outcome.status == 1
    assert [each["steps"] for each in outcome.json] == [200, 100]
    assert outcome.err.count("\n") == 1
    assert "ppo-eval: nowhere: no such folder" in outcome.err


def test_nothing_is_written_but_where_asked(ppo_eval, cartpole, tmp_path):
    before = contents(tmp_path)
    ppo_eval("run", "--sampled")
    ppo_eval("run", "run", "--json")
    assert contents(tmp_path) == before
    outcome = ppo_eval("run", "--json", "numbers.json")
    assert "return" in outcome.out
    assert json.loads(Path("numbers.json").read_text()) == ppo_eval("run", "--json").json
    Path("numbers.json").unlink()
    assert contents(tmp_path) == before


def test_a_file_that_can_not_be_written_loses_no_numbers(ppo_eval, cartpole):
    Path("folder.json").mkdir()
    outcome = ppo_eval("run", "--json", "folder.json")
    assert outcome.status == 1
    assert "return" in outcome.out
    assert "folder.json" in outcome.err
    assert outcome.err.count("\n") == 1


def test_arguments_of_the_environment(trained, ppo_eval):
    trained("env=Pendulum-v1", "+env.kwargs.g=3.5")
    own = ppo_eval("run", "--json").json
    assert ppo_eval("run", "--json", "--env-kwargs", "g=3.5").json == own
    other = ppo_eval("run", "--json", "--env-kwargs", "g=1e1").json
    assert other["returns"] != own["returns"]
    shorter = ppo_eval("run", "--env-kwargs", "max_episode_steps=7", "g=10", "--json").json
    assert shorter["lengths"] == [7] * 5


def test_what_an_episodes_actions_were():
    class Policy:
        distribution = make_distribution(spaces.Discrete(2))
        initial_state = torch.zeros(0)

        @staticmethod
        def act(observations, generator, states):
            return np.arange(len(observations)), states

    actions = {1: []}
    evaluate(Policy(), EvaluationPlan(env_fn("CartPole-v1"), 2, 0, True, max_steps=3), actions=actions)
    assert actions == {1: [1, 1, 1]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["required: RUN"]),
        (("run", "--episode", "3"), ["--episode"]),
        (("run", "--episodes", "0"), ["--episodes 0", "at least 1"]),
        (("run", "--episodes", "many"), ["--episodes", "many"]),
        (("run", "--seed", "-1"), ["--seed", "-1"]),
        (("run", "--sampled", "--deterministic"), ["not allowed with"]),
        (("run", "--json", "run/checkpoints/last.pt"), ["ends in .json", "runs come before"]),
        (("run", "--json", "nowhere/a.json"), ["nowhere/a.json", "no such folder"]),
        (("run", "--env-kwargs", "gravity"), ["gravity", "KEY=VALUE"]),
        (("run", "--env-kwargs", "x=1", "a/b_seed=3"), ["a/b_seed=3", "KEY=VALUE"]),
        (("run", "--env-kwargs", "x=[1"), ["x=[1", "YAML"]),
        (("run", "--env-kwargs", "x=!!python/object/apply:os.getcwd []"), ["YAML"]),
        (("nowhere",), ["nowhere: no such folder or file"]),
        (("gravity=3",), ["gravity=3", "--env-kwargs"]),
        (("empty",), ["empty: no run there"]),
        (("begun",), ["begun has no checkpoint last", "it has none"]),
        (("begun", "--checkpoint", "../config"), ["--checkpoint ../config: expected last, best or a number"]),
        (("begun", "--checkpoint", ""), ["expected last, best or a number of steps"]),
        (("run", "--env-kwargs", "render_mode=human"), ["draws nothing; --video"]),
        (("file.pt", "--checkpoint", "best"), ["file.pt is a file"]),
        (("run", "--video-episode", "best"), ["--video-episode best goes with --video DIR"]),
        (("run", "--video", "films", "--video-episode", "-1"), ["--video-episode"]),
        (
            ("run", "--video", "films", "--video-episode", "longest"),
            ["longest: expected first, best, median"],
        ),
    ],
)
def test_bad_input_ends_in_a_line(ppo_eval, tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").touch()
    (tmp_path / "file.pt").touch()
    assert refused(ppo_eval(*arguments), 2, *words)


def test_help_and_errors_need_no_pytorch(tmp_path):
    program = (
        "import sys; from ppo_cli.cli.evaluate import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    for arguments, status in ((["--help"], 0), ([str(tmp_path)], 2)):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
    assert (
        "--env-kwargs"
        in subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True).stdout
    )


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_damaged_and_malicious_checkpoints(ppo_eval, cartpole, tmp_path):
    last = cartpole / "checkpoints" / "last.pt"
    intact = last.read_bytes()
    last.unlink()  # a name of its own, not the numbered checkpoint's
    last.write_bytes(intact[:-100])
    named = ("run", "--checkpoint", "last")
    assert refused(ppo_eval(*named), 1, "run/checkpoints/last.pt", "the newest intact one is 200.pt")
    last.write_bytes(intact)
    payload = torch.load(last, weights_only=True)
    torch.save({**payload, "steps": 10**9}, last)
    assert refused(ppo_eval(*named), 1, "run/checkpoints/last.pt", "checksum")
    torch.save({"format": 2, "sha256": "0", "evil": Malicious()}, last)
    assert refused(ppo_eval("run/checkpoints/last.pt"), 1, "run/checkpoints/last.pt", "200.pt")
    last.write_bytes(pickle.dumps(Malicious()))
    assert refused(ppo_eval(*named), 1, "run/checkpoints/last.pt")
    assert not (tmp_path / "owned").exists()
    assert ppo_eval("run", "--checkpoint", "200").status == 0


def test_a_damaged_last_checkpoint_gives_way_to_the_newest_intact_one(ppo_eval, cartpole):
    folder = cartpole / "checkpoints"
    for name in ("last.pt", "200.pt"):
        content = (folder / name).read_bytes()[:-100]
        (folder / name).unlink()  # they are two names of one file
        (folder / name).write_bytes(content)
    outcome = ppo_eval("run", "--json")
    assert outcome.status == 0
    assert outcome.err.count("\n") == 1
    assert outcome.err.endswith("; evaluating 100.pt, the newest that is intact\n")
    assert outcome.json == ppo_eval("run", "--checkpoint", "100", "--json").json
    (folder / "100.pt").write_bytes(b"")
    assert refused(ppo_eval("run"), 1, "run/checkpoints/200.pt")


@pytest.mark.parametrize("missing", ["config", "model", "steps"])
def test_checkpoints_that_hold_no_run(ppo_eval, cartpole, missing):
    payload = load_checkpoint(cartpole / "checkpoints" / "last.pt")
    del payload[missing]
    save_checkpoint(Path("other.pt"), payload)
    assert refused(ppo_eval("other.pt"), 1, "other.pt", missing)
    payload[missing] = 3
    save_checkpoint(Path("other.pt"), payload)
    if missing != "steps":
        assert ppo_eval("other.pt").err.count("\n") == 1


def test_a_network_that_does_not_fit(trained, ppo_eval):
    trained("env=FrozenLake-v1")
    outcome = ppo_eval("run", "--env-kwargs", "map_name=8x8")
    assert refused(outcome, 2, "run: the network does not fit FrozenLake-v1", "8x8", "Discrete(64)")


@pytest.mark.parametrize("kwargs", [["n=2"], ["kind=bits"], ["size=3"]])
def test_spaces_of_another_kind_or_size_do_not_fit(ppo_eval, shapes, kwargs):
    assert refused(ppo_eval("run", "--env-kwargs", *kwargs), 2, "does not fit Shapes-v0")


def test_arguments_that_the_environment_does_not_know(ppo_eval, cartpole):
    outcome = ppo_eval("run", "--env-kwargs", "gravty=3")
    assert refused(outcome, 2, "CartPole-v1", "'gravty': 3", "TypeError")


def test_an_environment_that_is_gone(ppo_eval, shapes):
    del gym.registry["Shapes-v0"]
    assert refused(ppo_eval("run"), 2, "Shapes")


@pytest.mark.parametrize(("reward", "words"), [("raise", "ArithmeticError: cursed env"), (".nan", "NaN")])
def test_an_environment_that_fails(ppo_eval, shapes, reward, words):
    outcome = ppo_eval("run", "--env-kwargs", f"reward={reward}")
    assert refused(outcome, 1, "run: Shapes-v0", words)


@pytest.mark.parametrize(("fault", "what"), [("reward", "reward"), ("observation", "observation")])
def test_a_nan_is_said_with_its_episode_and_step(ppo_eval, shapes, fault, what):
    outcome = ppo_eval("run", "--env-kwargs", f"{fault}=.nan")
    assert refused(
        outcome, 1, f"run: Shapes-v0: an environment returned a NaN or an infinity as {what}", "0, step 1"
    )


def test_ctrl_c_keeps_what_is_finished(ppo_eval, cartpole, monkeypatch):
    from ppo_cli.runs import reevaluation

    whole, calls = reevaluation.evaluate, iter([False, True])

    def interrupted(*arguments, **named):
        if next(calls):
            raise KeyboardInterrupt
        return whole(*arguments, **named)

    monkeypatch.setattr(reevaluation, "evaluate", interrupted)
    outcome = ppo_eval("run", "run/checkpoints/100.pt", "run", "--json")
    assert outcome.status == 130
    assert [each["steps"] for each in outcome.json] == [200]
    assert (
        outcome.err == "ppo-eval: SIGINT: interrupted in run/checkpoints/100.pt; 1 of 3 runs were evaluated\n"
    )


def test_one_episode_has_no_interval(ppo_eval, cartpole):
    assert ppo_eval("run", "--json", "--episodes", "1").json["interval"] is None
    assert "–" in ppo_eval("run", "--episodes", "1").out


def test_without_scipy_there_is_no_interval_and_a_line(ppo_eval, cartpole, monkeypatch):
    monkeypatch.setattr("ppo_cli.statistics.has_scipy", lambda: False)
    outcome = ppo_eval("run", "--json")
    assert outcome.status == 0
    assert outcome.json["interval"] is None
    assert "ppo-cli[report]" in outcome.err


def test_the_interval_covers_the_mean_as_often_as_it_says():
    pytest.importorskip("scipy")
    draws = np.random.default_rng(0).normal(3, 2, (200, 40))
    intervals = [mean_interval(list(row), seed) for seed, row in enumerate(draws)]
    assert 0.88 < np.mean([low < 3 < high for low, high in intervals]) < 0.99
    assert mean_interval([500.0] * 10, 0) == (500.0, 500.0)
    assert mean_interval([1.0, 5.0, 2.0], 3) == mean_interval([1.0, 5.0, 2.0], 3)


def test_checkpoints_are_named_in_order(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").touch()
    for name in ("900", "1000", "last", "0"):
        (tmp_path / "checkpoints" / f"{name}.pt").touch()
    with pytest.raises(ConfigError, match=r"it has 0, 900, 1000, last$"):
        find_checkpoint(tmp_path, "5")
    assert find_checkpoint(tmp_path, "900").name == "900.pt"


def test_video_needs_ffmpeg(ppo_eval, monkeypatch):
    monkeypatch.setattr("ppo_cli.cli.evaluate.importlib.util.find_spec", lambda name: None)
    assert refused(ppo_eval("run", "--video", "films"), 2, "pip install 'ppo-cli[video]'")


def test_an_episode_is_chosen_by_its_return():
    returns = [2.0, 9.0, 1.0, 9.0, 1.0, 3.0]
    chosen = {which: choose_episode(which, returns) for which in ("first", "best", "median", "worst", "4")}
    assert chosen == {"first": 0, "best": 1, "median": 0, "worst": 2, "4": 4}


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_table_of_several_runs_fits_its_width(width):
    console = Console(width=width, file=io.StringIO())
    folder = "outputs/sweeps/2026-01-31_12-00-00/env.kwargs.gravity={g},learning_rate=0.000{i},seed={i}"
    found = [
        EvaluatedRun(
            folder.format(g=g, i=i),
            {
                "mean": -1234.5 * i, "std": 99.5, "iqm": -1200.0, "episodes": 100, "lengths": [1000] * 3,
                "steps": 10**7 * (i + 1), "deterministic": True, "seed": 1000,
                "checkpoint": f"{folder}/checkpoints/last.pt", "interval": (-1300.5, -1100.25),
            },
        )
        for g in (-5, -9.81) for i in range(3)
    ]  # fmt: skip
    console.print(table(found, console))
    title, head, _, *rows = console.file.getvalue().splitlines()
    assert title == "100 deterministic episodes each · seed 1000 · last.pt"
    assert max(map(len, rows)) <= width
    assert {"run", "return", "steps"} <= set(head.split())
    assert len({row.split()[0] for row in rows}) == len(rows) == 6
    for row, g in zip(rows, [-5] * 3 + [-9.81] * 3, strict=True):
        assert str(g) in row
        assert "outputs" not in row
        assert "± 99.50" in row


def test_a_table_of_several_runs_has_their_success_rates():
    console = Console(width=80, file=io.StringIO())
    summary = {
        "mean": 1.0, "std": 0.5, "iqm": 1.0, "episodes": 4, "lengths": [9] * 4, "steps": 64,
        "deterministic": True, "seed": 1000, "checkpoint": "last.pt", "interval": (0.5, 1.5),
    }  # fmt: skip
    found = [
        EvaluatedRun("a", {**summary, "info": {"is_success": 0.25, "reward": 3.5}}),
        EvaluatedRun("b", summary),
    ]
    console.print(table(found, console))
    _, head, _, first, second = console.file.getvalue().splitlines()
    assert head.split()[-1] == "is_success"
    assert first.split()[-1] == "0.25"
    assert second.split()[-1] == "9.0"  # its episodes' length: it tells of none


class Painted(gym.Env):
    """Pictures of an odd size, or what is none; 40 steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's way
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode=None, fault="", height=31):
        self.render_mode, self.fault, self.height = render_mode, fault, height

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 1.0, self.t == 40, False, {}

    def render(self):
        if self.fault == "raise":
            raise OSError("no\nscreen")
        if self.fault == "none":
            return None
        if self.fault == "late" and self.t == 20:
            raise OSError("the lamp broke")
        if self.fault == "size" and self.t == 20:
            return np.zeros((3, 3, 3), np.uint8)
        return np.full((self.height, 41, 3), 6 * self.t, np.uint8)


class TestVideo:
    @pytest.fixture(autouse=True)
    def ffmpeg(self):
        pytest.importorskip("imageio_ffmpeg")
        gym.register("Painted-v0", Painted)
        yield
        del gym.registry["Painted-v0"]

    @staticmethod
    def pictures(film, height, width):
        """The film's pictures as a player sees them, [frames, height, width, 3]."""
        import imageio_ffmpeg

        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(film), "-f", "rawvideo"]
        played = subprocess.run([*command, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
        assert played.stderr == b""
        return np.frombuffer(played.stdout, np.uint8).reshape(-1, height, width, 3)

    @pytest.mark.parametrize("env", ["LunarLander-v3", "CartPole-v1"])
    def test_it_shows_the_first_episode_and_changes_no_number(self, trained, ppo_eval, env):
        run = trained(f"env={env}")
        before = contents(run)
        plain = ppo_eval("run", "--json", "--sampled")
        films = []
        for _ in range(2):  # the second time over the film that is there
            filmed = ppo_eval("run", "--json", "--sampled", "--video", "films")
            shown = f"episode 0, return {plain.json['returns'][0]:.2f}"
            said = f"ppo-eval: film: films/run-last-episode-0.mp4 ({shown})\n"
            assert (filmed.status, filmed.err) == (0, said)
            assert filmed.json == plain.json
            films.append(contents(Path("films")))
        assert films[0] == films[1]
        assert contents(run) == before
        (film,) = Path("films").iterdir()
        pictures = self.pictures(film, 400, 600)
        assert len(pictures) == plain.json["lengths"][0] + 1
        assert (pictures[0] != pictures[-1]).any()

    def test_every_picture_is_there_in_order(self, trained, ppo_eval):
        trained("env.id=Painted-v0")
        assert ppo_eval("run", "--video", "films").status == 0
        pictures = self.pictures(next(Path("films").iterdir()), 32, 42)  # even, as players want it
        assert len(pictures) == 41
        assert pictures[:, :31, :41].mean((1, 2, 3)) == pytest.approx([6 * t for t in range(41)], abs=4)

    @pytest.mark.parametrize("which", ["first", "best", "median", "worst", "3"])
    def test_any_episode_can_be_filmed(self, ppo_eval, cartpole, which):
        outcome = ppo_eval("run", "--sampled", "--video", str(Path.cwd() / "films"), "--video-episode", which)
        evaluated = ppo_eval("run", "--sampled", "--json").json
        episode = choose_episode(which, evaluated["returns"])
        assert (outcome.status, outcome.err) == (0, "")
        film = f"films/run-last-episode-{episode}.mp4"
        said = f"film    {film} (episode {episode}, return {evaluated['returns'][episode]:.2f})"
        assert outcome.out.splitlines()[-1] == said
        assert len(self.pictures(film, 400, 600)) == evaluated["lengths"][episode] + 1

    def test_an_episode_that_there_is_not_is_said_before_the_evaluation(
        self, ppo_eval, cartpole, monkeypatch
    ):
        monkeypatch.setattr("ppo_cli.runs.evaluation.evaluate", None)
        outcome = ppo_eval("run", "--video", "films", "--video-episode", "5")
        assert refused(outcome, 2, "--video-episode 5", "expected 0 to 4")
        assert not Path("films").exists()

    def test_pictures_are_not_kept(self, trained, ppo_eval, monkeypatch):
        from ppo_cli.runs import film

        alive = []
        painted = Painted.render
        monkeypatch.setattr(Painted, "render", lambda env: Counted.of(painted(env), alive))
        trained("env.id=Painted-v0")
        encode, most = film._encode, []
        watched = lambda frames: (most.append(sum(one() is not None for one in alive)) or f for f in frames)  # noqa: E731
        monkeypatch.setattr(film, "_encode", lambda path, frames, fps: encode(path, watched(frames), fps))
        assert ppo_eval("run", "--video", "films").status == 0
        assert len(most) == 41
        assert max(most) <= 4

    @pytest.mark.parametrize(
        ("fault", "status", "words"),
        [
            ("raise", 2, "rendering Painted-v0 raised OSError: no screen"),
            ("none", 2, "render() gave NoneType, expected uint8 (height, width, 3)"),
            ("late", 1, "filming Painted-v0 raised OSError: the lamp broke"),
            ("size", 1, "render() gave (3, 3, 3) after (31, 41, 3)"),
        ],
    )
    def test_what_can_not_be_filmed(self, trained, ppo_eval, fault, status, words):
        trained("env.id=Painted-v0")
        outcome = ppo_eval("run", "--video", "films", "--env-kwargs", f"fault={fault}")
        assert refused(outcome, status, "--video", words)
        assert not Path("films").exists() or not any(Path("films").iterdir())

    def test_what_ffmpeg_refuses_is_its_words(self, trained, ppo_eval, monkeypatch):
        trained("env.id=Painted-v0")
        monkeypatch.setattr("ppo_cli.runs.film.FRAMES_PER_SECOND", 30)
        monkeypatch.setitem(Painted.metadata, "render_fps", -1)
        assert refused(ppo_eval("run", "--video", "films"), 1, "filming Painted-v0", "ffmpeg", "-1")

    def test_an_environment_without_pictures(self, ppo_eval, shapes):
        assert refused(ppo_eval("run", "--video", "films"), 2, "Shapes-v0 has no render_mode rgb_array")
        assert not Path("films").exists()

    def test_a_folder_that_can_not_be_made_is_said_before_the_evaluation(
        self, trained, ppo_eval, monkeypatch
    ):
        trained("env.id=Painted-v0")
        monkeypatch.setattr("ppo_cli.runs.evaluation.evaluate", None)
        assert refused(ppo_eval("run", "--video", "run/config.yaml/films"), 1, "run/config.yaml/films")

    def test_a_film_that_can_not_be_written(self, ppo_eval, cartpole):
        Path("file").touch()
        assert refused(ppo_eval("run", "--video", "file"), 2, "--video file: expected a folder")


class Counted(np.ndarray):
    """An array whose end of life shows."""

    @classmethod
    def of(cls, array, alive):
        counted = array.view(cls)
        alive.append(weakref.ref(counted))
        return counted
