"""Numbers in ``info``: what becomes of them over an episode, where they are logged, and how a run goes on."""

import collections
import contextlib
import csv
import json
import math
import shutil
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from info_envs import Lives, Told
from run_ends import assert_same_end, events, rows
from run_hooks import INTERRUPTIBLE

from ppo_cli.cli.evaluate import main as ppo_eval_main
from ppo_cli.config.checks import LONGEST_INFO_KEY, MOST_INFO_KEYS
from ppo_cli.envs.infos import LONGEST_KEY, MOST_FOLLOWED, MOST_LOGGED, Tally, mean_over, parse_keys
from ppo_cli.envs.vector import SyncVector
from ppo_cli.envs.workers import AsyncVector
from ppo_cli.runs.checkpoint import load_checkpoint, numbered, save_checkpoint
from ppo_cli.runs.log_files import Columns, RowFile

PARTS = (
    "env.id=info_envs:Parts-v0", "n_envs=3", "n_steps=16", "total_timesteps=480", "n_epochs=1",
    "eval.episodes=1", "compile=false", "vectorization=sync", INTERRUPTIBLE,
)  # fmt: skip  # 10 iterations
COLUMNS = ["info/is_success", "info/reward_act", "info/reward_cost"]


def told(infos, wanted=None):
    """What one episode with those infos comes to."""
    tally = Tally(wanted)
    for step, info in enumerate(infos, 1):
        tally.add(info, step)
    tally.end(len(infos))
    return tally.ended[0] if tally.ended else {}


def info_rows(folder):
    """Iteration and info cells of the rows of metrics.csv that have any."""
    found = [[row[column] for column in COLUMNS] for row in rows(folder)]
    return [(i, cells) for i, cells in enumerate(found, 1) if any(cells)]


def test_what_every_step_tells_is_a_mean_and_what_only_some_tell_is_the_last_value():
    steps = [{"part": 1.0}, {"part": 2.0, "sometimes": 5}, {"part": 6.0, "sometimes": 7, "end": 4}]
    assert told(steps) == {"part": 3.0, "sometimes": 7.0, "end": 4.0}
    assert told([{"early": 1.0}, {"part": 1.0}]) == {"part": 1.0}  # the last step does not tell it


def test_truth_values_and_successes_are_last_values_wherever_they_are_told():
    steps = [
        {"on_ground": True, "is_success": 0.0, "Success": 1},
        {"on_ground": np.False_, "is_success": 1.0, "Success": 0},
    ]
    assert told(steps) == {"on_ground": 0.0, "is_success": 1.0, "Success": 0.0}


@pytest.mark.parametrize(
    ("typed", "value"), [("part", 2.0), ("part:last", 3), ("part:mean", 2), ("part:sum", 6)]
)
def test_a_key_that_is_asked_for_says_what_becomes_of_it(typed, value):
    steps = [{"part": 1.0, "other": 1.0}, {"part": 2.0}, {"part": 3.0}]
    assert told(steps, parse_keys([typed])) == {"part": value}


def test_a_key_may_have_colons_and_dots_and_may_lie_below_others():
    steps = [{"a:b": 1, "TimeLimit.truncated": True, "parts": {"ctrl": {"x": 2.0}}}]
    assert told(steps, parse_keys(["a:b:last", "TimeLimit.truncated", "parts.ctrl.x:sum"])) == {
        "a_b": 1.0, "TimeLimit.truncated": 1.0, "parts.ctrl.x": 2.0
    }  # fmt: skip
    assert told(steps) == {"a_b": 1.0, "parts.ctrl.x": 2.0}
    assert told(steps, parse_keys([])) == {}


def test_mappings_of_any_kind_of_dict_are_looked_through():
    parts = collections.defaultdict(float)
    parts["ctrl"] += 2.0
    assert told([{"reward": parts, "costs": collections.OrderedDict(x=1)}]) == {
        "reward.ctrl": 2.0,
        "costs.x": 1.0,
    }


def test_what_wrappers_and_libraries_put_there_is_not_found():
    wrapped = gym.wrappers.RecordEpisodeStatistics(gym.wrappers.TimeLimit(Told([{"mine": 1}] * 9), 3))
    wrapped.reset()
    infos = [wrapped.step(0)[-1] for _ in range(3)]
    assert "episode" in infos[-1]
    assert told([{"lives": 3, "_private": 1, "action_mask": 1, "prob": 1.0, **info} for info in infos]) == {
        "mine": 1
    }


