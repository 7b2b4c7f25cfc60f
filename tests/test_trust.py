"""What lies in a run's folder may come from anybody, or be half of what it was: a line says what is wrong."""

import contextlib
import copy
import os
import random
import shutil
import signal
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from run_ends import assert_same_end, events, files, rows
from run_hooks import INTERRUPTIBLE, Interrupt

from ppo_cli.cli.evaluate import main as ppo_eval_main
from ppo_cli.cli.export import main as ppo_export_main
from ppo_cli.cli.train import main as ppo_train_main
from ppo_cli.config.convert import load_yaml
from ppo_cli.errors import ConfigError
from ppo_cli.runs.checkpoint import CheckpointError, load_checkpoint, load_newest, load_run, save_checkpoint

RUN = (
    "env=CartPole-v1", "n_envs=2", "n_steps=32", "total_timesteps=256", "n_epochs=1", "batch_size=64",
    "eval.episodes=2", "eval.every=2", "compile=false", "vectorization=sync", "checkpoint.every=1",
    INTERRUPTIBLE,
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four iterations, and one that a signal stopped after three."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Interrupt, "number", signal.SIGTERM)
        for name, iteration in (("whole", None), ("cut", 3)):
            patch.setattr(Interrupt, "at", iteration)
            patch.setattr(sys, "argv", ["ppo-train", *RUN, f"hydra.run.dir={name}"])
            with pytest.raises(SystemExit):
                ppo_train_main()
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """The folder of the run that was stopped; the whole one is beside it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "cut"


def call(main, monkeypatch, capfd, *arguments):
    """Status and standard error of another command."""
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capfd.readouterr().err


def rewrite(run, **changes):
    """Puts a checkpoint with a right checksum in place of the newest one; a key may be dotted."""
    path = run / "checkpoints" / "192.pt"
    payload = load_checkpoint(path)
    for key, value in changes.items():
        *outer, last = key.split("__")
        place = payload
        for name in outer:
            place = place[name]
        if value is KeyError:
            del place[last]
        else:
            place[last] = value
    for other in path.parent.glob("*.pt"):
        other.unlink()
    save_checkpoint(path, payload)
    os.link(path, path.with_name("last.pt"))


# --- files elsewhere


@pytest.mark.parametrize(
    "typed",
    [
        ("+network.encoders.observation=test.Tied",),
        ("hooks=[{name: queue.Hook}]",),
        ("objective=code.own",),
        ("env.wrappers=[{name: types.Wrapper}]",),
    ],
)
def test_a_name_of_pythons_is_refused_before_a_run_that_could_not_be_loaded(ppo_train, tmp_path, typed):
    refused = ppo_train("env=CartPole-v1", *typed)
    assert refused.status == 2
    assert "is the name of a module of Python's own" in refused.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../victim", "victim", "/tmp/victim", "events.out.tfevents.1/../../victim"])
def test_an_event_file_is_one_of_the_folder(ppo_train, run, tmp_path, name):
    (tmp_path / "victim").write_text("mine" * 100)
    (run / "victim").write_text("mine" * 100)
    rewrite(run, log__event_file=name)
    refused = ppo_train("resume=cut")
    assert refused.status == 1
    assert "its log.event_file is not the name of an event file" in refused.err
    assert refused.err.count("\n") == 1
    assert (tmp_path / "victim").read_text() == (run / "victim").read_text() == "mine" * 100


@pytest.mark.parametrize(
    "name",
    [".lock", "metrics.csv", "train.log", "checkpoints", "checkpoints/.x.tmp", ".hydra/config.yaml"],
)
def test_nothing_is_written_through_a_link(ppo_train, run, tmp_path, name):
    victim = tmp_path / "victim"
    if name == "checkpoints":
        shutil.move(run / name, victim)
    else:
        victim.write_text("mine")
        (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    before = files(victim) if victim.is_dir() else victim.read_text()
    refused = ppo_train("resume=cut")
    assert refused.status == 1
    assert "is a link" in refused.err
    assert refused.err.count("\n") == 1
    assert (files(victim) if victim.is_dir() else victim.read_text()) == before


def test_a_folder_that_is_given_holds_no_trap(ppo_train, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "config.yaml").symlink_to(victim)
    refused = ppo_train(*RUN, "hydra.run.dir=run")
    assert refused.status == 2
    assert "is a link" in refused.err
    assert refused.err.count("\n") == 1
    assert victim.read_text() == "mine"


def test_lengths_that_are_made_up_stretch_nothing(ppo_train, run):
    rewrite(run, log__csv=2**40, log__events=2**40)
    resumed = ppo_train("resume=cut")
    assert resumed.status == 0, resumed.err
    assert "it goes on behind what is whole" in resumed.out
    assert (run / "metrics.csv").stat().st_size < 10_000
    assert_same_end(run.parent / "whole", run)


# --- what a config names


def test_a_module_that_a_stored_config_names_is_said(ppo_train, tmp_path, monkeypatch, capfd):
    own = [override for override in RUN if not override.startswith("env=")]
    assert ppo_train("env.id=stubborn_envs:Levels-v0", *own, "hydra.run.dir=run").status == 0
    line = "importing stubborn_envs, which {} names (env.id=stubborn_envs:Levels-v0)\n"
    last = line.format("run/checkpoints/last.pt")
    assert line.format("run/config.yaml") in ppo_train("resume=run", "total_timesteps=512").out
    status, err = call(ppo_eval_main, monkeypatch, capfd, "run")
    assert (status, err) == (0, f"ppo-eval: {last}")
    status, err = call(ppo_export_main, monkeypatch, capfd, "run", "--format", "torchscript")
    assert status == 0
    assert f"ppo-export: {last}" in err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("env: {id: 'antigravity:Sky-v0'}", "a module of Python's own"),
        ("env: {id: 'test.__main__:Sky-v0'}", "a module of Python's own"),
        ("env: {id: 'pip.__main__:Sky-v0'}", "or a program"),
        ("network: {encoders: {observation: os.system}}", "a module of Python's own"),
        ("env: {id: CartPole-v1, wrappers: [{name: torch.nn.Linear}]}", "no subclass of gymnasium"),
        (
            "env: {id: CartPole-v1, wrappers: [{name: RecordVideo, video_folder: /x}]}",
            "outside the current",
        ),
    ],
)
def test_what_a_stored_config_may_not_name(ppo_train, tmp_path, setting, said):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(f"{setting}\n")
    if "env:" not in setting:
        (tmp_path / "run" / "config.yaml").write_text(f"env: {{id: CartPole-v1}}\n{setting}\n")
    refused = ppo_train("resume=run")
    assert refused.status == 2
    assert said in refused.err
    assert refused.err.count("\n") == 1
    assert "antigravity" not in sys.modules


def test_interpolations_of_a_stored_config_are_letters(ppo_train, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "7")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("env: {id: CartPole-v1}\nseed: ${oc.env:SECRET}\n")
    refused = ppo_train("resume=run")
    assert refused.status == 2
    assert "seed: expected an integer, given '${oc.env:SECRET}'" in refused.err


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x00\x01\xff",
        b"- 1\n",
        b"env: &a [*a]\n",
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        b"[" * 10_000,
        b"env: {id: CartPole-v1}\nseed: 1e999\n",
        b"env: {id: CartPole-v1}\nn_envs: " + b"9" * 5000 + b"\n",
        b"env: {id: 'Cart\x1b[2J'}\n",
        b"env: {id: ''}\n",
        b"5",
        b"env: {id: CartPole-v1}\nseed: !!timestamp x\n",
        b"env: {id: CartPole-v1, wrappers: [" + b"{name: FlattenObservation}, " * 100 + b"]}\n",
        b"env: {id: CartPole-v1}\nnetwork: {hidden_sizes: [" + b"1, " * 30_000 + b"1]}\n",
        b"env: 3\n",
        b"env: {id: CartPole-v1, kwargs: [1]}\n",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_config_that_is_none_is_one_line(ppo_train, tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes(text)
    refused = ppo_train("resume=run")
    assert refused.status == 2
    assert refused.err.count("\n") == 1
    assert "\x1b" not in refused.err
    assert sorted(files(tmp_path / "run")) in (["config.yaml"], [".lock", "config.yaml"])


def test_a_stored_config_without_an_environment_does_not_take_the_one_that_was_composed_last(
    ppo_train, tmp_path
):
    assert (
        ppo_train("env=Acrobot-v1", "--cfg", "job").status == 0
    )  # in the same process, as jobs of a sweep are
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 3\n")
    refused = ppo_train("resume=run")
    assert refused.status == 2
    assert "env.id" in refused.err


def test_a_config_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="no plain file"):
        load_yaml(tmp_path / "config.yaml")


# --- power cuts and kills


@pytest.mark.parametrize("keep", [0, 50, 400])
def test_logs_that_are_shorter_than_recorded_are_cut_to_what_is_whole(ppo_train, run, keep):
    event_file = next(run.glob("events*"))
    for path in (event_file, run / "metrics.csv"):
        with path.open("r+b") as file:
            file.truncate(keep)
            file.write(b"\0" * 30)  # as a power cut leaves what was not on disk yet
    resumed = ppo_train("resume=cut")
    assert resumed.status == 0, resumed.err
    assert "metrics.csv has" in resumed.out
    assert b"\0" not in (run / "metrics.csv").read_bytes()
    assert [row["iteration"] for row in rows(run)][-1] == "4"
    assert any(tag == "losses/entropy" and step == 256 for step, tag, _ in events(run))
    assert load_checkpoint(run / "checkpoints" / "last.pt")["steps"] == 256


def test_logs_that_are_gone_begin_anew(ppo_train, run):
    next(run.glob("events*")).unlink()
    (run / "metrics.csv").unlink()
    resumed = ppo_train("resume=cut")
    assert resumed.status == 0, resumed.err
    assert "is missing: TensorBoard shows the run from here on" in resumed.out
    assert [row["iteration"] for row in rows(run)] == ["4"]
    assert len(list(run.glob("events*"))) == 1


def test_resuming_brings_the_folder_to_its_newest_checkpoint(ppo_train, run):
    checkpoints = run / "checkpoints"
    (checkpoints / "last.pt").unlink()
    os.link(checkpoints / "128.pt", checkpoints / "last.pt")
    shutil.copy(checkpoints / "128.pt", checkpoints / "64.pt")  # that keep_newest did not get to
    payload = load_checkpoint(checkpoints / "64.pt")
    save_checkpoint(checkpoints / "64.pt", {**payload, "steps": 64})
    for name in (".192.pt.tmp", ".last.pt.tmp"):
        (checkpoints / name).write_bytes(b"half")
    (run / ".eval.json.tmp").write_text("half")
    assert ppo_train("resume=cut").status == 0
    assert files(run) == files(run.parent / "whole")
    assert_same_end(run.parent / "whole", run)


def test_a_finished_run_is_repaired_too(ppo_train, run):
    whole = run.parent / "whole"
    last = whole / "checkpoints" / "last.pt"
    last.unlink()
    os.link(whole / "checkpoints" / "192.pt", last)
    assert "is finished" in ppo_train("resume=whole").out
    assert load_checkpoint(last)["steps"] == 256


def test_an_evaluation_of_fewer_steps_does_not_make_a_run_finished(ppo_train, run):
    shutil.copy(run.parent / "whole" / "eval.json", run / "eval.json")
    text = (run / "eval.json").read_text().replace('"steps": 256', '"steps": 128')
    (run / "eval.json").write_text(text)
    assert ppo_train("resume=cut").status == 0
    assert '"steps": 256' in (run / "eval.json").read_text()


@pytest.mark.parametrize(
    "text", [b"\xff\x00[", b"- !!python/object/apply:os.system [x]", b"{[1]: 2}", b"<<: 5"]
)
def test_damaged_notes_of_what_was_typed_end_nothing(ppo_train, run, text):
    (run / ".hydra" / "overrides.yaml").write_bytes(text)
    (run.parent / "jobs.json").write_text("{")
    assert ppo_train("resume=cut").status == 0


def test_a_newer_versions_checkpoint_is_not_passed_over(ppo_train, run):
    rewrite(run)
    path = run / "checkpoints" / "192.pt"
    payload = torch.load(path, weights_only=True)
    torch.save({**payload, "format": 99}, path)
    shutil.copy(run.parent / "whole" / "checkpoints" / "192.pt", run / "checkpoints" / "128.pt")
    before = path.read_bytes()
    refused = ppo_train("resume=cut")
    assert refused.status == 1
    assert "from a newer ppo-cli" in refused.err
    assert path.read_bytes() == before


# --- contents under a right checksum

WRONG = {
    "no weights": {"model": KeyError},
    "weights that are a list": {"model": [1, 2]},
    "weights of another shape": {"model": {"policy_head.weight": torch.zeros(3)}},
    "weights that are no numbers": {"optimizer__exp_avg": torch.full((9155,), float("nan"))},
    "moments of another length": {"optimizer__exp_avg": torch.zeros(3)},
    "a generator of one byte": {"action_generator": torch.zeros(1, dtype=torch.uint8)},
    "global generators": {"generators__python": [3, torch.zeros(2), None]},
    "numpy's generator": {"generators__numpy": ["MT19937", torch.zeros(3), 1, 2, 3.0]},
    "torch's generator": {"generators__torch": torch.zeros(4)},
    "iterations": {"iteration": -3},
    "steps": {"steps": 2**60},
    "steps of another file": {"steps": 128},
    "a best that is NaN": {"best": float("nan")},
    "kind": {"snapshot_kind": "magic"},
    "observations of another shape": {"observations": torch.zeros(7, 9)},
    "observations of another type": {"observations": torch.zeros(2, 4, dtype=torch.complex64)},
    "episodes": {"episodes__returns": torch.zeros(5)},
    "episodes that are missing": {"episodes": {}},
    "config": {"config": {}},
    "config of another run": {"config__n_envs": 3},
    "log": {"log": {"csv": 1.5}},
    "environments in another number": {"environments__seeds": [1]},
    "infos in another number": {"environments__infos": [None] * 3},
    "infos without steps": {"environments__infos": [{"series": {}}] * 2},
    "infos that are not finite": {
        "environments__infos": [{"steps": 1, "series": {"a": [float("nan"), 1, 1, 1.0, 1, False]}}] * 2
    },
    "infos of another form": {"environments__infos": [{"steps": 1, "series": {"a": [1.0]}}] * 2},
    "infos with a key that is too long": {
        "environments__infos": [{"steps": 1, "series": {"a" * 101: [1.0, 1, 1, 1.0, 1, False]}}] * 2
    },
    "faults": {"environments__faults": torch.zeros(7, dtype=torch.int64)},
    "faults of another type": {"environments__faults": torch.zeros(2, dtype=torch.complex64)},
    "a position outside the twister": {
        "generators__numpy": ["MT19937", torch.zeros(624, dtype=torch.int64), 10**9, 0, 0.0]
    },
    "a position that no integer holds": {
        "generators__numpy": ["MT19937", torch.zeros(624, dtype=torch.int64), 2**50, 0, 0.0]
    },
    "more actions than are ever saved": {
        "environments__actions": [torch.zeros(1_000_000, dtype=torch.int64)] * 2
    },
    "actions outside the space": {"environments__actions": [torch.tensor([5]), torch.tensor([-1])]},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_contents_are_one_line(ppo_train, run, monkeypatch, capfd, name):
    rewrite(run, **WRONG[name])
    refused = ppo_train("resume=cut")
    assert refused.status in (1, 2), refused.out
    assert refused.err.count("\n") == 1, refused.err
    status, err = call(ppo_eval_main, monkeypatch, capfd, "cut")
    assert status == 0 or err.count("\n") == 1


@pytest.mark.parametrize(
    "environments",
    [
        {"starts": [{"generator": {"state": 3}}, {}]},
        {"starts": [{"seed": 10**30}, {"seed": "x"}]},
        {"actions": [torch.tensor([5, 9]), torch.zeros(0, dtype=torch.int64)]},
        {"actions": [torch.zeros(3, 2), torch.zeros(0)]},
        {"observations": torch.zeros(2, 4)},
    ],
    ids=["generator", "seeds", "actions", "shapes", "observations"],
)
def test_snapshots_that_lead_nowhere_begin_new_episodes_or_are_refused(ppo_train, run, environments):
    rewrite(run, **{f"environments__{key}": value for key, value in environments.items()})
    ended = ppo_train("resume=cut")
    if ended.status:
        assert ended.err.count("\n") == 1
    else:
        assert "not exact from here on" in ended.out


def test_weights_that_are_no_numbers_are_neither_evaluated_nor_exported(run, monkeypatch, capfd):
    payload = load_checkpoint(run / "checkpoints" / "192.pt")
    name = next(iter(payload["model"]))
    payload["model"][name] = payload["model"][name] * float("nan")
    monkeypatch.chdir(run.parent)
    save_checkpoint(Path("bad.pt"), payload)
    for main in (ppo_eval_main, ppo_export_main):
        status, err = call(main, monkeypatch, capfd, "bad.pt")
        assert status == 1
        assert "a tensor without NaN or infinity" in err


def deep(path, depth):
    """A file of PyTorch's with a list in a list in a list ..."""
    torch.save([], path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            is_tree = name.endswith("data.pkl")
            archive.writestr(
                name, b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"." if is_tree else data
            )


def test_trees_without_an_end(tmp_path):
    itself = []
    itself.append(itself)
    for number, value in enumerate((itself, torch.zeros(1).expand(10**12))):
        torch.save({"format": 3, "sha256": "", "value": value}, tmp_path / f"{number}.pt")
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / f"{number}.pt")
    deep(tmp_path / "deep.pt", 100_000)
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "deep.pt")


