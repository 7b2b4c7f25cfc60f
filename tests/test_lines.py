"""What commands say of themselves: versions, help that fits, and the lines of a run."""

import io
import math
import os
import pty
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
from gymnasium import spaces
from omegaconf import OmegaConf
from rich.console import Console

import ppo_cli
from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.config.comments import knob_sections
from ppo_cli.config.convert import from_stored, save_yaml
from ppo_cli.config.presets import successor_with_preset
from ppo_cli.config.schema import KNOBS, conf_dir
from ppo_cli.envs.make import env_fn
from ppo_cli.episodes import Evaluation
from ppo_cli.hooks import RunState, telling_hooks
from ppo_cli.runs.evaluation import EvaluationPlan, evaluate
from ppo_cli.runs.log import TAGS
from ppo_cli.runs.messages import budget_words, network_words, next_lines, pack, training_words
from ppo_cli.runs.policy import load_policy
from ppo_cli.runs.progress import Progress
from ppo_cli.terminal import LiveLine, NotebookLine, is_live, wrapped_error
from ppo_cli.text import mean_and_deviation
from ppo_cli.versions import versions

TINY = ("total_timesteps=300", "n_envs=2", "n_steps=50", "n_epochs=1", "eval.episodes=2", "compile=false")
BOX, DISCRETE = spaces.Box(-1, 1, (4,)), spaces.Discrete(2)
IMAGE = spaces.Box(0, 255, (64, 64, 3), "uint8")