class Raises(float):
    """A number that can't be had."""

    def __float__(self):
        raise SystemExit(3)


class RaisingDict(dict):
    """A mapping that can't be looked through."""

    def items(self):
        raise RuntimeError("no")


HOSTILE = {
    "nan": math.nan, "inf": -math.inf, "huge": 1e300, "beyond": 10**400, "raises": Raises(1), "text": "1",
    "none": None, "list": [1.0], "array": np.ones(2), "empty": {}, "complex": 1j,
    "date": np.datetime64("2020"),
    3: 1.0, ("a",): 1.0, None: 1.0, "": 1.0, "k" * 101: 1.0, "deep": {"a": {"b": {"c": {"d": 1.0}}}},
}  # fmt: skip


def test_what_is_no_number_is_left_out_and_ends_nothing():
    good = {"zero_d": np.array(2.5), "small": np.int8(3), "tensor": torch.tensor(4.0), "true": np.True_}
    names = {'fi\x1b[31m,ne\n"é': 6.0}
    assert told([HOSTILE | good | names]) == {
        "zero_d": 2.5, "small": 3.0, "tensor": 4.0, "true": 1.0, "fi__31m_ne___": 6.0
    }  # fmt: skip
    assert told([RaisingDict(a=1.0)]) == {}
    assert told([{"before": 1.0, "reward": RaisingDict(a=1.0), "after": 2.0}]) == {
        "before": 1.0,
        "after": 2.0,
    }
    holding_itself = {"a": 1.0}
    holding_itself["b"] = holding_itself
    assert told([holding_itself])["a"] == 1.0


def test_a_step_with_a_nan_leaves_the_mean_of_the_others():
    assert told([{"part": 1.0}, {"part": math.nan}, {"part": 3.0}, {"part": math.inf}]) == {"part": 2.0}
    assert told([{"part": 1.0, "end": 1.0}, {"part": 2.0}, {"part": 3.0, "end": math.nan}]) == {"part": 2.0}


def test_keys_that_are_always_new_do_not_pile_up():
    tally = Tally(None)
    for step in range(1000):
        tally.add({f"key_{step}": 1.0}, step)
    assert len(tally.state(1000)["series"]) == MOST_FOLLOWED


def test_the_mean_over_episodes_is_of_those_that_have_the_key():
    assert mean_over([{"a": 1.0, "b": 5.0}, {"a": 2.0}]) == {"a": 1.5, "b": 5.0}


def test_a_lost_life_is_no_episode():
    envs = SyncVector([lambda: Lives(Told([{"part": float(i)} for i in range(4)]))], infos=None)
    envs.reset(seed=0)
    ends = [bool(envs.step(np.zeros(1, np.int64))[2][0]) for _ in range(4)]
    assert ends == [False, True, False, True]
    assert envs.take_infos() == [{"part": 1.5}]
    assert envs.take_infos() == []
    envs.step(np.zeros(1, np.int64))
    envs.reset(seed=0)  # cuts one
    assert envs.take_infos() == []
    envs.close()


def test_an_episode_that_a_fault_cuts_tells_nothing():
    infos = [{"part": 1.0}, ValueError("broken"), {}, {}]
    makes = [lambda: Told(infos), lambda: Told([{"part": 3.0}, {"part": 5.0}])]
    for envs in (
        SyncVector(makes, on_error="restart", infos=None),
        AsyncVector(makes, 2, on_error="restart", infos=None),
    ):
        envs.reset(seed=0)
        for _ in range(2):
            ended = envs.step(np.zeros(2, np.int64))[3]
        assert ended.tolist() == [True, False]
        assert envs.take_infos() == [{"part": 4.0}]
        envs.close()


def test_an_episode_that_is_cut_between_two_lives_tells_nothing():
    class Breaks(Lives):
        def reset(self, **kwargs):
            if not self.was_real_done:
                raise ValueError("broken")
            return super().reset(**kwargs)

    makes = [lambda: Breaks(Told([{"part": 1.0}] * 4))]
    envs = SyncVector(makes, on_error="restart", infos=None)
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(np.zeros(1, np.int64))
    assert envs.take_infos() == []
    envs.close()