def test_the_newest_checkpoint_is_the_one_whose_name_is_true(run):
    shutil.copy(run / "checkpoints" / "192.pt", run / "checkpoints" / "999.pt")
    saved, damage = load_newest(run / "checkpoints")
    assert saved.steps == 192
    assert "999.pt is not the checkpoint of 999 steps" in damage[0]
    assert load_run(run / "checkpoints" / "999.pt").steps == 192


# --- what else may lie in a folder


@pytest.mark.parametrize("name", ["eval.json", "checkpoints/best.pt", "checkpoints/last.pt", "train.log"])
def test_a_folder_in_the_place_of_a_file_is_said_before_anything_is_trained(ppo_train, run, name):
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    refused = ppo_train("resume=cut")
    assert refused.status == 1
    assert f"{name} is a folder, where a plain file is expected; remove it" in refused.err


def test_names_that_are_no_checkpoints_hinder_nothing(ppo_train, run):
    (run / "checkpoints" / ".x.tmp").mkdir()
    (run / "checkpoints" / "999.pt").mkdir()
    shutil.copy(run / "checkpoints" / "192.pt", run / "checkpoints" / "0000192.pt")
    assert ppo_train("resume=cut").status == 0
    assert_same_end(run.parent / "whole", run)


def test_a_checkpoint_that_can_not_be_read_now_is_not_damaged(run, monkeypatch):
    def fail(path, limit=0):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("ppo_cli.runs.checkpoint.read_bytes", fail)
    with pytest.raises(OSError, match="Input/output error"):
        load_newest(run / "checkpoints")


