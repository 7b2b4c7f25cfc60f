"""Searches whose folder somebody else made: `search.json` and `study.db` are a closed list, or refused."""

import json
import os
import sqlite3
from contextlib import closing

import pytest
from run_hooks import tell

from ppo_cli.config.overrides import read_line
from ppo_cli.episodes import Evaluation
from ppo_cli.errors import ConfigError, RunError
from ppo_cli.sweeps.search import trial as search_trial
from ppo_cli.sweeps.search.plan import load_plan, make_plan, save_plan

pytest.importorskip("optuna")

SEARCH = (
    "hydra/sweeper=optuna", "env=CartPole-v1", "total_timesteps=400", "gamma=interval(0.5,1)",
    "network=choice(mlp,mlp_large)", "n_epochs=range(1,5)", "seed=0,1", "hydra.sweeper.n_trials=2",
    "hydra.sweeper.sampler=random",
)  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """The bytes of a `search.json`."""
    folder = tmp_path_factory.mktemp("plan")
    save_plan(make_plan(read_line(SEARCH).words, None, "config"), folder)
    return (folder / "search.json").read_bytes()


@pytest.fixture
def found(tmp_path, monkeypatch, plan):
    """The folder of a search of two trials, whose runs end at once."""

    def run(config, folder, caller):
        tell(caller, folder, config, 400, Evaluation([config.gamma], [1]))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search_trial, "begin_or_go_on", run)
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "search.json").write_bytes(plan)
    return tmp_path / "found"


@pytest.fixture(scope="module")
def finished():
    """What the study of a search holds whose trials have ended, once there is one."""
    return {}


@pytest.fixture
def ended(ppo_train, found, finished):
    """The folder of a search whose trials have ended."""
    if not finished:
        assert ppo_train("sweep.resume=found").status == 0
        finished["study"] = (found / "study.db").read_bytes()
        finished["trials"] = [path.name for path in found.glob("00?_*")]
    (found / "study.db").write_bytes(finished["study"])
    for name in finished["trials"]:
        (found / name / "seed=0").mkdir(parents=True, exist_ok=True)
    return found


def changed(folder, *path, value):
    """Sets what lies at a path in `search.json`."""
    stored = here = json.loads((folder / "search.json").read_text())
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    (folder / "search.json").write_text(json.dumps(stored))


def assert_refused(outcome, said):
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert said in outcome.err
    assert "\x1b" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("typed",), ["+hydra.callbacks.a={_target_: os.mkdir, path: ran}"]),
        (("typed",), ["hydra/launcher=joblib"]),
        (("typed",), ["\x1b[2J"]),
        (("typed",), ["--config-dir=/x"]),
        (("typed",), "a=b"),
        (("axes",), []),
        (("axes",), {"a": 1}),
        (("axes", 0, "key"), "env.id"),
        (("axes", 0, "key"), "hydra.callbacks.a"),
        (("axes", 0, "key"), "total_timesteps"),
        (("axes", 0, "key"), "nonsense"),
        (("axes", 0, "key"), 7),
        (("axes", 0, "key"), "n_epochs"),
        (("axes", 0, "low"), float("-inf")),
        (("axes", 0, "low"), "0"),
        (("axes", 0, "low"), 2.0),
        (("axes", 0, "high"), 1.5),
        (("axes", 0, "log"), "yes"),
        (("axes", 0, "step"), -1.0),
        (("axes", 0, "more"), 1),
        (("axes", 1, "values"), ["mlp", "../../x"]),
        (("axes", 1, "values"), ["mlp", "${oc.env:HOME}"]),
        (("axes", 1, "values"), ["mlp", 1]),
        (("axes", 1, "values"), []),
        (("seeds",), []),
        (("seeds",), [0, 0]),
        (("seeds",), [-1]),
        (("seeds",), ["../x"]),
        (("seeds",), [True]),
        (("settings",), []),
        (("settings", "sampler"), "os.mkdir"),
        (("settings", "pruner"), "cmaes"),
        (("settings", "n_trials"), 1e999),
        (("settings", "seed"), -1),
        (("settings", "_target_"), "os.mkdir"),
        (("settings", "sampler_kwargs"), {"_target_": "os.mkdir"}),
        (("settings", "sampler_kwargs"), {"n_startup_trials": "${oc.env:HOME}"}),
        (("bases",), []),
        (("bases", 0, "groups"), {"env": "x"}),
        (("bases", 0, "config"), 1),
        (("bases", 0, "config", "gamma"), "x"),
        (("bases", 0, "config", "hydra"), {"callbacks": {}}),
        (("bases", 0, "config", "eval", "episodes"), 0),
    ],
)  # fmt: skip
def test_what_a_stored_search_may_say_is_a_closed_list(found, path, value):
    changed(found, *path, value=value)
    with pytest.raises(ConfigError, match=r"search\.json is no search: ") as refusal:
        load_plan(found)
    assert str(refusal.value).isprintable()


