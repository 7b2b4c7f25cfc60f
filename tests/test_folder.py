"""A run's folder, asked of its one owner, and what its checkpoints hold."""

import json
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

import ppo_cli
from ppo_cli.errors import ConfigError
from ppo_cli.files import written_aside
from ppo_cli.runs.checkpoint import CheckpointError, load_checkpoint, load_run, save_checkpoint, save_run
from ppo_cli.runs.folder import RunFolder, run_of
from ppo_cli.text import flat, headline, nearest

SMALL = ("env=CartPole-v1", "n_envs=2", "n_steps=32", "batch_size=32", "eval.episodes=1", "compile=false")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two iterations."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return ppo_cli.train(*SMALL, "total_timesteps=128", folder=folder, verbose=False)


@pytest.fixture
def run(trained, tmp_path):
    """The folder of a copy of it."""
    shutil.copytree(trained.folder, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_run_says_what_it_was_and_how_it_ended(run):
    assert run.is_run
    assert run.config.n_steps == 32
    assert run.evaluated_at == run.newest().saved.steps == 128
    assert run.evaluation["mean"] == json.loads(run.eval_json.read_text())["mean"]
    assert run.failure == ""
    assert run.is_finished
    assert run_of(run.checkpoint("last")) == run


def test_a_run_that_is_not_evaluated_or_has_a_larger_budget_is_not_finished(run):
    config, saved = run.config, run.newest().saved
    larger = replace(config, total_timesteps=256)
    assert run.has_reached(saved, config)
    assert not run.has_reached(replace(saved, steps=64), config)
    assert not run.has_reached(saved, larger)
    assert run.has_reached(replace(saved, stopped="a hook said so"), larger)
    run.eval_json.unlink()
    assert not run.is_finished
    assert not run.has_reached(replace(saved, stopped="a hook said so"), larger)
    assert run.has_reached(saved, replace(config, eval=replace(config.eval, episodes=0)))


@pytest.mark.parametrize("text", ["[1]", "{", '{"steps": "x"}', '{"steps": 1e400}', "{}"])
def test_an_evaluation_that_is_damaged_is_of_no_policy(run, text):
    run.eval_json.write_text(text)
    assert run.evaluated_at is None
    assert not run.is_finished


def test_a_folder_without_a_run_is_told_as_it_was_typed(tmp_path):
    folder = RunFolder(tmp_path / "none")
    assert (folder.evaluation, folder.failure, folder.is_finished) == (None, "", False)
    with pytest.raises(ConfigError, match=r"^resume=.*none: no run there"):
        folder.check("resume=")
    assert run_of(tmp_path / "checkpoints" / "last.pt") is None


def test_a_checkpoint_is_found_by_its_name_or_its_steps(run):
    assert run.find_checkpoint() == run.checkpoints / "last.pt"
    assert run.find_checkpoint(128) == run.checkpoints / "128.pt"
    with pytest.raises(ConfigError, match=r"no checkpoint 7; it has .*128, .*last"):
        run.find_checkpoint(7)


def test_why_a_run_failed_does_not_say_how_to_go_on(tmp_path):
    folder = RunFolder(tmp_path)
    folder.failed_txt.write_text("no memory; `ppo-train resume='x'` goes on from the last checkpoint\n\nmore")
    assert folder.failure == "no memory"


def test_asking_a_folder_brings_no_pytorch(tmp_path):
    program = (
        "import sys; from pathlib import Path; from ppo_cli.runs.folder import RunFolder\n"
        f"folder = RunFolder(Path({str(tmp_path)!r}))\n"
        "print(folder.is_run, folder.evaluation, folder.evaluated_at, folder.failure, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "None", "None", "False"]


def test_a_checkpoint_is_read_by_its_fields_and_stays_as_it_was_read(run):
    saved = load_run(run.checkpoint())
    assert (saved.iteration, saved.steps, saved.hooks) == (2, 128, [])
    assert saved.config["n_steps"] == 32
    with pytest.raises(FrozenInstanceError):
        saved.steps = 3


MINE = {"name": "mine", "state": {"calls": 3}}


def test_a_field_that_has_its_default_is_not_in_the_file(run, tmp_path):
    saved = load_run(run.checkpoint())
    held = load_checkpoint(run.checkpoint())
    assert "hooks" not in held
    assert "observation_statistics" not in held
    assert "environments" in held  # None there says that they can't be brought back
    save_run(tmp_path / "again.pt", replace(saved, environments=None, hooks=[MINE]))
    again = load_run(tmp_path / "again.pt")
    assert again.environments is None
    assert again.hooks == [MINE]


def test_a_field_of_a_later_version_is_left_out_and_one_that_is_missing_is_named(run, tmp_path):
    held = load_checkpoint(run.checkpoint())
    save_checkpoint(tmp_path / "later.pt", {**held, "something_new": 1})
    assert load_run(tmp_path / "later.pt").steps == 128
    save_checkpoint(tmp_path / "less.pt", {name: value for name, value in held.items() if name != "log"})
    with pytest.raises(CheckpointError, match="it has no log"):
        load_run(tmp_path / "less.pt")


def test_hooks_that_are_no_list_are_refused(run, tmp_path):
    save_checkpoint(tmp_path / "odd.pt", {**load_checkpoint(run.checkpoint()), "hooks": {"mine": 1}})
    with pytest.raises(CheckpointError, match="its hooks is no list"):
        load_run(tmp_path / "odd.pt")


def test_what_is_written_aside_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def fail():
        with written_aside(path) as aside:
            aside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"
    with written_aside(path, ".mp4") as aside:
        assert aside.name == ".file.mp4"
        aside.write_text("after")
    assert path.read_text() == "after"


def test_an_error_is_one_line_and_an_empty_one_is_its_type():
    assert flat(ValueError("one\n  two")) == "one two"
    assert headline(ValueError("one\ntwo")) == "one"
    assert headline(MemoryError()) == "MemoryError"


def test_the_nearest_spelling_is_offered_where_one_is_near():
    assert nearest("clip_rato", {"clip_ratio": 1, "gamma": 2}) == "; did you mean 'clip_ratio'?"
    assert nearest("zzz", ["clip_ratio"]) == ""