@pytest.mark.parametrize("takes_its_place", [False, True])
def test_a_run_whose_folder_is_moved_away_writes_into_no_other(ppo_train, tmp_path, takes_its_place):
    move = f"hooks=[{{name: run_hooks.Move, at: 2, replace: {str(takes_its_place).lower()}}}]"
    ended = ppo_train(*RUN, move, "hydra.run.dir=run")
    assert ended.status == 1
    assert ended.err.count("\n") == 1
    assert (files(tmp_path / "run") if takes_its_place else []) == []
    assert ppo_train("resume=moved", "hooks=[]").status == 0
    assert [row["iteration"] for row in rows(tmp_path / "moved")] == ["1", "2", "3", "4"]


# --- many mutations of one checkpoint

POISONS = (
    None, True, -1, 2**70, 1e308, float("inf"), float("nan"), "", "../../victim", "/tmp/victim", "os:system",
    "antigravity.Sky", "antigravity:Sky-v0", "${oc.env:HOME}", "\x1b[2J", [], {}, [[[]]], {"a": {"b": 1}},
    torch.zeros(0), torch.zeros(3, 3), torch.full((2,), float("nan")), torch.zeros(4, dtype=torch.int8),
    torch.tensor([2**62, -1]), torch.zeros(2, dtype=torch.complex64),
)  # fmt: skip