def test_sums_beyond_what_tensorboard_keeps_are_none():
    tally = Tally(None)
    tally.load(
        {"steps": 1, "series": {"huge": [1.7e308, 1, 1, 1.7e308, 1, False]}}
    )  # of a damaged checkpoint
    tally.add({"huge": 1.0, "small": 1.0}, 1)
    tally.end(1)
    assert mean_over(tally.ended * 2) == {"small": 1.0}


def test_infos_that_are_no_mappings_are_none():
    envs = SyncVector([lambda: Told([None, [1], np.ones(3), {"end": 1}])], infos=None)
    envs.reset(seed=0)
    for _ in range(4):
        envs.step(np.zeros(1, np.int64))
    assert envs.take_infos() == [{"end": 1.0}]
    envs.close()


def test_sync_and_async_log_the_same_to_csv_and_tensorboard(ppo_train, tmp_path):
    for vectorization in ("sync", "async"):
        folder = f"hydra.run.dir={vectorization}"
        assert ppo_train(*PARTS, f"vectorization={vectorization}", folder).status == 0
    sync, parallel = tmp_path / "sync", tmp_path / "async"
    assert rows(sync) == rows(parallel)
    told = info_rows(sync)
    assert len(told) >= 3
    for _, (success, act, cost) in told:
        assert 0 <= float(success) <= 1
        assert 0 <= float(act) <= 1
        assert -1 < float(cost) < 0
    points = [(step, tag, *value) for step, tag, value in events(sync) if tag.startswith("info/")]
    cells = zip(COLUMNS, told[0][1], strict=True)
    assert points[:3] == [(48 * told[0][0], tag, np.float32(cell)) for tag, cell in cells]
    assert [point for point in events(parallel) if point[1].startswith("info/")] == [
        point for point in events(sync) if point[1].startswith("info/")
    ]


@pytest.mark.parametrize(
    ("draws", "vectorization"),
    [("own", "sync"), pytest.param("own", "async", marks=pytest.mark.slow), ("python", "async")],
    ids=["replay-sync", "replay-async", "anew-async"],
)  # fmt: skip
def test_a_resumed_run_tells_the_same(ppo_train, tmp_path, monkeypatch, interrupt, draws, vectorization):
    monkeypatch.setattr("ppo_cli.envs.snapshot.RESEED_STEPS", 200)  # within the run
    arguments = (
        *PARTS, "n_steps=32", "total_timesteps=960", "+env.kwargs.shortest=40", f"+env.kwargs.draws={draws}",
        f"vectorization={vectorization}", f"checkpoint.exact={str(draws == 'python').lower()}",
    )  # fmt: skip
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    first = info_rows(tmp_path / "whole")[0][0]
    assert first > 1
    interrupt(first - 1)  # before an episode has ended
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    assert not any("info/" in column for column in rows(tmp_path / "cut")[0])
    for iteration in (first, first + 2):
        interrupt(iteration)
        assert ppo_train("resume=cut").status == 143
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    assert list(rows(tmp_path / "cut")[0]) == list(rows(tmp_path / "whole")[0])
    assert {row["charts/cut_episodes"] for row in rows(tmp_path / "cut")} == {"0.0"}


def test_resuming_from_before_a_column_came_takes_it_out_again(ppo_train, tmp_path, interrupt):
    arguments = (*PARTS, "+env.kwargs.shortest=20", "checkpoint.every=1", "checkpoint.keep=20")
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    first = info_rows(tmp_path / "whole")[0][0]
    interrupt(first + 2)
    assert ppo_train(*arguments, "hydra.run.dir=killed").status == 143
    interrupt(None)
    for left in (first - 1, first):
        folder = tmp_path / f"killed{left}"
        shutil.copytree(tmp_path / "killed", folder)
        for path in numbered(folder / "checkpoints")[: first + 2 - left]:
            path.unlink()  # as if it had been killed before it was written
        resumed = ppo_train(f"resume={folder.name}")
        assert resumed.status == 0
        assert "bytes that the checkpoint recorded" not in resumed.out
        assert_same_end(tmp_path / "whole", folder)


