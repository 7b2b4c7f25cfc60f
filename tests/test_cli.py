"""The command as a user meets it: runs, folders, sweeps, presets, help."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context

from ppo_cli.config.comments import knob_comments
from ppo_cli.config.compose import compose_jobs, load
from ppo_cli.config.overrides import read_line
from ppo_cli.config.schema import KNOBS, conf_dir
from ppo_cli.envs.make import env_fn
from ppo_cli.runs.evaluation import EvaluationPlan, evaluate
from ppo_cli.runs.log import EVAL_TAG, TAGS
from ppo_cli.runs.policy import load_policy

TINY = ("total_timesteps=300", "n_envs=2", "n_steps=50", "n_epochs=1", "eval.episodes=2")
PLAIN = (*TINY, "vectorization=sync", "compile=false")  # nothing is measured first, and no process started
ENVS = sorted(file.stem for file in (conf_dir() / "env").glob("*.yaml"))
PRESETS = [*(name for name in ENVS if "NoFrameskip" not in name), "ALE/Breakout-v5"]  # one Atari game for all


def composed(*overrides, multirun=False):
    """The checked config of a command line."""
    return (
        compose_jobs(read_line(overrides).overrides, None, "config")[0][1] if multirun else load(*overrides)
    )


def only_run(tmp_path):
    """The folder of the only run."""
    (folder,) = tmp_path.glob("outputs/*/*/")
    return folder


def test_hydras_verbose_page_comes_once_before_the_run(ppo_train, tmp_path):
    outcome = ppo_train("env=CartPole-v1", *PLAIN, "hydra.run.dir=run", "hydra.verbose=true")
    assert outcome.status == 0
    page, _, run = outcome.out.partition("Defaults Tree\n")
    assert page.count("Installed Hydra Plugins") == 1
    assert "total_timesteps: 300" in run.partition("\nCartPole-v1 · ")[0]
    assert "Hydra" not in run.partition("\nCartPole-v1 · ")[2]


def test_a_run_leaves_its_folder(ppo_train, tmp_path):
    outcome = ppo_train("env=CartPole-v1", *TINY, "normalize.observations=true")
    assert outcome.status == 0, outcome.err
    folder = only_run(tmp_path)
    result = outcome.out.splitlines()[-3]
    assert re.search(r"return [\d.]+ ± [\d.]+ over 2 deterministic episodes after 300 steps", result)
    assert str(folder.relative_to(tmp_path)) in result
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.yaml", ".hydra", "metrics.csv", "checkpoints", "eval.json", "train.log"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        "0.pt",
        "300.pt",
        "last.pt",
        "best.pt",
    }
    assert "over 2 deterministic episodes" in (folder / "train.log").read_text()
    assert OmegaConf.load(folder / "config.yaml").env.id == "CartPole-v1"
    assert "${" not in (folder / "config.yaml").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


def test_eval_json_and_the_checkpoint_agree(ppo_train, tmp_path):
    ppo_train("env=CartPole-v1", *PLAIN, "normalize.observations=true", "eval.seed=7")
    folder = only_run(tmp_path)
    saved = json.loads((folder / "eval.json").read_text())
    assert set(saved) == {
        "mean", "std", "iqm", "episodes", "returns", "lengths", "steps", "deterministic", "seed"
    }  # fmt: skip
    policy = load_policy(folder / "checkpoints" / "last.pt")
    plan = EvaluationPlan(env_fn(policy.config.env.id), 2, seed=7, deterministic=True)
    again = evaluate(policy.batch, plan)
    assert again.returns == saved["returns"]
    assert again.lengths == saved["lengths"]
    assert saved["mean"] == pytest.approx(sum(saved["returns"]) / 2)


@pytest.mark.slow
def test_a_later_process_loads_and_evaluates(ppo_train, tmp_path):
    ppo_train("env=Pendulum-v1", *TINY)
    folder = only_run(tmp_path)
    program = (
        "from pathlib import Path\n"
        "from ppo_cli.runs.policy import load_policy\n"
        "from ppo_cli.envs.make import env_fn\n"
        "from ppo_cli.runs.evaluation import EvaluationPlan, evaluate\n"
        f"policy = load_policy(Path({str(folder / 'checkpoints' / 'last.pt')!r}))\n"
        "config = policy.config\n"
        "plan = EvaluationPlan(env_fn(config.env.id), 2, config.eval.seed, True)\n"
        "print(evaluate(policy.batch, plan).returns)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads((folder / "eval.json").read_text())["returns"]


def test_tensorboard_and_csv_hold_every_tag(ppo_train, tmp_path):
    ppo_train("env=CartPole-v1", *PLAIN, "ent_coef=0.1", "anneal.ent_coef.final=0.01")
    folder = only_run(tmp_path)
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) >= {*TAGS, EVAL_TAG}
    assert [event.step for event in events.Scalars("losses/policy_loss")] == [100, 200, 300]
    annealed = [event.value for event in events.Scalars("charts/ent_coef")]
    assert annealed == pytest.approx([0.1, 0.07, 0.04])
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [100, 200, 300]
    for tag in TAGS:
        logged = {event.step: event.value for event in events.Scalars(tag)}
        written = {int(row["step"]): float(row[tag]) for row in rows if row[tag]}
        assert written == pytest.approx(logged, rel=1e-5)


def hparams_table(logdir):
    """What TensorBoard's HPARAMS tab shows of a folder: the names of its columns, and a row for each run."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(logdir)).Reload()
    shown = Context(TBContext(data_provider=MultiplexerDataProvider(runs, str(logdir))))
    of_runs = shown.hparams_metadata(RequestContext(), "")
    experiment = shown.experiment_from_metadata(RequestContext(), "", True, of_runs, [])
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        col_params=[{"metric": {"tag": EVAL_TAG}, "order": api_pb2.ORDER_ASC}],
    )
    groups = list_session_groups.Handler(RequestContext(), shown, "", request).run().session_groups
    rows = {
        Path(group.name).name: {
            **{name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()},
            **{metric.name.tag: metric.value for metric in group.metric_values},
        }
        for group in groups
    }
    return [info.name for info in experiment.hparam_infos], rows