def leaves(tree, path=()):
    """The path of everything in a payload, branches included."""
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, below in items:
        yield from leaves(below, (*path, key))


def mutated(payload, generator):
    """A copy in which one to three things are gone or something else."""
    tree = copy.deepcopy(payload)
    for _ in range(generator.randint(1, 3)):
        path = generator.choice(list(leaves(tree)))
        place = tree
        for key in path[:-1]:
            place = place[key]
        if generator.random() < 0.2:
            del place[path[-1]]
        elif isinstance(place[path[-1]], torch.Tensor) and generator.random() < 0.5:
            flat = place[path[-1]].clone().reshape(-1)
            if len(flat):
                flat[generator.randrange(len(flat))] = generator.choice([0, 1, 77, 127])
            place[path[-1]] = flat.reshape(place[path[-1]].shape)
        else:
            place[path[-1]] = copy.deepcopy(generator.choice(POISONS))
    return tree


@contextlib.contextmanager
def audited():
    """What was opened to write, and what was imported meanwhile."""
    before = set(sys.modules)
    opened = []
    AUDIT["opened"] = opened
    try:
        yield opened, lambda: set(sys.modules) - before
    finally:
        AUDIT["opened"] = None


AUDIT = {"opened": None, "hooked": False}


def note(event, arguments):
    """What Python tells of files."""
    if AUDIT["opened"] is None:
        return
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        if (mode and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR):
            AUDIT["opened"].append(os.fsdecode(path))
    elif event in ("os.rename", "os.remove", "os.link", "os.mkdir", "os.truncate"):
        AUDIT["opened"] += [os.fsdecode(path) for path in arguments[:2] if isinstance(path, (str, bytes))]


