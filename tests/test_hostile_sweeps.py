"""Sweeps and searches whose folder somebody else made: what their files say is a closed list, or refused."""

import json
import os
from pathlib import Path

import pytest

from ppo_cli.config.compose import load
from ppo_cli.config.convert import to_dict
from ppo_cli.sweeps.plan import load_jobs

RUN = ("env=CartPole-v1", "n_envs=1", "n_steps=8", "total_timesteps=8", "n_epochs=1", "eval.episodes=1",
       "vectorization=sync")  # fmt: skip
TARGET = "{_target_: os.mkdir, path: ran}"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of two jobs that has not begun: its folder, and a function that changes its `jobs.json`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep").mkdir()
    config = load(*RUN)
    jobs = [
        {
            "folder": f"seed={seed}",
            "overrides": [*RUN, f"seed={seed}"],
            "config": {**to_dict(config), "seed": seed},
        }
        for seed in (0, 1)
    ]
    stored = {"config_name": "config", "overrides": [*RUN, "seed=0,1"], "jobs": jobs}

    def change(**changed):
        (tmp_path / "sweep" / "jobs.json").write_text(json.dumps({**stored, **changed}))
        return jobs

    change()
    return change


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


HOSTILE = [
    f"+hydra.callbacks.a={TARGET}",
    f"++hydra.callbacks.a={TARGET}",
    f"hydra.launcher={TARGET}",
    f"+hydra.sweeper.a={TARGET}",
    "hydra.launcher._target_=os.mkdir",
    "hydra/launcher=../x",
    "hydra/launcher@hydra.sweeper=joblib",
    "+hydra/env=x",
    "hydra/job_logging=none",
    "hydra.job.env_set.LD_PRELOAD=x",
    "hydra.output_subdir=../../x",
    "hydra.sweep.subdir=../../x",
    "hydra.sweep.mode='0777'",
    "hydra.verbose=[a]",
    "hydra.job_logging.handlers.file.filename=/tmp/x",
    "~hydra.launcher",
    "hydra.sweeper.max_batch_size=${oc.env:HOME}",
    "hydra.launcher.n_jobs=1",  # of another launcher than the one that is named
]
OF_LAUNCHERS = {
    "submitit_slurm": ["setup=[touch ran]", "+srun_args=[x]", "+python=x", "additional_parameters.wrap=x",
                       "submitit_folder=/tmp/x", "partition=x y", "partition='x\ntouch ran'",
                       "name=${oc.env:HOME}",
                       "timeout_min={a: 1}", "nodes=nan", "nodes=1_0"],
    "ray": ["ray.init.address=example.org:1", "+ray.init.runtime_env={a: 1}", "+ray.init._temp_dir=/tmp/x"],
    "joblib": ["temp_folder=/tmp/x", "pre_dispatch=9**9**9", "n_jobs=a", "_target_=os.mkdir", "+x=1"],
}  # fmt: skip


@pytest.mark.parametrize("override", HOSTILE)
@pytest.mark.parametrize("where", ["sweep", "job"])
def test_a_stored_setting_of_hydras_that_may_run_or_write_is_refused(
    ppo_train, tmp_path, sweep, override, where
):
    jobs = sweep(overrides=[*RUN, override])
    if where == "job":
        sweep(jobs=[jobs[0], {**jobs[1], "overrides": [*RUN, override]}])
    before = names(tmp_path)
    outcome = ppo_train("sweep.resume=sweep")
    assert outcome.status == 2
    assert f"jobs.json has {override}, which isn't taken from a file: type it" in outcome.err
    assert outcome.err.count("\n") == 1
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("launcher", "setting"), [(name, setting) for name, every in OF_LAUNCHERS.items() for setting in every]
)
def test_a_stored_setting_of_a_launcher_is_a_number_or_a_word(tmp_path, sweep, launcher, setting):
    plus = "+" * setting.startswith("+")
    sweep(overrides=[f"hydra/launcher={launcher}", f"{plus}hydra.launcher.{setting.lstrip('+')}"])
    with pytest.raises(ValueError, match="isn't taken from a file"):
        load_jobs(Path("sweep"), [])


