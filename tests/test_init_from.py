"""A run that begins with the weights of another: what is taken, what is not, and that it needs it no more."""

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refusals import refusal
from run_ends import assert_same_end
from run_hooks import INTERRUPTIBLE

import ppo_cli
from ppo_cli.config.convert import load_yaml
from ppo_cli.report.groups import group_runs
from ppo_cli.report.runs import read_run
from ppo_cli.runs.checkpoint import load_checkpoint, load_run, save_checkpoint, save_run
from ppo_cli.runs.sources import find_source

TINY = (
    "env.id=CartPole-v1", "n_envs=2", "n_steps=16", "total_timesteps=96", "n_epochs=1", "batch_size=32",
    "network.hidden_sizes=[8]", "network.shared=false", "normalize.observations=true",
    "normalize.rewards=true", "eval.episodes=1", "compile=false", "vectorization=sync", "checkpoint.every=1",
    "checkpoint.keep=9", INTERRUPTIBLE,
)  # fmt: skip
STATISTICS = ("observation_statistics", "reward_statistics")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run, as any of ours."""
    folder = tmp_path_factory.mktemp("trained") / "source"
    ppo_cli.train(*TINY, seed=7, folder=folder, verbose=False)
    return folder


@pytest.fixture
def source(trained, tmp_path):
    """The same, beside the runs of a test."""
    shutil.copytree(trained, tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def beside(source, monkeypatch):
    """The folder in which the source lies is the current one."""
    monkeypatch.chdir(source.parent)


def weights(folder, which="last"):
    return load_checkpoint(Path(folder) / "checkpoints" / f"{which}.pt")


def equal(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_weights_and_statistics_are_taken_and_all_else_is_fresh(ppo_train, source):
    begun = ppo_train(*TINY, "init_from=source", "hydra.run.dir=run")
    assert begun.status == 0, begun.err
    given, taken = weights("source"), weights("run", 0)
    assert equal(taken["model"], given["model"])
    for name in STATISTICS:
        assert all((torch.as_tensor(taken[name][k]) == v).all() for k, v in given[name].items())
    assert taken["steps"] == taken["iteration"] == 0
    assert not any(value.any() for value in taken["optimizer"].values())
    assert torch.equal(taken["action_generator"], weights("source", 0)["action_generator"]) is False  # a seed
    assert not equal(weights("run")["model"], given["model"])
    name = load_yaml(Path("run/config.yaml"))["init_from"]
    assert name.startswith("source:96@") and taken["config"]["init_from"] == name
    parts = "trunk, value_trunk, policy_head, value_head, statistics of observations and rewards"
    assert f"begins with {name} (96 steps): {parts}" in begun.out


def test_the_first_observations_are_seen_through_the_statistics_that_are_taken(ppo_train, source):
    statistics = load_run(source / "checkpoints" / "last.pt").observation_statistics
    shifted = {**statistics, "mean": torch.as_tensor(statistics["mean"]) + 100}
    last = source / "checkpoints" / "last.pt"
    save_run(last, replace(load_run(last), observation_statistics=shifted))
    assert ppo_train(*TINY, f"init_from={last}", "hydra.run.dir=run").status == 0
    assert (weights("run", 0)["observations"] == -10).all()  # cut, so far from the mean


def test_a_run_begun_so_goes_on_to_the_same_bits_without_its_source(ppo_train, source, tmp_path, interrupt):
    arguments = (*TINY, "init_from=source:best", "freeze=[trunk]", "anneal.learning_rate.final=0")
    assert ppo_train(*arguments, "hydra.run.dir=whole").status == 0
    interrupt(2)
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    interrupt(None)
    shutil.copytree("whole", "again")
    for path in (*Path("again/checkpoints").glob("[1-9]*.pt"), Path("again/eval.json")):
        path.unlink()
    shutil.rmtree(source)
    for folder in ("cut", "again"):
        assert ppo_train(f"resume={folder}").status == 0
        assert_same_end(tmp_path / "whole", tmp_path / folder)


@pytest.mark.slow
def test_resume_auto_takes_what_is_typed_for_what_was_taken(ppo_train, source, interrupt):
    arguments = (*TINY, "init_from=source", "hydra.run.dir=run", "resume=auto")
    interrupt(1)
    assert ppo_train(*arguments).status == 143
    interrupt(None)
    shutil.rmtree(source)
    other = ppo_train(*arguments, "init_from=elsewhere")
    assert (other.status, "init_from can't change on resuming" in other.err) == (2, True)
    assert ppo_train(*arguments).status == 0
    assert weights("run")["steps"] == 96


def test_a_source_is_named_by_its_folder_a_file_its_best_or_its_steps(source):
    best = weights(source, "best")["steps"]
    places = {
        "source": 96, "source:last": 96, "source:32": 32, "source/checkpoints/64.pt": 64, "source:best": best,
    }  # fmt: skip
    for typed, steps in places.items():
        found = find_source(str(source.parent / typed))
        assert found.name.startswith(f"{source}:{steps}@") and found.steps == steps
        assert equal(found.weights, weights(source, steps)["model"])
        assert find_source(found.name).name == found.name
    name = find_source(f"{source}:best").name
    (source / "checkpoints" / f"{best}.pt").unlink()  # as when newer ones have taken its place
    assert find_source(name).name == name


def test_a_lasting_name_is_held_to(source):
    own = source.parent / "own.pt"
    shutil.copy(source / "checkpoints" / "32.pt", own)
    name = find_source(str(own)).name
    assert name.startswith(f"{own}@") and find_source(name).steps == 32
    shutil.copy(source / "checkpoints" / "64.pt", own)
    with pytest.raises(ppo_cli.ConfigError, match="other weights lie there than @"):
        find_source(name)


@pytest.mark.slow
def test_from_python_a_run_is_a_source(ppo_train, source):
    run = ppo_cli.train(*TINY, init_from=ppo_cli.read(source), freeze=["trunk"], folder="run", verbose=False)
    assert run.config.init_from.startswith(f"{source}:96@") and run.config.freeze == ["trunk"]


def test_a_run_of_an_older_version_is_a_source(ppo_train, source):
    last = source / "checkpoints" / "last.pt"
    payload = load_checkpoint(last)
    for name in ("init_from", "init_parts", "init_from_partial", "freeze", "objective", "anneal"):
        del payload["config"][name]
    for name in ("memory", "log_std", "layer_norm"):
        del payload["config"]["network"][name]
    save_checkpoint(last, payload)
    assert ppo_train(*TINY, "init_from=source", "hydra.run.dir=run").status == 0
    assert equal(weights("run", 0)["model"], payload["model"])


MISMATCHES = {
    "network.hidden_sizes=[16]": "network.hidden_sizes=[8] there and [16] here",
    "network.shared=true": "network.shared=false there and true here",
    "network.activation=relu": "network.activation=tanh there and relu here",
    "network.memory=gru": "network.memory=none there and gru here",
    "normalize.observations=false": "normalize.observations=true there and false here",
    "env.id=Acrobot-v1": "trunk.layers.0.weight is [8, 4] there and [8, 6] here",
    "env.id=Pendulum-v1": "trunk.layers.0.weight is [8, 4] there",
}


@pytest.mark.parametrize("other", MISMATCHES)
def test_what_does_not_fit_is_one_line_that_names_the_way_out(beside, other):
    line = refusal(TINY, other, "init_from=source")
    assert "init_from=source does not fit this run: " in line and MISMATCHES[other] in line
    assert line.endswith("init_from_partial=true takes what fits")


def test_what_fits_is_taken_where_that_is_asked_for_and_the_rest_is_said(ppo_train, source):
    plain = (*TINY, "env.id=Acrobot-v1", "hydra.run.dir=plain")
    assert ppo_train(*plain).status == 0
    begun = ppo_train(
        *TINY, "env.id=Acrobot-v1", "init_from=source", "init_from_partial=true", "hydra.run.dir=run"
    )
    assert begun.status == 0, begun.err
    given, fresh, taken = (weights(name, which)["model"] for name, which in
                           (("source", "last"), ("plain", 0), ("run", 0)))  # fmt: skip
    fits = {name for name in given if given[name].shape == fresh[name].shape}
    assert "trunk.layers.0.bias" in fits and "trunk.layers.0.weight" not in fits
    for name in taken:
        assert torch.equal(taken[name], (given if name in fits else fresh)[name]), name
    assert "policy_head.weight is [2, 8] there and [3, 8] here" in begun.out
    assert "the statistics of observations are of another shape" in begun.out
    assert torch.as_tensor(weights("run", 0)["observation_statistics"]["count"]) < 3  # its own


@pytest.mark.parametrize(
    ("parts", "shared", "taken"),
    [
        ("policy", "false", {"trunk", "policy_head"}),
        pytest.param("policy", "true", {"trunk", "policy_head"}, marks=pytest.mark.slow),
        pytest.param("value", "false", {"value_trunk", "value_head"}, marks=pytest.mark.slow),
    ],
)
def test_parts_are_taken_alone(ppo_train, source, parts, shared, taken):
    arguments = (*TINY, f"network.shared={shared}", "total_timesteps=32", "eval.episodes=0")
    assert ppo_train(*arguments, "hydra.run.dir=plain").status == 0
    assert ppo_train(*arguments, "init_from=source", f"init_parts={parts}", "hydra.run.dir=run").status == 0
    given, fresh = weights("source")["model"], weights("plain", 0)["model"]
    for name, value in weights("run", 0)["model"].items():
        assert torch.equal(value, (given if name.split(".")[0] in taken else fresh)[name]), name
    own = parts == "policy"  # the critic's units are those of its rewards
    assert (weights("run", 0)["reward_statistics"]["count"] == pytest.approx(1e-4)) is own


def test_a_part_that_is_nowhere_is_said_before_a_folder_is_made(ppo_train, source, tmp_path):
    before = sorted(tmp_path.iterdir())
    shared = ppo_train(*TINY, "network.shared=true", "init_from=source", "init_parts=value")
    assert (shared.status, "init_from=source does not fit this run" in shared.err) == (2, True)
    none = ppo_train(*TINY, "init_from=source", "init_parts=encoder", "init_from_partial=true")
    assert none.status == 2
    assert "nothing to take (init_parts=encoder): this network has no weights there" in none.err
    assert sorted(tmp_path.iterdir()) == before


def test_frozen_parts_keep_their_bits_and_the_rest_is_trained(ppo_train, source):
    begun = ppo_train(*TINY, "init_from=source", "freeze=[trunk,value_head]", "hydra.run.dir=run")
    assert begun.status == 0, begun.err
    assert "frozen: trunk and value_head" in begun.out
    given, ended = weights("source")["model"], weights("run")["model"]
    for name, value in ended.items():
        frozen = name.split(".")[0] in ("trunk", "value_head")
        assert torch.equal(value, given[name]) is frozen, name
    trained = sum(v.numel() for name, v in given.items() if name.startswith(("value_trunk", "policy_head")))
    assert weights("run")["optimizer"]["exp_avg"].shape == (trained,)
    stored = json.loads(Path("run/eval.json").read_text())["returns"]
    assert ppo_cli.evaluate("run").returns == pytest.approx(stored, abs=0)


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        ("[trunc]", "no part of this network with weights that are trained: expected some of trunk, "
                    "value_trunk, policy_head, value_head; did you mean 'trunk'?"),
        ("[encoder]", "'encoder' is no part of this network"),
        ("[trunk,value_trunk,policy_head,value_head]", "leaves nothing to train"),
    ],
)  # fmt: skip
def test_what_can_not_be_frozen_is_said(frozen, said):
    assert said in refusal(TINY, f"freeze={frozen}")


@pytest.mark.slow
def test_frozen_parts_go_on_in_a_compiled_run(ppo_train, source, tmp_path, interrupt):
    arguments = (*TINY, "init_from=source", "freeze=[trunk]", "compile=true", "target_kl=0.02")
    whole = ppo_train(*arguments, "hydra.run.dir=whole")
    assert (whole.status, "can't be compiled" in whole.err) == (0, False)
    interrupt(2)
    assert ppo_train(*arguments, "hydra.run.dir=cut").status == 143
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    given, ended = weights("source")["model"], weights("whole")["model"]
    assert {name.split(".")[0] for name in given if torch.equal(given[name], ended[name])} == {"trunk"}


def test_resume_answers_a_changed_task_with_the_line_that_begins_a_new_run(ppo_train, source):
    for change in ("+env.kwargs.sutton_barto_reward=true", "env.wrappers=[{name: ClipReward}]", "seed=3"):
        refused = ppo_train("resume=source", change)
        assert refused.status == 2
        assert "init_from='source' starts a new run with its weights" in refused.err


def test_nothing_of_a_source_is_imported(ppo_train, source, monkeypatch):
    (source.parent / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(source.parent)
    last = source / "checkpoints" / "last.pt"
    payload = load_checkpoint(last)
    payload["config"]["env"].update(id="evil:Evil-v0", wrappers=[{"name": "evil.Wrapper"}])
    payload["config"].update(objective="evil.objective", hooks=[{"name": "evil.Hook"}])
    save_checkpoint(last, payload)
    (source / "config.yaml").write_text("env: {id: 'evil:Evil-v0'}\n")
    assert ppo_train(*TINY, "init_from=source", "hydra.run.dir=run").status == 0


def damage(source, how):
    """A source that is damaged or hostile, and what is said of it."""
    path = source / "checkpoints" / "last.pt"
    payload = load_checkpoint(path)
    name = next(iter(payload["model"]))
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "flipped":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    elif how == "pickle":
        torch.save({"format": 3, "sha256": "", "model": Path("x")}, path)
    elif how == "nan":
        payload["model"][name] = payload["model"][name] * float("nan")
        save_checkpoint(path, payload)
    elif how == "double":
        payload["model"][name] = payload["model"][name].double()
        save_checkpoint(path, payload)
    elif how == "count":
        payload["observation_statistics"]["count"] = -5.0
        save_checkpoint(path, payload)
    elif how == "escape":
        payload["model"]["\x1b[2J\n" + 500 * "x"] = torch.zeros(1)
        save_checkpoint(path, payload)
    elif how == "no config":
        payload["config"] = {"network": 3, "use_sde": [1]}
        save_checkpoint(path, payload)
    elif how == "folder":
        path.unlink()
        path.mkdir()
    return "source"


DAMAGES = ("cut", "flipped", "pickle", "nan", "double", "count", "escape", "folder")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_or_hostile_source_is_one_line(source, beside, how):
    line = refusal(TINY, f"init_from={damage(source, how)}")
    assert line.startswith("init_from=source") and "\x1b" not in line and len(line) < 700


def test_a_source_without_a_config_is_taken_by_its_weights_alone(ppo_train, source):
    assert ppo_train(*TINY, f"init_from={damage(source, 'no config')}", "hydra.run.dir=run").status == 0


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("nowhere", "nowhere: no such folder or file"),
        ("''", "init_from= names nothing"),
        ("source:7", "has no checkpoint 7; it has 0, 32, 64, 96, best, last"),
        ("source/config.yaml", "is not a readable checkpoint"),
        ("source/checkpoints/32.pt:best", ":best chooses among the checkpoints of a run"),
        ("other", "is the folder of a sweep: name one run in it, such as other/seed=0"),
        ("x.zip", "is not a readable file of Stable-Baselines3's"),
        ("y.zip", "y.zip: no such folder or file"),
        (300 * "long", "File name too long"),
    ],
)
def test_a_source_that_is_none_is_one_line(beside, tmp_path, typed, said):
    (tmp_path / "other" / "seed=0").mkdir(parents=True)
    (tmp_path / "other" / "jobs.json").write_text("{}")
    (tmp_path / "other" / "seed=0" / "config.yaml").write_text("{}")
    (tmp_path / "x.zip").write_bytes(b"PK")
    assert said in refusal(TINY, f"init_from={typed}")


def test_every_job_of_a_sweep_is_held_against_its_source_before_a_folder_is_made(ppo_train, source, tmp_path):
    arguments = ("-m", *TINY, "hydra.sweep.dir=sweep", "total_timesteps=32")
    refused = ppo_train(*arguments, "init_from=source", "network.hidden_sizes=[8],[9]")
    assert (refused.status, "does not fit this run" in refused.err) == (2, True)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_every_job_of_a_sweep_begins_with_what_its_source_was_when_it_was_planned(
    ppo_train, source, tmp_path
):
    arguments = ("-m", *TINY, "hydra.sweep.dir=sweep", "total_timesteps=32")
    assert ppo_train(*arguments, "init_from=null,source", "seed=0,1").status == 0
    found = {
        path.name: load_yaml(path / "config.yaml")["init_from"] for path in (tmp_path / "sweep").glob("*/")
    }
    assert found["init_from=null,seed=1"] is None and found["init_from=source,seed=0"].startswith(
        "source:96@"
    )
    jobs = json.loads((tmp_path / "sweep" / "jobs.json").read_text())["jobs"]
    assert {job["config"]["init_from"] for job in jobs} == set(found.values())


def test_the_source_is_part_of_what_groups_runs_wherever_it_lay(source):
    sources = ("null", "source:96@0123456789ab", f"{source}:96@0123456789ab", "source:32@ba9876543210")
    for number, name in enumerate(sources):
        shutil.copytree(source, folder := source.parent / "runs" / str(number))
        text = (folder / "config.yaml").read_text()
        changed = text.replace("seed: 7\n", f"seed: {number}\n").replace(
            "init_from: null", f"init_from: {name}"
        )
        (folder / "config.yaml").write_text(changed)
    folders = sorted((source.parent / "runs").iterdir())
    environments, _ = group_runs(read_run(folder) for folder in folders)
    groups = {group.name: [run.seed for run in group.runs] for group in environments["CartPole-v1"]}
    same = "init_from=source:96@0123456789ab"
    assert groups == {"init_from=null": [0], "init_from=source:32@ba9876543210": [3], same: [1, 2]}


def test_knobs_that_need_a_source_do_nothing_without_one(ppo_train):
    begun = ppo_train(*TINY, "total_timesteps=32", "init_parts=policy", "init_from_partial=true")
    assert "init_parts=policy does nothing: init_from=null" in begun.out
    assert "init_from_partial=True does nothing: init_from=null" in begun.out


def test_an_archive_that_unpacks_to_more_is_refused(ppo_train, tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", b"{}")
        archive.writestr("policy.pth", bytes(10**7))
    (tmp_path / "bomb.zip").write_bytes(data.getvalue())
    refused = ppo_train(*TINY, "init_from=bomb.zip")
    assert (refused.status, "its parts are larger than the file" in refused.err) == (2, True)