def as_module(*arguments, **environment):
    """`python -m ppo_cli ARGUMENTS`, finished."""
    return subprocess.run(
        [sys.executable, "-m", "ppo_cli", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def test_versions_of_what_is_not_installed_are_missing_and_end_nothing(monkeypatch):
    def found(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr("ppo_cli.versions.version", found)  # as in a checkout that is on the path alone
    assert versions(["scipy"])[:2] == [f"ppo-cli {ppo_cli.__version__}", "scipy missing"]


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_our_own(ppo_train, option):
    outcome = ppo_train("env=CartPole-v1", option)
    assert (outcome.status, outcome.err) == (0, "")
    assert re.fullmatch(r"ppo-cli \S+ \(torch \S+, gymnasium \S+, Python \S+\)\n", outcome.out)


@pytest.mark.parametrize("command", [[], ["train"], ["eval"], ["export"], ["report"]])
def test_every_command_of_the_module_has_the_version_without_pytorch(command):
    program = (
        f"import sys, runpy; sys.argv = ['', *{command!r}, '--version']; sys.modules['torch'] = None\n"
        "runpy.run_module('ppo_cli', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ppo-cli ")


def test_the_module_alone_shows_its_commands():
    done = as_module()
    assert done.returncode == 0
    for command in ("train", "eval", "export", "report"):
        assert re.search(rf"^  {command} .*\(ppo-{command}\)$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["trian"], "python -m ppo_cli: unknown command 'trian'; did you mean 'train'?\n"),
        (["xyz"], "python -m ppo_cli: unknown command 'xyz'; expected one of train, eval, export, report\n"),
        (["train", "clip_rato=1"], "python -m ppo_cli train: unknown key 'clip_rato' in"),
        (["eval", "--nothing"], "python -m ppo_cli eval: the following arguments are required: RUN"),
    ],
)
def test_an_error_of_the_module_names_the_program_as_typed(line, said):
    done = as_module(*line)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(said)


def too_long(text, columns):
    """Lines that are longer, but for those of one word."""
    return [line for line in text.splitlines() if len(line) > columns and " " in line.strip()]


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
@pytest.mark.parametrize("typed", [(), ("env=ALE/Pong-v5",), ("env=LunarLander-v3", "clip_ratio=0.15")])
def test_help_fits_the_terminal_and_breaks_no_word(ppo_train, monkeypatch, columns, typed):
    monkeypatch.setenv("COLUMNS", "1000")
    words = set(ppo_train("--help", *typed).out.split())
    monkeypatch.setenv("COLUMNS", str(columns))
    page = ppo_train("--help", *typed).out
    assert too_long(page, columns) == []
    assert set(page.split()) == words


def test_help_in_a_pipe_has_80_columns(ppo_train, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    page = ppo_train("--help").out
    assert 70 < max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize("command", ["eval", "export", "report"])
@pytest.mark.parametrize("columns", [60, 80])
def test_help_of_the_other_commands_fits_too(command, columns):
    page = as_module(command, "--help", COLUMNS=str(columns)).stdout
    assert page.startswith(f"usage: python -m ppo_cli {command} {'DIR' if command == 'report' else 'RUN'}")
    assert too_long(page, columns) == []


def values_shown(page):
    """Value of each knob on a page of help, and whether it is marked."""
    found = re.findall(r"^([* ]) ([\w.]+)=(\S*)", page[page.index("\nknobs, with") :], re.MULTILINE)
    return {key: (value, mark == "*") for mark, key, value in found}


def test_help_says_once_what_holds_of_every_annealed_knob(ppo_train):
    page = " ".join(ppo_train("--help").out.split())
    assert page.count("share of the run over which the value first rises from 0") == 1
    assert "anneal.gamma.final=null anneal.gamma.shape=linear anneal.gamma.warmup=0" in page


def test_help_shows_plain_defaults_where_no_environment_is_typed(ppo_train):
    page = ppo_train("--help").out
    assert "knobs, with their plain defaults; `ppo-train env=ID --help` shows a preset's:" in page
    shown = values_shown(page)
    assert set(shown) == set(KNOBS)
    assert not any(marked for _, marked in shown.values())
    assert shown["n_steps"] == ("2048", False)  # CartPole-v1's preset has 32


def test_help_marks_what_a_preset_changes_and_says_whose_the_values_are(ppo_train):
    page = ppo_train("env=HalfCheetah-v5", "gamma=0.5", "--help").out
    assert "the values of preset conf/env/HalfCheetah-v5.yaml and gamma=0.5" in " ".join(page.split())
    shown = values_shown(page)
    assert shown["batch_size"] == ("256", True)
    assert shown["gamma"] == ("0.5", True)
    assert shown["network.shared"] == ("false", True)
    assert shown["n_envs"] == ("1", False)


def test_help_has_the_knobs_in_the_groups_of_the_config_file(ppo_train):
    page = ppo_train("--help").out.splitlines()
    for title in ("The environment", "The update", "The network", "Evaluation", "Checkpoints"):
        assert page[page.index(title) - 1] == ""


def test_the_default_network_is_what_the_config_file_says(ppo_train):
    printed = OmegaConf.create(ppo_train("preset=none", "env=CartPole-v1", "--cfg", "job", "--resolve").out)
    assert from_stored(OmegaConf.to_container(printed)) == from_stored({"env": {"id": "CartPole-v1"}})


@pytest.mark.parametrize(
    ("typed", "preset"),
    [
        ("HalfCheetah-v3", "HalfCheetah-v5"),
        ("Hopper-v2", "Hopper-v5"),
        ("Walker2d-v3", "Walker2d-v5"),
        ("Ant-v3", "Ant-v5"),
        ("BipedalWalker-v2", "BipedalWalker-v3"),
        ("CarRacing-v2", "CarRacing-v3"),
    ],
)
def test_a_retired_id_has_the_preset_of_its_successor(ppo_train, typed, preset):
    retired, successor = (
        OmegaConf.create(ppo_train(f"env={name}", "--cfg", "job").out) for name in (typed, preset)
    )
    assert retired.env.pop("id") == typed
    assert successor.env.pop("id") == preset
    assert retired == successor


@pytest.mark.parametrize("typed", ["CartPole-v0", "LunarLander-v2", "Nope-v1", "HalfCheetah-v99", "../x-v1"])
def test_an_id_that_runs_or_has_a_preset_or_is_none_keeps_what_it_has(typed):
    assert successor_with_preset(typed, [conf_dir() / "env"]) is None


def test_an_id_without_a_version_has_the_preset_of_the_newest(ppo_train):
    assert successor_with_preset("LunarLander", [conf_dir() / "env"]) == "LunarLander-v3"
    assert successor_with_preset("FrozenLake", [conf_dir() / "env"]) is None
    outcome = ppo_train("env=Pendulum", *TINY)
    assert outcome.out.startswith("Pendulum-v1 · preset conf/env/Pendulum-v1.yaml\n")
    assert "Pendulum names no version; running the newest, Pendulum-v1\n" in outcome.out


def test_no_preset_wins_for_a_retired_id(ppo_train):
    assert OmegaConf.create(ppo_train("env=Ant-v3", "preset=none", "--cfg", "job").out).n_steps == 2048


def test_a_preset_of_ones_own_is_found_for_a_retired_id_and_forgotten_without_its_folder(ppo_train, tmp_path):
    (tmp_path / "mine" / "env").mkdir(parents=True)
    (tmp_path / "mine" / "env" / "FrozenLake-v1.yaml").write_text("# @package _global_\nn_envs: 3\n")
    outcome = ppo_train("--config-dir", "mine", "env=FrozenLake-v0", *TINY)
    assert outcome.out.startswith("FrozenLake-v1 · preset mine/env/FrozenLake-v1.yaml\n")
    assert ppo_train("env=FrozenLake-v0", *TINY).out.startswith("FrozenLake-v1 · no preset\n")


@pytest.mark.slow
def test_a_sweep_over_retired_ids_trains_with_their_successors_presets(ppo_train, tmp_path):
    tiny = [o for o in TINY if not o.startswith("n_envs")]
    outcome = ppo_train("-m", "env=Acrobot-v0,Pendulum-v0", *tiny)
    assert outcome.status == 0, outcome.err
    assert "Acrobot-v0 is retired in Gymnasium; running its successor Acrobot-v1" in outcome.out
    for name in ("Acrobot", "Pendulum"):
        (folder,) = tmp_path.glob(f"outputs/sweeps/*/env={name}-v0")
        first = (folder / "train.log").read_text().splitlines()[0]
        assert first == f"{name}-v1 · preset conf/env/{name}-v1.yaml"
        config = OmegaConf.load(folder / "config.yaml")
        preset = OmegaConf.load(conf_dir() / "env" / f"{name}-v1.yaml")
        assert (config.env.id, config.n_envs) == (f"{name}-v1", preset.n_envs)


def test_a_run_says_what_it_is_how_it_goes_and_what_to_type_next(ppo_train, tmp_path):
    outcome = ppo_train("env=CartPole-v1", *TINY, "eval.every=2", "total_timesteps=350", "hydra.run.dir=it's")
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[:3] == [
        "CartPole-v1 · preset conf/env/CartPole-v1.yaml",
        f"actor and critic 64-64 tanh each · {lines[1].split(' · ')[1]} · cpu, 1 thread",
        "400 steps (asked: 350; whole iterations of 2 × 50)",
    ]
    evaluations = [line for line in lines if line.startswith("eval at")]
    form = r"eval at (200|400) steps: return [\d.]+ ± [\d.]+ over 2 episodes( · best so far)?"
    assert [re.fullmatch(form, line)[1] for line in evaluations] == ["200", "400"]
    assert evaluations[0].endswith(" · best so far")
    assert re.match(r"return [\d.]+ ± [\d.]+ over 2 deterministic episodes after 400 steps", lines[-3])
    assert lines[-3].endswith(" · it's")
    assert shlex.split(lines[-2]) == ["next:", "tensorboard", "--logdir", "it's"]
    assert shlex.split(lines[-1]) == ["ppo-eval", "it's", "--video", "films"]
    assert "next:" not in (tmp_path / "it's" / "train.log").read_text()


@pytest.mark.slow
def test_what_to_type_next_is_said_of_a_run_that_goes_on_too_and_of_no_job(ppo_train):
    ppo_train("env=CartPole-v1", *TINY, "hydra.run.dir=run")
    assert (
        ppo_train("resume=run", "total_timesteps=400").out.splitlines()[-1].startswith("      ppo-eval 'run'")
    )
    assert "ppo-eval" not in ppo_train("-m", "env=CartPole-v1", *TINY, "seed=1,2").out


def lines_of(folder, env_id="CartPole-v1"):
    """The lines about what to type next, of a run in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_yaml(from_stored({"env": {"id": env_id}}), folder / "config.yaml")
    return next_lines(folder)


def test_next_lines_name_the_folder_of_all_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--logdir outputs\n" in lines_of(Path("outputs/CartPole-v1/x"))
    assert f"--logdir '{tmp_path}'\n" in lines_of(tmp_path)


def test_next_lines_name_a_film_where_one_can_be_made(tmp_path):
    assert lines_of(tmp_path).endswith(f" '{tmp_path}' --video films")
    assert lines_of(tmp_path, "vector_envs:Walks").endswith(f"ppo-eval '{tmp_path}'")


def test_next_lines_can_be_pasted_where_no_venv_is_active(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    programs = Path(sys.executable).parent
    monkeypatch.chdir(tmp_path)
    assert f" {programs}/tensorboard " in lines_of(tmp_path)
    assert f" {programs}/ppo-eval " in lines_of(tmp_path)
    monkeypatch.chdir(programs.parent)
    assert " bin/ppo-eval " in lines_of(tmp_path)


@pytest.mark.parametrize(
    ("asked", "n_envs", "n_steps", "said"),
    [
        (20_000, 16, 1024, "32,768 steps (asked: 20,000; whole iterations of 16 × 1,024)"),
        (32_768, 16, 1024, "32,768 steps (iterations of 16 × 1,024)"),
        (1, 1, 2048, "2,048 steps (asked: 1; whole iterations of 1 × 2,048)"),
    ],
)
def test_the_budget_is_what_will_be_trained(asked, n_envs, n_steps, said):
    assert budget_words(asked, n_envs, n_steps) == said


def test_how_far_a_run_is_is_a_part_of_what_will_be_trained(ppo_train):
    outcome = ppo_train("env=CartPole-v1", *TINY, "total_timesteps=110")  # two iterations of 100 steps
    assert re.findall(r"^ *(\d+)% · (\d+) steps", outcome.out, re.MULTILINE) == [
        ("50", "100"),
        ("100", "200"),
    ]


@pytest.mark.parametrize(("begun", "left"), [(0, "0:09"), (900, "1:30")])
def test_what_is_left_follows_from_what_was_done_since_a_run_went_on(
    tmp_path, caplog, monkeypatch, begun, left
):
    now = iter([0.0, 100.0])  # at step 1,000 after 100 s, or after 100 s for the last 100 of them
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    caplog.set_level("INFO")
    agent = SimpleNamespace(compiled=False)
    progress = Progress(1090, live=False)
    run = RunState(tmp_path, {}, agent, None, 1090, progress, steps=begun)
    with telling_hooks(run):
        run.steps = 1000
        progress.after_iteration(run, dict.fromkeys(TAGS, 0.9685))
    assert [record.getMessage() for record in caplog.records] == [
        f" 92% · 1,000 steps · 1 steps/s · return 0.969 · {left} left"
    ]


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (500.0, 0.0, "500.0 ± 0.0"),
        (-2335.71, 94.2, "-2,335.7 ± 94.2"),
        (0.96849, 0.0061, "0.968 ± 0.006"),
        (0.05, 0.218, "0.050 ± 0.218"),
        (-0.5, 3.25, "-0.50 ± 3.25"),
        (0.2, 30.0, "0.2 ± 30.0"),
    ],
)
def test_a_return_has_the_decimals_that_tell_it_from_others(mean, std, said):
    assert mean_and_deviation(mean, std) == said


@pytest.mark.parametrize("columns", ["60", "80", "100"])
def test_help_breaks_no_bound(ppo_train, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    page = ppo_train("--help").out
    assert re.search(r"integer from 0 to\s+2\^32 - 1", page)
    assert not re.search(r"[<>]=?$|\[[-\d]+,$", page, re.MULTILINE)


def test_an_error_is_broken_between_words_and_outside_of_commands(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    text = "ppo-train: SIGINT: `ppo-train resume='outputs/a run'` goes on\nppo-train " + "x" * 50
    assert wrapped_error(text) == text  # not on a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert wrapped_error(text).splitlines() == [
        "ppo-train: SIGINT:", "`ppo-train resume='outputs/a run'` goes", "on", "ppo-train " + "x" * 50
    ]  # fmt: skip
    monkeypatch.setenv("TERM", "dumb")
    assert wrapped_error(text) == text


@pytest.mark.parametrize(
    ("space", "options", "said"),
    [
        (BOX, {}, "actor and critic share 64-64 tanh"),
        (BOX, {"shared": False, "hidden_sizes": [8]}, "actor and critic 8 tanh each"),
        (BOX, {"hidden_sizes": []}, "actor and critic linear"),
        (BOX, {"memory": "gru", "memory_size": 16}, "gru 16, actor and critic share 64-64 tanh"),
        (IMAGE, {"hidden_sizes": [], "activation": "relu"}, "nature_cnn"),
    ],
)
def test_a_network_in_words(space, options, said):
    assert network_words(make_actor_critic(space, DISCRETE, **options)) == said


@pytest.mark.parametrize(
    ("returns", "trained", "is_said"),
    [
        ([240.0, 241.0], 180.0, True),
        ([240.0, 241.0], 230.0, False),  # less than a fifth
        ([100.0, 400.0], 180.0, False),  # within the deviation
        ([-100.0, -101.0], -300.0, True),
        ([240.0, 241.0], math.nan, False),
        ([0.0, 0.0], 0.0, False),
    ],
)
def test_why_the_training_returned_something_else_is_said_where_it_is_much(returns, trained, is_said):
    said = training_words(Evaluation(returns, [1, 1]), trained)
    assert bool(said) == is_said
    if said:
        assert said == f" (training's last: {trained:.1f}, whose policy samples its actions)"


def test_pieces_stay_whole():
    assert pack(["aaa", "bbb", "ccc"], 9) == ["aaa · bbb", "  ccc"]
    assert pack(["a" * 20], 9) == ["a" * 20]


def test_an_evaluation_that_is_watched_gives_the_same_bits(ppo_train, tmp_path):
    ppo_train("env=CartPole-v1", *TINY, "hydra.run.dir=run")
    policy = load_policy(tmp_path / "run" / "checkpoints" / "last.pt").batch
    seen = []
    plan = EvaluationPlan(env_fn("CartPole-v1"), 20, 3, deterministic=False)
    watched = evaluate(policy, plan, progress=seen.append)
    assert watched == evaluate(policy, plan)
    assert seen == sorted(set(seen))
    assert seen[-1] == 20


def drawn(columns):
    """A console of that width, and what is drawn on it."""
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=columns, color_system=None), file


def test_the_live_line_is_whole_in_60_columns():
    console, file = drawn(60)
    line = LiveLine(console, 10, "1,015,808 steps · 12,345/s · return 1234.5")
    with line.counting("evaluating 100 episodes", 100) as count:
        count(50)
    line.stop()
    assert "1,015,808 steps · 12,345/s · return 1234.5 " in file.getvalue()


def test_a_notebooks_line_says_the_time_that_is_left(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("ppo_cli.terminal.time", SimpleNamespace(monotonic=lambda: clock.now))
    line = NotebookLine(1_000_000, "training")

    def after(seconds, act):
        clock.now += seconds
        act()
        return line._shown()["text/plain"]

    assert after(5, lambda: line.update("training", 900_000)) == "training · 90%"  # a run that goes on
    assert after(10, lambda: line.update("training", 910_000)).endswith("91% · 1:30 left")
    with line.counting("evaluating", 100) as count:
        assert after(2, lambda: count(2)).endswith("evaluating · 2% · 1:38 left")
    assert after(0, lambda: None).endswith("training · 91% · 1:30 left")


@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False)])
def test_a_dumb_terminal_is_not_live(monkeypatch, term, live):
    monkeypatch.setenv("TERM", term)
    assert is_live(drawn(80)[0]) is live
    assert not is_live(Console(file=io.StringIO()))


def read(terminal):
    """What was written to it next; nothing when the other end is closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def on_a_terminal(folder, term):
    """What a tiny run writes to a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ppo_cli", "train", "env=CartPole-v1", *TINY, "eval.every=2"]
    with subprocess.Popen(
        [*command, "hydra.run.dir=run"], cwd=folder, stdout=theirs, stderr=subprocess.STDOUT,
        env={**os.environ, "TERM": term, "COLUMNS": "80"},
    ) as process:  # fmt: skip
        os.close(theirs)
        written = b"".join(iter(lambda: read(ours), b""))
    os.close(ours)
    assert process.returncode == 0, written
    return written.decode().replace("\r\n", "\n")


@pytest.mark.slow
def test_on_a_terminal_evaluations_stand_above_the_bar_and_a_dumb_one_gets_plain_lines(tmp_path):
    (tmp_path / "dumb").mkdir()
    live, dumb = on_a_terminal(tmp_path, "xterm-256color"), on_a_terminal(tmp_path / "dumb", "dumb")
    assert "evaluating 2 episodes" in live
    for text in (re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", live), dumb):
        assert re.search(r"^eval at 200 steps: return .* over 2 episodes", text, re.MULTILINE)
        assert re.search(r"^return .* over 2 deterministic episodes", text, re.MULTILINE)
    assert "\x1b" not in dumb
    assert "100% · 300 steps" in dumb


def test_every_knob_is_in_one_group():
    listed = [key for _, keys in knob_sections() for key in keys]
    assert sorted(listed) == sorted(KNOBS)