def test_a_stored_search_that_says_more_is_refused_before_anything_is_written(ppo_train, tmp_path, found):
    changed(found, "settings", "_target_", value="os.mkdir")
    assert_refused(ppo_train("sweep.resume=found"), "search.json is no search: ")
    assert [entry.name for entry in found.iterdir()] == ["search.json"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["found"]


def test_what_a_stored_axis_would_import_is_said(ppo_train, found):
    changed(found, "axes", 0, value={"key": "objective", "values": ["clip", "own_update.soft_clip"]})
    assert "importing own_update, which found/search.json names (objective=own_update.soft_clip)\n" in (
        ppo_train("sweep.resume=found").out
    )
    changed(found, "axes", 0, "values", value=["clip", "os.system"])
    assert_refused(ppo_train("sweep.resume=found"), "a module of Python's own")


@pytest.mark.parametrize("text", ["[1]", "[" * 100_000, "9" * 5_000, "\0", '{"typed": [], "typed": []}', "{"])
def test_a_damaged_search_is_a_line(found, text):
    (found / "search.json").write_text(text)
    with pytest.raises(ConfigError, match=r"search\.json is no search: ") as refusal:
        load_plan(found)
    assert str(refusal.value).isprintable()


def query(found, *statements):
    with closing(sqlite3.connect(found / "study.db")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


STATE = "UPDATE trials SET state = 'RUNNING'"


DAMAGES = [
    lambda db: db.write_bytes(b"no database, but long enough for a header of one" * 9),
    lambda db: db.write_bytes(db.read_bytes()[:20_000]),
    lambda db: db.write_bytes(db.read_bytes()[:4096] + b"\xff" * 8192 + db.read_bytes()[12288:]),
    lambda db: os.truncate(db, 2**30 + 1),
    lambda db: query(db.parent, "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM trials; END"),
    lambda db: query(db.parent, "CREATE VIEW v AS SELECT 1"),
    lambda db: query(db.parent, "DROP TABLE trial_params"),
    lambda db: query(db.parent, "UPDATE trials SET state = 'WHATEVER'"),
    lambda db: query(db.parent, STATE, "UPDATE trial_params SET distribution_json = '['"),
    lambda db: query(db.parent, STATE, "UPDATE trial_params SET distribution_json = '" + "[" * 9_000 + "'"),
    lambda db: query(
        db.parent, STATE, "UPDATE trial_params SET param_value = 9e9 WHERE param_name = 'gamma'"
    ),
    lambda db: query(
        db.parent, STATE, "UPDATE trial_params SET param_value = 9 WHERE param_name = 'network'"
    ),
    lambda db: query(db.parent, "UPDATE trial_params SET param_value = 'x'"),
    lambda db: query(db.parent, "UPDATE trial_values SET value = 'x'"),
    lambda db: query(db.parent, "UPDATE study_directions SET direction = 'x'"),
    lambda db: query(db.parent, "UPDATE alembic_version SET version_num = 'x'"),
    lambda db: (db.rename(db.with_name("real.db")), db.symlink_to("real.db")),
    lambda db: (db.unlink(), os.mkfifo(db)),
    lambda db: (db.unlink(), db.mkdir()),
    lambda db: db.with_name("study.db-journal").symlink_to("search.json"),
    lambda db: db.with_name("study.db-journal").write_bytes(bytes.fromhex("d9d505f920a163d7")),
]


# Every second one in the fast suite: each goes through the same guard.
@pytest.mark.parametrize(
    "damage",
    [pytest.param(each, marks=pytest.mark.slow) if i % 2 else each for i, each in enumerate(DAMAGES)],
)
def test_a_damaged_study_is_a_line(ppo_train, ended, damage):
    damage(ended / "study.db")
    assert_refused(ppo_train("sweep.resume=found"), "study")


@pytest.mark.parametrize(
    "name", [".locks", "trial", "trial/seed=0", "trial/seed=0/train.log", "trial/pruned.txt"]
)
def test_a_trials_folder_that_leads_elsewhere_is_not_written_to(ppo_train, tmp_path, ended, name):
    found = ended
    (found / ".locks").mkdir(exist_ok=True)
    (trial,) = found.glob("000_*")
    query(found, STATE)
    victim = tmp_path / "victim"
    path = found / name.replace("trial", trial.name, 1)
    is_folder = path.is_dir()
    if is_folder:
        path.rename(tmp_path / "was")
        victim.mkdir()
    else:
        path.unlink(missing_ok=True)
        victim.write_text("mine\n")
    path.symlink_to(victim)
    outcome = ppo_train("sweep.resume=found")
    assert outcome.status in (1, 2)
    assert "is a link" in outcome.err
    assert "Traceback" not in outcome.err
    assert list(victim.iterdir()) == [] if is_folder else victim.read_text() == "mine\n"


@pytest.mark.parametrize("text", ["step\n1\n", "step,mean\nx,1\n", "step,mean\n9,nan\n", "step,mean\n1\n"])
def test_a_damaged_curve_is_a_line(tmp_path, text):
    (tmp_path / "evaluations.csv").write_text(text)
    with pytest.raises(RunError, match=r"evaluations\.csv is damaged"):
        search_trial._load_curve(tmp_path / "evaluations.csv")


def test_notes_of_trials_are_lines_that_can_be_printed(ppo_train, ended):
    found = ended
    first, second = sorted(found.glob("00?_*"))
    (first / "failed.txt").write_text("\x1b[2Jgone\nmore")
    (second / "pruned.txt").write_text("")
    query(found, STATE)
    outcome = ppo_train("sweep.resume=found")
    assert outcome.status == 1
    assert r"failed: \x1b[2Jgone" in outcome.out
    assert "\x1b" not in outcome.out + outcome.err
