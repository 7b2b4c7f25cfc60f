"""Hooks for trackers of experiments: what their own stores hold of a run. Nothing is sent anywhere."""

import json
import struct

import pytest
from run_hooks import INTERRUPTIBLE

from ppo_cli.runs import user_hooks
from ppo_cli.runs.checkpoint import load_checkpoint

RUN = (  # 4 iterations
    "env=CartPole-v1", "n_envs=2", "n_steps=64", "total_timesteps=512", "n_epochs=1", "eval.episodes=2",
    "eval.every=2", "vectorization=sync", "compile=false",
)  # fmt: skip
OWN = "{name: test_hooks.Adding, tag: my/number, value: 0.5}"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No telemetry, no reports of errors, and a home in which nothing is to be found afterwards."""
    home = tmp_path / "home"
    home.mkdir()
    for name, value in {
        "HOME": str(home), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false", "WANDB_MODE": "offline",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    assert list(home.rglob("*")) == []


def wandb_records(path):
    """The records of a ``.wandb`` file, which is LevelDB's log with a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 2**15 - at % 2**15) < 7:
            at += left
            continue
        length, kind = struct.unpack("<4xHB", data[at : at + 7])
        whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # a whole record, or a last part
            yield Record.FromString(whole)
            whole = b""


def wandb_history(path):
    """What was logged, a dict a row."""
    return [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in wandb_records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def test_weights_and_biases_has_the_scalars_of_a_run_and_goes_on_with_it(ppo_train, tmp_path, interrupt):
    pytest.importorskip("wandb")
    tracked = f"hooks=[{{name: wandb, project: mine, tags: [a]}},{OWN},{INTERRUPTIBLE.partition('[')[2]}"
    interrupt(2)
    stopped = ppo_train(*RUN, tracked, "hydra.run.dir=run")
    assert stopped.status == 143, stopped.err
    interrupt(None)
    resumed = ppo_train("resume=run")
    assert resumed.status == 0, resumed.err
    first, second = sorted(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))
    assert first.name == second.name  # the same run
    before, after = wandb_history(first), wandb_history(second)
    assert [row["global_step"] for row in before] == [128, 256, 256]
    assert [row["global_step"] for row in after] == [384, 512, 512, 512]
    assert [row["my/number"] for row in before[:2]] == [0.5, 0.5]  # of a hook that stands behind it
    assert all(row["losses/entropy"] > 0 for row in before[:2])
    evaluation = json.loads((tmp_path / "run/eval.json").read_text())
    assert after[-1]["eval/episodic_return"] == evaluation["mean"]
    (config,) = (
        {item.key: json.loads(item.value_json) for item in record.run.config.update}
        for record in wandb_records(first)
        if record.WhichOneof("record_type") == "run"
    )
    assert (config["n_steps"], config["env"]["id"]) == (64, "CartPole-v1")
    assert not [path for path in (tmp_path / "run").iterdir() if path.is_symlink()]


@pytest.mark.slow  # it makes 50 tables
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # SQLAlchemy's, of what MLflow calls
def test_mlflow_has_the_scalars_of_a_run_and_goes_on_with_it(ppo_train, tmp_path, interrupt):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    tracked = f"hooks=[{{name: mlflow, tags: {{who: me}}}},{OWN},{INTERRUPTIBLE.partition('[')[2]}"
    interrupt(2)
    assert ppo_train(*RUN, tracked, "hydra.run.dir=run").status == 143
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    (experiment,) = (each for each in client.search_experiments() if each.name == "ppo-cli")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "KILLED"
    interrupt(None)
    assert ppo_train("resume=run").status == 0
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.info.run_name, found.data.tags["who"]) == ("FINISHED", "run", "me")
    assert (found.data.params["n_steps"], found.data.params["env.id"]) == ("64", "CartPole-v1")
    history = client.get_metric_history(found.info.run_id, "my/number")
    assert [(point.step, point.value) for point in history] == [(each, 0.5) for each in (128, 256, 384, 512)]
    evaluation = json.loads((tmp_path / "run/eval.json").read_text())
    assert found.data.metrics["eval/episodic_return"] == evaluation["mean"]
    assert not (tmp_path / "mlruns").exists()
    (tracker, *_) = load_checkpoint(tmp_path / "run/checkpoints/last.pt")["hooks"][-1:]
    assert tracker == {"name": "mlflow", "state": {"id": found.info.run_id}}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(ppo_train, tmp_path, monkeypatch, name):
    monkeypatch.setattr(user_hooks, "find_spec", lambda module: None)
    outcome = ppo_train(*RUN, f"hooks=[{{name: {name}}}]")
    assert outcome.status == 2
    assert outcome.err == f"ppo-train: hooks: {name} needs a package: pip install 'ppo-cli[{name}]'\n"
    assert not (tmp_path / "outputs").exists()


def test_where_a_stored_config_sends_a_run_is_said(ppo_train, tmp_path):
    assert ppo_train(*RUN, "hydra.run.dir=run").status == 0
    path = tmp_path / "run/config.yaml"
    text = path.read_text().replace("hooks: []", "hooks: [{name: mlflow, tracking_uri: 'http://else.where'}]")
    path.write_text(text)
    said = ppo_train("resume=run", "total_timesteps=512").out
    assert "the run is sent to http://else.where, which run/config.yaml names (hooks=mlflow)" in said