@pytest.mark.slow
def test_tensorboards_hparams_compare_the_runs_of_a_sweep(ppo_train, tmp_path):
    ppo_train("-m", "env=CartPole-v1", *TINY, "seed=1,2", "anneal.vf_coef.final=null,0.1")
    columns, rows = hparams_table(tmp_path / "outputs")
    assert columns[:2] == ["anneal.vf_coef.final", "seed"]  # what was swept comes first
    mappings = {name for name, known in KNOBS.items() if known.entries}
    assert set(KNOBS) - set(columns) <= mappings
    assert len(rows) == 4
    for folder in tmp_path.glob("outputs/sweeps/*/*/"):
        row = rows[folder.name]
        assert f"anneal.vf_coef.final={'0.1' if 'anneal.vf_coef.final' in row else 'null'}" in folder.name
        assert folder.name.endswith(f"seed={row['seed']:.0f}")
        assert (row["env.id"], row["normalize.observations"], row["n_envs"]) == ("CartPole-v1", False, 2)
        assert row[EVAL_TAG] == pytest.approx(json.loads((folder / "eval.json").read_text())["mean"])


@pytest.mark.slow
def test_a_swept_network_and_an_infinite_knob_are_columns_too(ppo_train, tmp_path):
    ppo_train("-m", "env=CartPole-v1", *TINY, "network=mlp,mlp_large", "max_grad_norm=0.5,inf")
    columns, rows = hparams_table(tmp_path / "outputs")
    assert {"max_grad_norm", "network.hidden_sizes"} <= set(columns[:3])
    assert sorted(str(row["max_grad_norm"]) for row in rows.values()) == ["0.5", "0.5", "inf", "inf"]


