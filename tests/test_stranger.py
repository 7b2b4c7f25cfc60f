"""A stranger's package, outside the checkout: what docs/extending.md shows as `mine.py`, all in one run."""

import csv
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from run_hooks import INTERRUPTIBLE
from test_docs import ROOT, blocks

import ppo_cli
from ppo_cli.runs.checkpoint import load_checkpoint

PAGE = ROOT / "docs" / "extending.md"
TINY = ("env=CartPole-v1", "preset=none", "n_envs=2", "n_steps=32", "total_timesteps=256", "n_epochs=2",
        "batch_size=24", "eval.episodes=1", "vectorization=sync", "checkpoint.every=1")  # fmt: skip
UPDATE = ("optimizer=mine.Lion", "learning_rate=1e-4", "+optimizer_kwargs.betas=[0.8,0.95]",
          "extra_losses=[{name: mine.confidence, coef: 1e-3, final: 0, power: 4}, "
          "{name: mine.ratio_spread, coef: 0}]")  # fmt: skip
OBJECTIVE = ("objective=mine.soft_clip", "+objective_kwargs.width=0.5")
HOOK = "{name: mine.Patience, iterations: 2000}"
TIMES = ("charts/SPS", "time/collect", "time/update")  # of a run, no two of which are the same


def package():
    """The text of `mine.py`."""
    parts = [block for block in blocks(PAGE, "python") if block.startswith("# mine.py\n")]
    return "".join(part.removeprefix("# mine.py\n") for part in parts)


@pytest.fixture
def mine(tmp_path_factory, monkeypatch):
    """The folder of the package, in which this process and others find it."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "mine.py").write_text(package())
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield folder
    sys.modules.pop("mine", None)


def saved(folder):
    """What a run's last checkpoint holds of its agent and its hooks, and its log but for times."""
    found = load_checkpoint(folder / "checkpoints" / "last.pt")
    with (folder / "metrics.csv").open() as file:
        rows = [{tag: cell for tag, cell in row.items() if tag not in TIMES} for row in csv.DictReader(file)]
    return {**found["model"], **found["optimizer"]}, found["hooks"], rows


def assert_same(one, other):
    (tensors, *rest), (others, *rest_of_other) = saved(one), saved(other)
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    assert rest == rest_of_other


def command(program, *typed, cwd, kill_at=None):
    """Runs a command in a process of its own; kills it where a number of steps has been saved."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ppo_cli", program, *typed],
        cwd=cwd, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if kill_at is not None:
        while not (cwd / "cut" / "checkpoints" / "last.pt").exists() or steps(cwd / "cut") < kill_at:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        process.kill()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == (0 if kill_at is None else -signal.SIGKILL), said
    return said


def steps(folder):
    return load_checkpoint(folder / "checkpoints" / "last.pt")["steps"]


def test_it_is_under_sixty_lines_and_adds_one_of_each():
    lines = [line for line in package().splitlines() if line.strip()]
    assert len(lines) < 60
    for kind in ("class Patience(ppo_cli.Hook)", "class Lion", "def soft_clip(terms", "def confidence(terms",
                 "def ratio_spread(terms", 'scalars["mine/waited"]', "def state_dict"):  # fmt: skip
        assert any(kind in line for line in lines), kind


def test_its_run_is_logged_stopped_and_comes_to_the_same_bits(ppo_train, tmp_path, mine, interrupt):
    hooks = INTERRUPTIBLE.replace("[", f"[{HOOK}, ")
    typed = (*TINY, *UPDATE, *OBJECTIVE, hooks, "compile=false")
    assert ppo_train(*typed, "hydra.run.dir=whole").status == 0
    interrupt(2)
    assert ppo_train(*typed, "hydra.run.dir=cut").status == 128 + signal.SIGTERM
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert_same(tmp_path / "whole", tmp_path / "cut")
    metrics = ppo_cli.read("whole").metrics
    assert metrics["charts/confidence_coef"] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert (metrics["losses/confidence"] > 0).all() and (metrics["losses/ratio_spread"] > 0).all()
    assert (metrics["charts/ratio_spread_coef"] == 0).all()
    assert len(metrics["mine/waited"]) == 4
    assert any("waited" in str(state) for state in saved(tmp_path / "whole")[1])


def test_its_hook_stops_a_run(ppo_train, tmp_path, mine):
    typed = (*TINY, "compile=false", "learning_rate=1e-9", "total_timesteps=6400")
    outcome = ppo_train(*typed, "hooks=[{name: mine.Patience, iterations: 3}]", "hydra.run.dir=run")
    assert outcome.status == 0
    assert ppo_cli.read("run").metrics["mine/waited"][-1] == 3
    assert "no better for 3 iterations" in (tmp_path / "run" / "eval.json").read_text()


def test_every_line_from_python_on_the_page_runs(tmp_path, mine, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "env").mkdir(parents=True)
    presets = [block for block in blocks(PAGE, "yaml") if block.startswith("# @package _global_")]
    (tmp_path / "mine" / "env" / "FrozenLake-v1.yaml").write_text(presets[0])
    calls = [block for block in blocks(PAGE, "python") if block.startswith("ppo_cli.train(")]
    calls += re.findall(r"`(ppo_cli\.train\(.*?\))`", PAGE.read_text())
    assert len(calls) == 6
    import gymnasium
    import mine as module  # of the fixture

    runs = []

    class Tiny:
        @staticmethod
        def train(*typed, **knobs):
            tiny = {"total_timesteps": 64, "n_envs": 1, "n_steps": 32, "n_epochs": 1, "eval": {"episodes": 0}}
            own = {**tiny, "compile": False, "vectorization": "sync", "verbose": False}
            runs.append(ppo_cli.train(*typed, **{**own, **knobs}))

    for call in calls:
        exec(call, {"ppo_cli": Tiny, "mine": module, "gymnasium": gymnasium})
    assert runs[2].config.objective == "mine.soft_clip"
    assert runs[3].config.optimizer == "mine.Lion"
    assert runs[4].config.env.wrappers[0]["name"].endswith("ClipReward")
    assert runs[5].config.extra_losses == [{"name": "mine.confidence", "coef": 1e-3}]


@pytest.mark.slow
def test_compiled_it_is_killed_resumed_swept_reported_and_exported(tmp_path, mine):
    typed = (*TINY, *UPDATE, "compile=true", "eval.episodes=4", f"hooks=[{HOOK}]")
    own = (*typed, *OBJECTIVE, "total_timesteps=19200")
    said = command("train", *own, "hydra.run.dir=whole", cwd=tmp_path)
    assert "can't be compiled" not in said
    command("train", *own, "hydra.run.dir=cut", cwd=tmp_path, kill_at=1280)
    assert 1280 <= steps(tmp_path / "cut") < 19200
    said = command("train", "resume=cut", cwd=tmp_path)
    assert "importing mine, which cut/config.yaml names (objective=mine.soft_clip)" in said
    assert_same(tmp_path / "whole", tmp_path / "cut")

    sweep = ("objective=clip,mine.soft_clip", "seed=0,1", "hydra.sweep.dir=sweep")
    command("train", "-m", *typed, *sweep, cwd=tmp_path)
    said = command("report", "sweep", cwd=tmp_path)
    table = (tmp_path / "sweep" / "report" / "report.md").read_text()
    for group in ("objective=clip", "objective=mine.soft_clip"):
        assert group in table
    command("export", "whole", cwd=tmp_path)
    assert list((tmp_path / "whole").rglob("*.onnx"))