def test_the_infos_of_environments_that_are_lost_are_forgotten(ppo_train, tmp_path, interrupt):
    arguments = (*PARTS, "+env.kwargs.draws=python", "+env.kwargs.shortest=20")
    interrupt(1)  # in mid-episode everywhere
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    state = load_checkpoint(tmp_path / "cut" / "checkpoints" / "last.pt")
    for infos in state["environments"]["infos"]:
        assert infos["steps"] == 16
        infos["series"] = {"stale": [1.0, 1, 1, 1.0, 1, False]}
    save_checkpoint(tmp_path / "cut" / "checkpoints" / "48.pt", state)
    interrupt(None)
    resumed = ppo_train("resume=cut")
    assert "not exact from here on: all environments begin new episodes" in resumed.out
    assert list(rows(tmp_path / "cut")[0])[-3:] == COLUMNS


def test_a_checkpoint_of_before_goes_on_without_the_running_episodes(ppo_train, tmp_path, interrupt):
    arguments = (*PARTS, "+env.kwargs.shortest=20")
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    interrupt(1)
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    path = tmp_path / "cut" / "checkpoints" / "48.pt"
    state = load_checkpoint(path)
    del state["environments"]["infos"], state["log"]["columns"], state["config"]["log"]
    save_checkpoint(path, state)
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    whole, cut = rows(tmp_path / "whole"), rows(tmp_path / "cut")
    assert [row["losses/policy_loss"] for row in whole] == [row["losses/policy_loss"] for row in cut]
    assert cut[-1] == whole[-1]
    assert len(info_rows(tmp_path / "cut")) < len(info_rows(tmp_path / "whole"))


def test_the_knob_chooses_keys_or_none(ppo_train, tmp_path):
    outcome = ppo_train(*PARTS, "log.info_keys=[reward_act:sum,is_success,is_succes]", "hydra.run.dir=some")
    assert outcome.status == 0
    assert "log.info_keys: the info of no episode so far has a number is_succes" in outcome.out.splitlines()
    some = rows(tmp_path / "some")
    assert [column for column in some[0] if column.startswith("info/")] == COLUMNS[:2]
    assert max(float(row["info/reward_act"] or 0) for row in some) > 1
    assert ppo_train(*PARTS, "log.info_keys=null", "hydra.run.dir=none").status == 0
    assert not any("info/" in column for column in rows(tmp_path / "none")[0])


def test_an_evaluation_tells_them_too(ppo_train, tmp_path, monkeypatch, capfd):
    assert ppo_train(*PARTS, "eval.episodes=20", "hydra.run.dir=run").status == 0
    told = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert list(told["info"]) == ["is_success", "reward_act", "reward_cost"]
    assert told["info"]["is_success"] * 20 == pytest.approx(round(told["info"]["is_success"] * 20))
    per_step = told["mean"] / (sum(told["lengths"]) / 20)
    assert told["info"]["reward_act"] + told["info"]["reward_cost"] == pytest.approx(per_step, abs=0.1)
    tags = {tag: value for _, tag, value in events(tmp_path / "run") if tag.startswith("eval/info/")}
    assert tags["eval/info/is_success"] == (np.float32(told["info"]["is_success"]),)
    monkeypatch.setattr(sys, "argv", ["ppo-eval", "run"])
    with contextlib.suppress(SystemExit):
        ppo_eval_main()
    assert f"is_success  {told['info']['is_success']:.2f}" in capfd.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("is_success", "log.info_keys=is_success: expected auto, null, or a list of keys such as "
         "[is_success,reward_forward:mean]; did you mean [is_success]?"),
        ("None", "log.info_keys=None: expected auto, null, or a list of keys such as "
         "[is_success,reward_forward:mean]; did you mean null?"),
        ("[1]", "log.info_keys=[1]: expected auto, null, or a list"),
        ("3", "log.info_keys=3: expected auto, null, or a list"),
        ("[reward:men]", "log.info_keys: 'reward:men' is none of KEY, KEY:last, KEY:mean and KEY:sum"),
        ("[':mean']", "log.info_keys: ':mean' is none of"),
        ("[a,a:sum]", "log.info_keys names 'a' twice"),
        (f"[{','.join(f'k{i}' for i in range(51))}]", "log.info_keys has 51 keys: expected at most 50"),
    ],
)  # fmt: skip
def test_a_key_that_can_not_be_is_refused_in_a_line(ppo_train, tmp_path, typed, line):
    outcome = ppo_train("env=CartPole-v1", f"log.info_keys={typed}")
    assert outcome.status == 2
    assert outcome.err.startswith(f"ppo-train: {line}")
    assert outcome.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_config_knows_the_bounds():
    assert (MOST_INFO_KEYS, LONGEST_INFO_KEY) == (MOST_LOGGED, LONGEST_KEY)