def test_two_runs_at_once_have_two_folders(ppo_train, tmp_path, monkeypatch):
    class Clock:
        @staticmethod
        def now():
            from datetime import datetime

            return datetime(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("ppo_cli.runs.start.datetime", Clock)
    for _ in range(2):
        assert ppo_train("env=CartPole-v1", *PLAIN).status == 0
    first, second = sorted(path.name for path in tmp_path.glob("outputs/CartPole-v1/*"))
    assert second == f"{first}_2"


def test_a_sweep_has_one_folder_a_job_under_outputs(ppo_train, tmp_path):
    outcome = ppo_train("-m", "env=CartPole-v1", *PLAIN, "clip_ratio=0.1,0.2", "seed=range(2)")
    assert outcome.status == 0, outcome.err
    jobs = sorted(path.parent.name for path in tmp_path.glob("outputs/sweeps/*/*/eval.json"))
    assert len(jobs) == 4
    assert jobs == [f"clip_ratio={clip},seed={seed}" for clip in (0.1, 0.2) for seed in (0, 1)]
    assert len(list(tmp_path.glob("outputs/sweeps/*/multirun.yaml"))) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


@pytest.mark.slow
def test_a_sweep_over_environments(ppo_train, tmp_path):
    assert ppo_train("-m", "env=CartPole-v1,Acrobot-v1", *TINY).status == 0
    ids = {OmegaConf.load(path).env.id for path in tmp_path.glob("outputs/sweeps/*/*/config.yaml")}
    assert ids == {"CartPole-v1", "Acrobot-v1"}


@pytest.mark.parametrize("typed", ["LunarLander-v2", "LunarLanderContinuous-v2"])
def test_a_retired_id_runs_its_successor_and_says_so(ppo_train, tmp_path, typed):
    outcome = ppo_train(f"env={typed}", *PLAIN)
    successor = typed.replace("v2", "v3")
    assert outcome.status == 0, outcome.err
    assert f"{typed} is retired in Gymnasium; running its successor {successor}" in outcome.out
    assert OmegaConf.load(only_run(tmp_path) / "config.yaml").env.id == successor


def test_a_batch_above_the_rollout_is_one_full_batch(ppo_train):
    outcome = ppo_train("env=CartPole-v1", *PLAIN, "batch_size=1000")
    assert outcome.status == 0
    assert "batch_size=1000 is above n_envs * n_steps = 100: each epoch is one full batch" in outcome.out


# One of each family; the others' settings are read in test_presets.py, and they train in the slow suite.
QUICK = {"CartPole-v1", "LunarLander-v3", "MountainCarContinuous-v0", "HalfCheetah-v5", "MiniGrid-Unlock-v0"}


@pytest.mark.parametrize(
    "env", [pytest.param(p, marks=[] if p in QUICK else pytest.mark.slow) for p in PRESETS]
)
def test_every_preset_composes_and_trains_an_iteration(ppo_train, env):
    assert ppo_train(f"env={env}", *TINY, "total_timesteps=1", "n_steps=8", "eval.episodes=0").status == 0


@pytest.mark.parametrize("name", sorted(file.stem for file in (conf_dir() / "network").glob("*.yaml")))
def test_every_network_composes(name):
    network = composed(f"network={name}").network
    assert network.hidden_sizes or network.image_encoder == name


def test_the_recipe_of_a_wide_lander():
    recipe = composed("experiment=wide_lander")
    assert recipe.env.id == "LunarLander-v3"
    assert (recipe.n_envs, recipe.n_steps, recipe.batch_size, recipe.learning_rate) == (1, 4096, 32, 2e-4)
    assert (recipe.gamma, recipe.gae_lambda, recipe.vf_coef, recipe.max_grad_norm) == (0.999, 0.95, 0.6, 0.5)
    assert (recipe.ent_coef, recipe.anneal.ent_coef.final) == (0.1, 0.005)
    assert (recipe.network.hidden_sizes, recipe.network.shared) == ([512, 512, 256], True)
    elsewhere = composed("experiment=wide_lander", "env=CartPole-v1")
    assert elsewhere.env.id == "CartPole-v1"
    elsewhere.env.id = recipe.env.id
    assert elsewhere == recipe


def test_a_typed_network_wins_over_the_presets():
    assert composed("env=LunarLander-v3", "network=mlp_large").network.hidden_sizes == [512, 512, 256]


def test_preset_none_is_the_plain_defaults():
    plain = composed("env=LunarLander-v3", "preset=none")
    assert plain.env.id == "LunarLander-v3"
    assert (plain.n_envs, plain.n_steps, plain.total_timesteps) == (1, 2048, 100_000)
    assert plain == composed("env.id=LunarLander-v3")
    assert composed("env=LunarLander-v3", "env.id=CartPole-v1").n_steps == 1024


def test_ids_without_a_preset_compose():
    assert composed("env=FrozenLake-v1").env.id == "FrozenLake-v1"
    assert composed("env=some_module:Some-v0").env.id == "some_module:Some-v0"


def test_integral_floats_are_integers():
    config = composed("total_timesteps=1e6", "n_envs=4.0")
    assert (config.total_timesteps, config.n_envs) == (1_000_000, 4)
    assert isinstance(config.n_envs, int)


def test_an_interpolation_is_read_as_what_it_stands_for(monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    monkeypatch.setenv("SIZES", "[32,8]")
    monkeypatch.setenv("SHARED", "false")
    config = composed(
        "seed=${oc.env:SLURM_ARRAY_TASK_ID}",
        "network.hidden_sizes=${oc.env:SIZES}",
        "n_epochs=${seed}",
        "network.shared=${oc.env:SHARED}",
        "+env.kwargs.sutton_barto_reward=${oc.env:SHARED}",
    )
    assert (config.seed, config.n_epochs) == (7, 7)
    assert config.network.hidden_sizes == [32, 8]
    assert config.network.shared is False
    assert config.env.kwargs == {"sutton_barto_reward": False}


def test_a_folder_of_ones_own_presets(ppo_train, tmp_path):
    (tmp_path / "mine" / "env").mkdir(parents=True)
    (tmp_path / "mine" / "env" / "FrozenLake-v1.yaml").write_text("# @package _global_\nn_envs: 3\n")
    outcome = ppo_train("--config-dir", "mine", "env=FrozenLake-v1", "--cfg", "job")
    assert outcome.status == 0, outcome.err
    assert "n_envs: 3" in outcome.out


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("env/CartPole-v1.yaml", "n_envs: 3", "ppo-train has a file of that name"),
        ("experiment/typo.yaml", "# @package _global_\nclip_rato: 0.3", "did you mean 'clip_ratio'?"),
        ("experiment/broken.yaml", "a: [1", "can't be read"),
        ("experiment/wrong.yaml", "# @package _global_\nclip_ratio: abc", "clip_ratio"),
    ],
)
def test_what_is_wrong_with_ones_own_files_is_a_line(ppo_train, tmp_path, name, text, said):
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text(text + "\n")
    experiment = [f"experiment={file.stem}"] if name.startswith("experiment") else []
    outcome = ppo_train("--config-dir", "mine", *experiment)
    assert outcome.status == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}


