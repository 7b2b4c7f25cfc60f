"""Stopped anywhere and resumed, a run ends with the same bits as one that was never stopped."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from run_ends import assert_same_end, logged_steps, rows
from run_hooks import INTERRUPTIBLE

from ppo_cli.runs.checkpoint import load_checkpoint, numbered, save_checkpoint
from ppo_cli.runs.folder import RunFolder

SMALL = ("n_envs=2", "n_steps=128", "total_timesteps=1536", "n_epochs=2", "eval.episodes=2")  # 6 iterations
EVERYTHING = (
    *SMALL,
    INTERRUPTIBLE,
    "anneal.learning_rate.final=0",
    "anneal.clip_ratio.final=0.05",
    "normalize.observations=true",
    "normalize.rewards=true",
)
TASKS = {
    "CartPole": ("env=CartPole-v1",),
    "LunarLander": ("env=LunarLander-v3",),
    "gSDE": ("env=Pendulum-v1", "sde_sample_freq=5"),
    "seed-kind": ("env.id=broken_envs:OwnGenerator-v0",),
    "MiniGrid": ("env=MiniGrid-DoorKey-5x5-v0",),
    "anew-kind": ("env.id=broken_envs:Drifting-v0", "checkpoint.exact=true"),
    "BipedalWalker": ("env=BipedalWalker-v3", "preset=none", "checkpoint.exact=true"),
    "MuJoCo": ("env=HalfCheetah-v5",),
    "ALE-RAM": ("env.id=ALE/Pong-v5", "+env.kwargs.obs_type=ram"),
    "ALE": (
        "env=ALE/Breakout-v5", "network.image_encoder=flatten", "normalize.observations=false", "n_steps=32",
        "total_timesteps=384",
    ),
}  # fmt: skip
NEEDS = {"MuJoCo": "mujoco", "ALE-RAM": "ale_py", "ALE": "ale_py", "MiniGrid": "minigrid"}


SLOW_TO_START = {"ALE-RAM": ("sync",), "ALE": ("async",)}  # tests/test_atari.py compares both
# Those that take longest; others show the same kinds of snapshots and backends in the fast suite.
SLOW = {
    ("ALE-RAM", "sync"),
    ("ALE", "async"),
    *((task, "async") for task in ("BipedalWalker", "MiniGrid", "MuJoCo", "LunarLander", "seed-kind")),
    ("MiniGrid", "sync"),
    ("anew-kind", "sync"),
    ("BipedalWalker", "sync"),  # of the same kind as anew-kind
}
PAIRS = [
    pytest.param(task, each, marks=[pytest.mark.slow] if (task, each) in SLOW else [])
    for task in TASKS
    for each in SLOW_TO_START.get(task, ("sync", "async"))
]


@pytest.mark.parametrize(("task", "vectorization"), PAIRS)
def test_interrupted_and_resumed(ppo_train, tmp_path, monkeypatch, interrupt, task, vectorization):
    if task in NEEDS:
        pytest.importorskip(NEEDS[task])
    monkeypatch.setattr("ppo_cli.envs.snapshot.RESEED_STEPS", 300)  # within the run
    arguments = (*EVERYTHING, *TASKS[task], f"vectorization={vectorization}")
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    interrupt(3)
    stopped = ppo_train(*arguments, "hydra.run.dir=cut")
    assert stopped.status == 128 + signal.SIGTERM
    advice = "`ppo-train resume='cut'` goes on from the last checkpoint"
    assert stopped.err.splitlines()[-1] == f"ppo-train: SIGTERM: {advice}"  # MuJoCo warns before it
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    "extra",
    [("compile=true",), pytest.param(("network.shared=false",), marks=pytest.mark.slow)],
    ids=["compiled", "separate"],
)
def test_interrupted_twice_in_other_settings(ppo_train, tmp_path, interrupt, extra):
    arguments = ("env=CartPole-v1", *EVERYTHING, *extra)
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    interrupt(2)
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    interrupt(4, signal.SIGINT)
    assert ppo_train("resume=cut").status == 130
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


def test_an_older_checkpoint_is_used_where_the_newest_is_damaged(ppo_train, tmp_path, interrupt):
    arguments = ("env=CartPole-v1", *EVERYTHING, "checkpoint.every=1", "checkpoint.keep=3")
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    interrupt(4)
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    interrupt(None)
    newest = numbered(tmp_path / "cut" / "checkpoints")[0]
    assert [int(path.stem) for path in numbered(newest.parent)] == [1024, 768, 512]
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = ppo_train("resume=cut")
    assert resumed.status == 0
    assert f"{newest.name} is" in resumed.out
    assert "going on from step 768" in resumed.out
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


def test_a_run_without_a_checkpoint_starts_from_its_beginning(ppo_train, tmp_path):
    arguments = ("env=CartPole-v1", *EVERYTHING)
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints")
    (tmp_path / "cut" / "eval.json").unlink()
    metrics = tmp_path / "cut" / "metrics.csv"
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])  # as a kill leaves it at the start
    assert ppo_train("resume=cut").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("lost", [("checkpoints",), ("checkpoints", "eval.json")])
def test_what_a_run_has_left_is_kept_where_its_checkpoints_are_gone(ppo_train, tmp_path, lost):
    run = tmp_path / "run"
    typed = ("env=CartPole-v1", *SMALL, "hydra.run.dir=run")
    assert ppo_train(*typed).status == 0
    for name in lost:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".log"}
    for again in (("resume=run", "total_timesteps=9000"), (*typed, "gamma=0.5"), (*typed, "resume=auto")):
        refused = ppo_train(*again)
        assert refused.status != 0
        assert refused.err.count("\n") == 1
    assert "its checkpoints are gone" in ppo_train("resume=run").err
    assert {path: path.read_bytes() for path in before} == before


def test_a_users_own_config_is_not_replaced(ppo_train, tmp_path):
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    refused = ppo_train("env=CartPole-v1", *SMALL, "hydra.run.dir=.")
    assert (refused.status, "name another folder" in refused.err) == (2, True)
    assert (tmp_path / "config.yaml").read_text() == "mine: 1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_run_in_the_current_folder_goes_on(ppo_train, tmp_path, monkeypatch):
    assert ppo_train("env=CartPole-v1", *SMALL, "hydra.run.dir=run").status == 0
    monkeypatch.chdir(tmp_path / "run")
    again = ppo_train("resume=.")
    assert (again.status, again.err) == (0, "")
    assert "ppo-eval" in again.out


def test_the_best_checkpoint_stays_the_best_where_a_finished_run_goes_on(ppo_train, tmp_path):
    learned = ("total_timesteps=8192", "n_steps=512", "learning_rate=1e-3", "preset=none", "eval.episodes=2")
    assert ppo_train("env=CartPole-v1", *learned, "hydra.run.dir=run").status == 0
    best = load_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")
    assert ppo_train("resume=run", "total_timesteps=9216", "learning_rate=1").status == 0  # which unlearns
    after = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert after["mean"] < best["best"]
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "best.pt")["steps"] == best["steps"]


def test_a_run_that_begins_again_has_what_its_hooks_kept(ppo_train, tmp_path):
    assert (
        ppo_train("env=CartPole-v1", *SMALL, "hooks=[{name: run_hooks.Named}]", "hydra.run.dir=run").status
        == 0
    )
    checkpoints = tmp_path / "run" / "checkpoints"
    (before,) = load_checkpoint(checkpoints / "last.pt")["hooks"]
    for path in checkpoints.iterdir():  # as a kill leaves it before the first ones
        if path.name != "0.pt":
            path.unlink()
    assert ppo_train("resume=run").status == 0
    (after,) = load_checkpoint(checkpoints / "last.pt")["hooks"]
    assert after == before


def test_an_option_can_be_taken_out_on_resuming(ppo_train):
    own = ("objective=kl_penalty", "+objective_kwargs.beta=0.5")
    assert ppo_train("env=CartPole-v1", *SMALL, *own, "hydra.run.dir=run").status == 0
    for absent in ("~objective_kwargs.gamma", "~objective_kwargs.beta.x", "~clip_ratio"):
        refused = ppo_train("resume=run", absent)
        assert (refused.status, refused.err.count("\n")) == (2, 1)
    done = ppo_train("resume=run", "~objective_kwargs.beta", "total_timesteps=1792")
    assert done.status == 0, done.err
    assert RunFolder(Path("run")).config.objective_kwargs == {}


def test_a_best_checkpoint_that_is_lost_is_written_again(ppo_train, tmp_path):
    typed = ("env=CartPole-v1", *SMALL, "eval.every=2")
    assert ppo_train(*typed, "hydra.run.dir=run").status == 0
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    best.write_bytes(best.read_bytes()[:1000])
    assert ppo_train("resume=run", "total_timesteps=1792", "learning_rate=1").status == 0
    assert load_checkpoint(best)["steps"] == 1792


def test_a_finished_run_says_so_and_is_extended_by_a_larger_budget(ppo_train, tmp_path):
    assert ppo_train("env=CartPole-v1", *EVERYTHING, "hydra.run.dir=run").status == 0
    events = next((tmp_path / "run").glob("events*")).read_bytes()
    again = ppo_train("resume=run")
    assert again.status == 0
    assert "is finished: 1,536 of total_timesteps=1,536" in again.out
    assert next((tmp_path / "run").glob("events*")).read_bytes() == events
    longer = ppo_train("resume=run", "total_timesteps=2304", "clip_ratio=0.3")
    assert longer.status == 0
    assert "total_timesteps: 1536 -> 2304" in longer.out
    assert "clip_ratio: 0.2 -> 0.3" in longer.out
    assert "the schedule of learning_rate, clip_ratio follows total_timesteps" in longer.out
    assert [int(row["step"]) for row in rows(tmp_path / "run")] == list(range(256, 2305, 256))
    assert logged_steps(tmp_path / "run") == list(range(256, 2305, 256))


@pytest.mark.slow
def test_a_run_moves_freely(ppo_train, tmp_path, interrupt):
    arguments = ("env=CartPole-v1", *EVERYTHING)
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    interrupt(2)
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    interrupt(None)
    shutil.move(tmp_path / "cut", tmp_path / "else where")
    assert ppo_train("resume='else where'").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "else where")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("network.hidden_sizes=[32]", "network.hidden_sizes can't change on resuming"),
        ("n_envs=4", "n_envs can't change on resuming: it was 2, given 4"),
        ("env.id=Acrobot-v1", "env.id can't change on resuming"),
        ("env=Acrobot-v1", "resume= takes knobs, not groups"),
        ("clip_rato=0.1", "did you mean 'clip_ratio'?"),
        ("clip_ratio=0.1,0.2", "takes one value"),
        ("clip_ratio=-1", "clip_ratio=-1.0: expected a value above 0"),
        ("clip_ratio", "can't read 'clip_ratio'"),
        ("vectorization=envpool", "vectorization can't change"),
        ("vectorization=entry_point", "vectorization can't change"),
        ("hooks=[run_hooks.StopAbove]", "hooks=[run_hooks.StopAbove]: expected a list of mappings such as"),
    ],
)
def test_what_can_not_change_is_refused(ppo_train, tmp_path, override, said):
    assert ppo_train("env=CartPole-v1", *EVERYTHING, "total_timesteps=256", "hydra.run.dir=run").status == 0
    before = sorted((path, path.read_bytes()) for path in (tmp_path / "run").rglob("*.pt"))
    refused = ppo_train("resume=run", override)
    assert refused.status == 2
    assert said in refused.err
    assert refused.err.count("\n") == 1
    assert sorted((path, path.read_bytes()) for path in (tmp_path / "run").rglob("*.pt")) == before


def test_resume_names_what_is_not_there(ppo_train, tmp_path):
    missing = ppo_train("resume=outputs/nothing")
    assert missing.status == 2
    assert "resume=outputs/nothing: no run there" in missing.err
    assert not (tmp_path / "outputs").exists()
    assert ppo_train("-m", "resume=a").status == 2


class Touch:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_damaged_and_foreign_checkpoints_end_with_a_line(ppo_train, tmp_path):
    assert ppo_train("env=CartPole-v1", *SMALL, "hydra.run.dir=run").status == 0
    other = ("env=Acrobot-v1", *SMALL)
    assert ppo_train(*other, "hydra.run.dir=other").status == 0
    folder = tmp_path / "run" / "checkpoints"
    good = (folder / "1536.pt").read_bytes()
    payload = torch.load(folder / "1536.pt", weights_only=True)
    (tmp_path / "run" / "eval.json").unlink()

    def flip(data):
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    def saved(value):
        torch.save(value, tmp_path / "crafted.pt")
        return (tmp_path / "crafted.pt").read_bytes()

    crafted = {
        "truncated": good[: len(good) // 2],
        "empty": b"",
        "flipped": flip(good),
        "malicious": saved({**payload, "model": Touch(tmp_path / "executed")}),
        "newer": saved({**payload, "format": 99}),
        "other spaces": (tmp_path / "other" / "checkpoints" / "1536.pt").read_bytes(),
        "no dict": saved([1, 2, 3]),
    }
    for path in numbered(folder):
        path.unlink()
    for name, data in crafted.items():
        (folder / "1536.pt").write_bytes(data)
        refused = ppo_train("resume=run")
        assert refused.status != 0, name
        assert refused.err.count("\n") == 1, (name, refused.err)
        assert refused.err.startswith("ppo-train: "), name
        assert (folder / "1536.pt").read_bytes() == data, name
    assert not (tmp_path / "executed").exists()
    (folder / "1536.pt").write_bytes(good)
    assert ppo_train("resume=run").status == 0


def test_a_new_run_never_goes_into_the_folder_of_an_old_one(ppo_train):
    assert ppo_train("env=CartPole-v1", *SMALL, "hydra.run.dir=run").status == 0
    second = ppo_train("env=CartPole-v1", *SMALL, "hydra.run.dir=run")
    assert second.status == 2
    assert second.err == "ppo-train: run holds a run already; resume='run' goes on with it\n"


@pytest.mark.parametrize("older", ["restart", "own"])
def test_a_run_whose_environments_an_older_version_saved_otherwise_goes_on_with_new_episodes(
    ppo_train, tmp_path, older
):
    assert ppo_train("env=CartPole-v1", *SMALL, "hydra.run.dir=run").status == 0
    folder = tmp_path / "run" / "checkpoints"
    payload = load_checkpoint(folder / "last.pt")
    for path in folder.glob("*.pt"):
        path.unlink()
    save_checkpoint(
        folder / "1536.pt", {**payload, "format": 2, "snapshot_kind": older, "environments": None}
    )
    resumed = ppo_train("resume=run", "total_timesteps=3000")
    assert resumed.status == 0
    assert "not exact from here on: all environments begin new episodes" in resumed.out