def test_what_a_stored_sweep_may_say_holds_still_and_what_is_typed_comes_first(sweep):
    sweep(
        config_name="../../x",
        overrides=[
            *RUN, "seed=0,1", "hydra/launcher=submitit_slurm", "hydra.launcher.partition='gpu,cpu'",
            "+hydra.launcher.timeout_min=30", "hydra.launcher.setup=[module load x]", "hydra.sweep.dir=/x",
            "hydra.searchpath=['file:///x']", "hydra.sweeper.max_batch_size=3", "hydra.verbose=true",
            "hydra/sweeper=jobs",
        ],
    )  # fmt: skip
    typed = ["hydra.launcher.setup=[module load y]"]
    assert load_jobs(Path("sweep"), typed).overrides == [
        "hydra/launcher=submitit_slurm", "hydra.launcher.partition='gpu,cpu'",
        "hydra.launcher.timeout_min=30", "hydra.sweeper.max_batch_size=3", "hydra.verbose=true", *typed,
    ]  # fmt: skip
    assert load_jobs(Path("sweep"), typed).config_name == "config"
    assert load_jobs(Path("sweep"), ["hydra/launcher=basic"]).overrides == [
        "hydra.sweeper.max_batch_size=3", "hydra.verbose=true", "hydra/launcher=basic"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "folder",
    ["../x", "..", ".", "", "a/b", "/x", "a\\b", ".hidden", "a\nb", "\x1b[2J", "x" * 300, 7, "SEED=0"],
)
def test_a_jobs_folder_is_a_plain_name(ppo_train, tmp_path, sweep, folder):
    first, second = sweep()
    sweep(jobs=[first, {**second, "folder": folder}])
    before = names(tmp_path)
    outcome = ppo_train("sweep.resume=sweep")
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert "\x1b" not in outcome.err
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    "text",
    ["[1]", "{}", "[" * 100_000, '{"jobs": 1}', '{"overrides": [1], "jobs": []}', "9" * 5_000, "\0",
     '{"overrides": [], "jobs": []}', '{"jobs": [], "jobs": []}', '{"overrides": [], "jobs": [1e999]}',
     '{"overrides": [], "jobs": [{"folder": "a", "overrides": [], "config": 1}]}'],
)  # fmt: skip
def test_damaged_jobs_are_a_line(ppo_train, tmp_path, sweep, text):
    (tmp_path / "sweep" / "jobs.json").write_text(text)
    outcome = ppo_train("sweep.resume=sweep")
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert "jobs.json" in outcome.err


@pytest.mark.parametrize(
    "changed",
    [{"seed": "x"}, {"unknown": 1}, {"env": 1}, {"env": {"id": None}}, {"total_timesteps": -1},
     {"n_envs": [1]}, {"gamma": float("nan")}, {"hydra": {"callbacks": {"a": {"_target_": "os.mkdir"}}}}],
)  # fmt: skip
def test_a_jobs_config_is_checked_before_any_runs(ppo_train, tmp_path, sweep, changed):
    first, second = sweep()
    sweep(jobs=[first, {**second, "config": {**second["config"], **changed}}])
    outcome = ppo_train("sweep.resume=sweep")
    assert outcome.status == 2
    assert outcome.err.startswith("ppo-train: sweep/jobs.json, job seed=1: ")
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "sweep" / "seed=0").exists()


def lead_out(sweep, name):
    """Puts a link into a sweep's folder, and returns the folder or file that it leads to."""
    victim = sweep.parent / "victim"
    if name == "seed=0":
        victim.mkdir()
    else:
        victim.write_text("mine\n")
        (sweep / name).parent.mkdir(exist_ok=True)
    (sweep / name).symlink_to(victim)
    return victim


@pytest.mark.parametrize(
    "name", ["seed=0", "seed=0/train.log", "seed=0/failed.txt", "seed=0/.hydra", "seed=0/eval.json"]
)
def test_a_jobs_folder_that_leads_elsewhere_is_refused(ppo_train, tmp_path, sweep, name):
    victim = lead_out(tmp_path / "sweep", name)
    outcome = ppo_train("sweep.resume=sweep")
    assert outcome.status == 2
    assert "is a link" in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(victim.iterdir()) == [] if victim.is_dir() else victim.read_text() == "mine\n"


def test_nothing_is_written_or_waited_for_beside_a_sweeps_jobs(ppo_train, tmp_path, sweep):
    victim = lead_out(tmp_path / "sweep", "multirun.yaml")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text(f"hydra: {{callbacks: {{a: {TARGET}}}}}\n")
    sweep(config_name="mine", overrides=["hydra.searchpath=['file://" + str(tmp_path / "mine") + "']"])
    assert ppo_train("sweep.resume=sweep").status == 0
    assert victim.read_text() == "mine\n"
    assert not (tmp_path / "ran").exists()
    assert {path.parent.name for path in tmp_path.glob("sweep/*/eval.json")} == {"seed=0", "seed=1"}
    os.mkfifo(tmp_path / "sweep" / "seed=1" / "failed.txt")
    outcome = ppo_train("sweep.resume=sweep")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)


def test_what_jobs_began_with_is_noted_although_it_is_not_composed(ppo_train, tmp_path, sweep):
    assert ppo_train("sweep.resume=sweep").status == 0
    overrides = (tmp_path / "sweep" / "seed=1" / ".hydra" / "overrides.yaml").read_text().split("\n")
    assert overrides == [*(f"- {override}" for override in (*RUN, "seed=1")), ""]
    assert "seed: 1\n" in (tmp_path / "sweep" / "seed=1" / "config.yaml").read_text()


def test_the_launcher_that_a_file_of_the_users_chose_is_noted(ppo_train, tmp_path):
    file = tmp_path / "mine" / "experiment" / "beside.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/launcher: joblib\n"
        "hydra: {launcher: {n_jobs: 1}}\n"
    )
    outcome = ppo_train(
        "-m", "--config-dir", "mine", "experiment=beside", *RUN, "seed=0,1", "hydra.sweep.dir=sweep"
    )
    assert outcome.status == 0, outcome.err
    settings = load_jobs(tmp_path / "sweep", []).overrides
    assert settings[0] == "hydra/launcher=joblib"
    assert "hydra.launcher.n_jobs=1" in settings
    (tmp_path / "sweep" / "seed=1" / "eval.json").unlink()
    outcome = ppo_train("sweep.resume=sweep")
    assert outcome.status == 0, outcome.err
    assert "joblib_launcher.JoblibLauncher" in (tmp_path / "sweep" / "multirun.yaml").read_text()
