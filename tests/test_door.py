"""The door of ppo-train: what begins or goes on, paths with letters of the shell's, any output's encoding."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from omegaconf import OmegaConf

from ppo_cli.config.quoting import hydra_quoted, shell_quoted, typed_path
from ppo_cli.config.schema import conf_dir

PROGRAM = "from ppo_cli.cli.train import main; main()"
TINY = ("env=CartPole-v1", "n_envs=2", "n_steps=32", "total_timesteps=128", "n_epochs=1", "eval.episodes=1",
        "vectorization=sync", "compile=false")  # fmt: skip


def weights(folder):
    """The trained weights of a run."""
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model"]


def same(first, second):
    """Whether two state dicts are the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the run of `run` is kept."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def run(ppo_train, kept, tmp_path):
    """A finished run's folder, ``run``."""
    if not kept.exists():
        assert ppo_train(*TINY, f"hydra.run.dir={kept}").status == 0
    shutil.copytree(kept, tmp_path / "run")
    return tmp_path / "run"


def state(folder):
    """Every file of a folder with the time at which it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("resume=run --help total_timesteps=1e6", " total_timesteps=1000000 "),
        ("resume=run -h", " n_steps=32 "),
        ("resume=run --cfg job total_timesteps=1e6", "total_timesteps: 1000000"),
        ("--cfg job resume=run --package eval", "episodes: 1"),
        ("resume=run --hydra-help", "Hydra (1"),
        ("--version resume=run", "ppo-cli "),
    ],
)
def test_an_option_beside_resume_does_what_it_says_and_trains_nothing(ppo_train, run, line, said):
    before = state(run)
    outcome = ppo_train(*line.split())
    assert (outcome.status, outcome.err) == (0, "")
    assert said in outcome.out
    assert state(run) == before


@pytest.mark.parametrize(
    "line",
    [
        "resume=run --cfg hydra",
        "resume=run --cfg job seed=5",
        "resume=run --resolve",
        "resume=run -m",
        "resume=run --info all",
        "resume=run --shell-completion",
        "resume=run --experimental-rerun x",
        "resume=run total_timesteps=${nothing}",
        "resume=run total_timesteps=[1]",
        "resume=run network.hidden_sizes=[64,[64]]",
    ],
)
def test_what_can_not_be_done_beside_resume_is_a_line(ppo_train, run, line):
    before = state(run)
    outcome = ppo_train(*line.split())
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert state(run) == before


def test_an_interpolation_behind_resume_is_resolved(ppo_train, run):
    outcome = ppo_train("resume=run", "total_timesteps=${eval.max_steps}", "--cfg", "job")
    assert OmegaConf.create(outcome.out).total_timesteps == 27_000


@pytest.mark.parametrize(
    "line", ["env=CartPole-v1 --cfg job seed=2", "--cfg job env=CartPole-v1 --config-dir . seed=2"]
)
def test_options_may_stand_between_overrides(ppo_train, line):
    outcome = ppo_train(*line.split())
    assert outcome.status == 0, outcome.err
    assert OmegaConf.create(outcome.out).seed == 2


@pytest.mark.parametrize("what", ["hydra", "all"])
def test_the_whole_config_can_be_shown(ppo_train, tmp_path, what):
    outcome = ppo_train("--cfg", what, "--resolve", "hydra.run.dir=mine")
    assert outcome.status == 0, outcome.err
    assert OmegaConf.create(outcome.out).hydra.run.dir == "mine"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("multirun", ["-m", "hydra.mode=MULTIRUN"])
def test_a_sweep_by_any_of_its_names(ppo_train, tmp_path, multirun):
    outcome = ppo_train(*TINY, multirun, "seed=1,2", "hydra.sweep.dir=sweep")
    assert outcome.status == 0, outcome.err
    assert len(list((tmp_path / "sweep").glob("seed=*/eval.json"))) == 2


def test_folders_that_an_experiment_names(ppo_train, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "x.yaml").write_text(
        "# @package _global_\nhydra: {run: {dir: 'a/${seed}'}, sweep: {dir: b}}\n"
    )
    own = ("--config-dir", "mine", "experiment=x", *TINY)
    assert ppo_train(*own, "seed=3").status == 0
    assert (tmp_path / "a" / "3" / "eval.json").is_file()
    assert ppo_train(*own, "-m", "seed=1,2").status == 0
    assert (tmp_path / "b" / "seed=1" / "eval.json").is_file()


@pytest.mark.parametrize(
    "name", ["it's", "a b", "~", "$HOME", 'a"b', "a\\'b", "ümlaut", "${x}", "a=b,c", "(d)"]
)
def test_a_quoted_word_is_read_as_it_is(name):
    assert shlex.split(shell_quoted(name)) == [name]
    assert OmegaConf.create({"x": parsed(hydra_quoted(name))}).x == name


def parsed(value):
    """What Hydra reads of a value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"x={value}").value()


def test_a_path_is_taken_with_quotes_and_with_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert typed_path("~/x") == tmp_path / "x"
    assert str(typed_path("'it\\'s'")) == "it's"
    assert str(typed_path("it's")) == "it's"
    assert str(typed_path("~nobody-of-that-name/x")) == "~nobody-of-that-name/x"