def trial(ppo_train, run, payload, keep):
    """One mutation: resumed, and evaluated; what went wrong, or nothing."""
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(keep, run)
    path = run / "checkpoints" / "192.pt"
    for other in path.parent.glob("*.pt"):
        other.unlink()
    save_checkpoint(path, payload)
    os.link(path, path.with_name("last.pt"))
    with audited() as (opened, imported):
        try:
            ended = ppo_train("resume=cut")
        except BaseException as error:
            return f"traceback: {type(error).__name__}: {error}"
        inside = (str(run.resolve()), "cut/", "/dev/", "cut")
        outside = [name for name in opened if not name.startswith(inside) and "/.cache/" not in name]
        new = {name for name in imported() if name.split(".")[0] in ("antigravity", "victim", "this")}
    if outside or new:
        return f"wrote {outside}, imported {new}"
    if ended.status not in (0, 1, 2) or (ended.status and ended.err.count("\n") != 1):
        return f"status {ended.status}: {ended.err}"
    return ""


@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_mutated_checkpoints_run_nothing_and_write_nothing_outside(ppo_train, run, count):
    if not AUDIT["hooked"]:
        sys.addaudithook(note)
        AUDIT["hooked"] = True
    keep = run.parent / "keep"
    shutil.copytree(run, keep)
    payload = load_checkpoint(run / "checkpoints" / "192.pt")
    generator = random.Random(count)
    found = [trial(ppo_train, run, mutated(payload, generator), keep) for _ in range(count)]
    wrong = [line for line in found if line]
    print(f"{count} tried, {len(wrong)} wrong")
    assert wrong == []