def test_no_more_than_fifty_keys_are_logged(ppo_train, tmp_path):
    infos = [{f"key_{number:02}": float(number) for number in range(60)}] * 4
    gym.register("Many-v0", Told, kwargs={"infos": infos})
    outcome = ppo_train("env.id=Many-v0", "n_steps=16", "total_timesteps=48", "n_epochs=1", "eval.episodes=0")
    assert outcome.status == 0
    (folder,) = (tmp_path / "outputs" / "Many-v0").iterdir()
    columns = [column for column in rows(folder)[0] if column.startswith("info/")]
    assert columns == [f"info/key_{number:02}" for number in range(50)]
    assert outcome.out.count("info has more than 50 keys with numbers: info/key_50 and what comes later") == 1


def csv_of(path, *extra, length=None, columns=None):
    """A metrics.csv to go on with."""
    return RowFile(path, ("charts/a", "losses/b", *extra), length, Columns(columns))


def test_a_file_of_rows_grows_columns_and_loses_them_again(tmp_path):
    path = tmp_path / "metrics.csv"
    file = csv_of(path)
    file.add(1, 16, {"charts/a": 1.0})
    before, narrow = file.length(), path.read_bytes()
    file.widen(["info/x", "info/y"])
    file.add(2, 32, {"losses/b": 2.0, "info/y": 3.0})
    middle, wide = file.length(), path.read_bytes()
    file.widen(["info/z"])
    file.add(3, 48, {"info/x": 4.0, "info/z": 5.0})
    file.close()
    with path.open(newline="") as text:
        assert list(csv.reader(text)) == [
            ["iteration", "step", "charts/a", "losses/b", "info/x", "info/y", "info/z"],
            ["1", "16", "1.0", "", "", "", ""],
            ["2", "32", "", "2.0", "", "3.0", ""],
            ["3", "48", "", "", "4.0", "", "5.0"],
        ]
    shutil.copy(path, tmp_path / "copy.csv")
    file = csv_of(path, length=middle, columns=4)
    assert (path.read_bytes(), file.tags[2:], file.length()) == (wide, ["info/x", "info/y"], middle)
    file.close()
    for name, columns in (("metrics.csv", 2), ("copy.csv", None)):  # None: by a checkpoint of before
        file = csv_of(tmp_path / name, length=before, columns=columns)
        assert ((tmp_path / name).read_bytes(), file.tags[2:], file.length()) == (narrow, [], before)
        file.close()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["copy.csv", "metrics.csv"]


def test_columns_that_can_not_be_added_leave_the_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    file = csv_of(path)
    file.add(1, 16, {"charts/a": 1.0})
    whole = path.read_bytes()
    full = OSError(28, "full")
    monkeypatch.setattr("ppo_cli.runs.log_files.os.fsync", lambda _: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="full"):
        file.widen(["info/x"])
    assert path.read_bytes() == whole
    assert [found.name for found in tmp_path.iterdir()] == ["metrics.csv"]
    file.close()


def test_columns_are_never_added_to_another_file(tmp_path):
    path = tmp_path / "metrics.csv"
    file = csv_of(path)
    path.rename(tmp_path / "moved")
    path.write_text("another run's")
    with pytest.raises(OSError, match="moved or replaced"):
        file.widen(["info/x"])
    assert path.read_text() == "another run's"
    file.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: data.replace(b"1,16", b"1\0,16"),
        lambda data: data.replace(b",info/x", b",info/x,info/x"),
        lambda data: data.replace(b"\n1,", b"\n"),
        lambda data: b"x" * 3_000_000,
        lambda data: b"",
    ],
)
def test_a_damaged_file_of_rows_goes_on_behind_what_is_whole(tmp_path, damage):
    path = tmp_path / "metrics.csv"
    file = csv_of(path)
    file.add(1, 16, {"charts/a": 1.0})
    before = file.length()
    file.widen(["info/x"])
    file.add(2, 32, {"info/x": 4.0})
    file.close()
    path.write_bytes(damage(path.read_bytes()))
    file = csv_of(path, length=before)
    file.add(2, 32, {"losses/b": 4.0})
    file.close()
    with path.open(newline="") as text:
        found = list(csv.reader(text))
    assert found[0][:4] == ["iteration", "step", "charts/a", "losses/b"]
    assert found[-1][:4] == ["2", "32", "", "4.0"]