def test_a_run_in_a_folder_with_an_apostrophe(ppo_train, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ppo_train(*TINY, "hydra.run.dir=~/it's").status == 0
    again = ppo_train(*TINY, "hydra.run.dir=~/it's")
    assert again.status == 2
    (word,) = [word for word in shlex.split(again.err.partition("; ")[2]) if word.startswith("resume=")]
    outcome = ppo_train(word)
    assert outcome.status == 0, outcome.err
    assert "is finished" in outcome.out
    assert ppo_train(*TINY, "-m", "seed=1,2", "hydra.sweep.dir=s'w").status == 0
    assert (tmp_path / "s'w" / "seed=1" / "eval.json").is_file()


def test_one_line_begins_a_run_and_goes_on_with_it(ppo_train, tmp_path):
    line = (*TINY, "hydra.run.dir=fixed", "resume=auto")
    first = ppo_train(*line)
    assert first.status == 0, first.err
    again = ppo_train(*line)
    assert (again.status, again.err) == (0, "")
    assert "fixed is finished: 128" in again.out
    more = ppo_train(*line, "total_timesteps=256")
    assert "total_timesteps: 128 -> 256" in more.out
    assert json.loads((tmp_path / "fixed" / "eval.json").read_text())["steps"] == 256
    refused = ppo_train(*line, "seed=1")
    assert refused.status == 2
    assert "seed can't change on resuming: it was 0, given 1" in refused.err
    assert "auto" not in (tmp_path / "fixed" / ".hydra" / "overrides.yaml").read_text()


@pytest.mark.parametrize("left", [(), ("train.log", ".lock"), (".hydra/config.yaml", "train.log")])
def test_a_folder_in_which_a_run_hardly_began_is_taken(ppo_train, tmp_path, left):
    for name in left:
        (tmp_path / "fixed" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fixed" / name).touch()
    outcome = ppo_train(*TINY, "hydra.run.dir=fixed", "resume=auto")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "fixed" / "eval.json").is_file()


def test_one_line_begins_a_sweep_and_goes_on_with_it(ppo_train, tmp_path):
    line = (*TINY, "-m", "seed=1,2", "hydra.sweep.dir=fixed", "resume=auto")
    assert ppo_train(*line).status == 0
    before = weights(tmp_path / "fixed" / "seed=2")
    (tmp_path / "fixed" / "seed=2" / "eval.json").unlink()
    again = ppo_train(*line)
    assert again.status == 0, again.err
    assert "finished already: 1 of 2 jobs" in again.out
    assert same(weights(tmp_path / "fixed" / "seed=2"), before)
    other = ppo_train(*line, "n_epochs=2")
    assert (other.status, other.err.count("\n")) == (2, 1)
    assert "other jobs" in other.err


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5, 3.0, 4.0])
def test_a_requeued_command_that_is_killed_ends_with_the_same_weights(ppo_train, tmp_path, seconds):
    line = (*TINY, "total_timesteps=6400", "n_steps=16", "checkpoint.every=5")
    assert ppo_train(*line, "hydra.run.dir=whole").status == 0
    command = [sys.executable, "-c", PROGRAM, *line, "hydra.run.dir=cut", "resume=auto"]
    for attempt in range(30):
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(seconds + 0.3 * attempt)
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
    assert process.returncode == 0
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


ENCODINGS = [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "cp1252"},
             {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}]  # fmt: skip


@pytest.mark.parametrize("settings", ENCODINGS, ids=str)
def test_any_output_shows_the_page_of_help(tmp_path, settings):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--help"], cwd=tmp_path, env={**os.environ, **settings},
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr == b""
    assert b"clip range eps of the probability ratio" in done.stdout


def test_errors_are_told_in_the_letters_that_the_output_has(tmp_path):
    program = "from ppo_cli.cli.evaluate import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "é±", "…"], cwd=tmp_path, capture_output=True,
        env={**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.stderr.splitlines() == [
        b"ppo-eval: \\xe9+-: no such folder or file", b"ppo-eval: ...: no such folder or file"
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("settings", ENCODINGS, ids=str)
def test_no_line_is_lost_where_the_output_is_not_utf8(tmp_path, settings):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *TINY, "-m", "seed=1,2", "hydra.sweep.dir=s"], cwd=tmp_path,
        env={**os.environ, **settings}, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr == b""
    assert b"finished: 2 of 2 jobs" in done.stdout
    for seed in (1, 2):
        assert "±" in (tmp_path / "s" / f"seed={seed}" / "train.log").read_text(encoding="utf-8")


def test_every_text_file_is_opened_with_its_encoding():
    import ast
    from pathlib import Path

    import ppo_cli

    names = {"open", "read_text", "write_text", "FileHandler"}
    found = []
    for module in Path(ppo_cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, (ast.Attribute, ast.Name))):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            written = ast.unparse(node)
            binary = any(f"'{mode}'" in written for mode in ("rb", "wb", "xb", "ab", "r+b"))
            if name in names and "encoding" not in written and not binary and "os.open(" not in written:
                found.append(f"{module.name}:{node.lineno}: {written}")
    assert [line for line in found if ": read_text(" not in line] == []
    assert "encoding: utf-8" in (conf_dir() / "hydra" / "job_logging" / "utf8.yaml").read_text()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xef\xbb\xbf# @package _global_\nseed: 3\n", "byte order mark"),
        (
            b"# @package _global_\nnetwork.activation: relu\n",
            "write network: and below it",
        ),
        (b"# @package _global_\ndefaults:\n  - mine\n", "in a circle"),
    ],
    ids=["mark", "dots", "circle"],
)
def test_what_a_config_file_of_ones_own_may_not_have(ppo_train, tmp_path, data, said):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_bytes(data)
    refused = ppo_train("env=CartPole-v1", "--config-dir", "own", "experiment=mine")
    assert refused.status == 2
    assert said in refused.err
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize("typed", ["resume=", "sweep.resume=", "--config-name=", "--config-dir="])
def test_an_empty_variable_is_said(ppo_train, typed):
    refused = ppo_train("env=CartPole-v1", typed)
    assert refused.status == 2
    assert "an empty variable?" in refused.err