def test_an_evaluation_ends_where_an_environment_does_not(ppo_train, tmp_path):
    outcome = ppo_train("env=CliffWalking-v1", *PLAIN, "eval.max_steps=50")
    assert outcome.status == 0, outcome.err
    assert "2 episodes lasted to eval.max_steps=50, where they are cut" in outcome.out
    assert json.loads((only_run(tmp_path) / "eval.json").read_text())["lengths"] == [50, 50]


def test_cfg_prints_and_leaves_nothing(ppo_train, tmp_path):
    outcome = ppo_train("env=LunarLander-v3", "clip_ratio=0.1", "--cfg", "job", "--resolve")
    assert outcome.status == 0
    printed = OmegaConf.create(outcome.out)
    assert (printed.env.id, printed.clip_ratio, printed.n_envs) == ("LunarLander-v3", 0.1, 8)
    assert list(tmp_path.iterdir()) == []


def test_help_lists_every_knob_with_its_value_and_meaning(ppo_train, tmp_path):
    outcome = ppo_train("--help", "env=LunarLander-v3", "clip_ratio=0.15")
    assert outcome.status == 0
    text = " ".join(outcome.out.split())
    for key in KNOBS:
        assert f" {key}=" in text
    comments = knob_comments()
    for key in KNOBS:
        assert " ".join(comments[key].split()) in text
    assert " clip_ratio=0.15 " in text
    assert " n_envs=8 " in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["ppo-train clip_ra", "ppo-train env=LunarL", "ppo-train network=mlp_l"])
def test_shell_completion(line, tmp_path):
    program = "import sys; sys.argv[0] = 'ppo-train'; from ppo_cli.cli.train import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--shell-completion", "query=bash"],
        env={**os.environ, "COMP_LINE": line, "COMP_POINT": "99"},
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    expected = {
        "clip_ra": "clip_ratio=",
        "env=LunarL": "env=LunarLander-v3",
        "network=mlp_l": "network=mlp_large",
    }
    assert expected[line.split()[1]] in done.stdout.split()


def test_a_discrete_observation_trains(ppo_train):
    assert ppo_train("env=FrozenLake-v1", *TINY).status == 0


def test_no_render_mode_in_training():
    env = env_fn("LunarLander-v3")()
    assert env.render_mode is None
    assert isinstance(env, gym.Env)
    env.close()


def test_torch_threads_follow_the_config(ppo_train):
    ppo_train("env=CartPole-v1", *PLAIN, "total_timesteps=1", "threads=2")
    assert torch.get_num_threads() == 2
    ppo_train("env=CartPole-v1", *PLAIN, "total_timesteps=1")
    assert torch.get_num_threads() == 1
