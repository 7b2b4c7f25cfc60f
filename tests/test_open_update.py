"""Losses, optimizers and annealing of a run's own: trained, compiled, resumed, refused in a line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from gymnasium import spaces
from own_update import Lion
from run_hooks import INTERRUPTIBLE
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppo_cli import update
from ppo_cli.config.compose import load
from ppo_cli.config.convert import load_yaml
from ppo_cli.config.schema import Config
from ppo_cli.optimizers import OPTIMIZERS
from ppo_cli.runs.algorithm import build_hyperparameters, build_schedules
from ppo_cli.runs.build import Spaces, build_agent
from ppo_cli.runs.checkpoint import load_checkpoint

TINY = ("env=CartPole-v1", "preset=none", "n_envs=2", "n_steps=32", "total_timesteps=256", "n_epochs=2",
        "batch_size=24", "eval.episodes=1", "vectorization=sync", "checkpoint.every=1")  # fmt: skip
OWN = ("objective=own_update.soft_clip", "+objective_kwargs.width=0.5", "optimizer=own_update.Lion",
       "+optimizer_kwargs.betas=[0.8,0.95]", "learning_rate=1e-3",
       "extra_losses=[{name: own_update.confidence, coef: 0.1, final: 0.0, power: 4}, "
       "{name: 'own_update:drift', coef: 0.5}]")  # fmt: skip


def saved(folder):
    """What a run's last checkpoint holds of its agent."""
    found = load_checkpoint(folder / "checkpoints" / "last.pt")
    return {**found["model"], **{f"optimizer.{name}": value for name, value in found["optimizer"].items()}}


def same(first, second):
    """Whether two mappings of tensors are the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def refused_to_compile(folder):
    """What a run's log says of compiling that failed."""
    return [line for line in (folder / "train.log").read_text().splitlines() if "can't be compiled" in line]


def scalars(folder):
    """The values of every tag in a run's event file."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def composed(*typed) -> Config:
    config = load(*TINY, *typed)
    return config


def test_a_run_of_ones_own_functions_goes_on_after_a_stop_as_if_it_had_none(ppo_train, tmp_path, interrupt):
    typed = (*TINY, *OWN, "compile=false", INTERRUPTIBLE)
    assert ppo_train(*typed, "hydra.run.dir=whole").status == 0
    interrupt(2)
    assert ppo_train(*typed, "hydra.run.dir=cut").status == 128 + signal.SIGTERM
    interrupt(None)
    resumed = ppo_train("resume=cut")
    assert resumed.status == 0
    assert "importing own_update, which " in resumed.out
    assert same(saved(tmp_path / "whole"), saved(tmp_path / "cut"))
    assert saved(tmp_path / "cut")["optimizer.count"] == 4 * 2 * 3  # an integer, as Lion made it
    logged = scalars(tmp_path / "cut")
    assert logged == {
        **logged,
        **{tag: value for tag, value in scalars(tmp_path / "whole").items() if "losses" in tag},
    }
    assert logged["charts/confidence_coef"] == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert logged["charts/drift_coef"] == [0.5] * 4
    assert all(value > 0 for value in logged["losses/confidence"])


@pytest.mark.slow
def test_compiled_it_is_killed_and_comes_to_the_same_bits(ppo_train, tmp_path):
    typed = (*TINY, *OWN, "compile=true", "total_timesteps=64000", "eval.episodes=0")
    assert ppo_train(*typed, "hydra.run.dir=whole").status == 0
    assert refused_to_compile(tmp_path / "whole") == []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "ppo_cli", "train", *typed, "hydra.run.dir=cut"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    while not (tmp_path / "cut" / "checkpoints" / "last.pt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert load_checkpoint(tmp_path / "cut" / "checkpoints" / "last.pt")["steps"] < 64_000
    assert ppo_train("resume=cut").status == 0
    assert same(saved(tmp_path / "whole"), saved(tmp_path / "cut"))


@pytest.mark.slow
def test_compiled_and_uncompiled_runs_of_ones_own_functions_agree(ppo_train, tmp_path):
    for name, compiled in (("eager", "false"), ("compiled", "true")):
        assert ppo_train(*TINY, *OWN[:2], OWN[-1], f"compile={compiled}", f"hydra.run.dir={name}").status == 0
    first, second = saved(tmp_path / "eager"), saved(tmp_path / "compiled")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_compiles_to_what_it_computes(ppo_train, tmp_path, optimizer):
    for name, compiled in (("eager", "false"), ("compiled", "true")):
        typed = (f"optimizer={optimizer}", f"compile={compiled}", f"hydra.run.dir={name}", "target_kl=0.05")
        assert ppo_train(*TINY, *typed, "total_timesteps=64").status == 0
    assert refused_to_compile(tmp_path / "compiled") == []
    first, second = saved(tmp_path / "eager"), saved(tmp_path / "compiled")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "is_compiled"), [("noisy", True), ("drawn", False)])
def test_a_loss_that_draws_random_numbers_is_exact(ppo_train, tmp_path, interrupt, loss, is_compiled):
    own = f"extra_losses=[{{name: own_update.{loss}, coef: 0.1}}]"
    typed = (*TINY, own, "compile=true", INTERRUPTIBLE)
    assert ppo_train(*typed, "hydra.run.dir=whole").status == 0
    interrupt(2)
    assert ppo_train(*typed, "hydra.run.dir=cut").status == 128 + signal.SIGTERM
    interrupt(None)
    assert ppo_train("resume=cut").status == 0
    assert same(saved(tmp_path / "whole"), saved(tmp_path / "cut"))
    assert (refused_to_compile(tmp_path / "whole") == []) == is_compiled


@pytest.mark.slow
@pytest.mark.parametrize("compiled", ["true", "false"])
def test_a_loss_in_double_precision_is_one_as_any(ppo_train, tmp_path, compiled):
    own = "extra_losses=[{name: own_update.double, coef: 0.1}]"
    assert ppo_train(*TINY, own, f"compile={compiled}", "hydra.run.dir=run").status == 0
    assert refused_to_compile(tmp_path / "run") == []
    logged = scalars(tmp_path / "run")
    parts = [logged[f"losses/{part}"] for part in ("policy_loss", "value_loss", "entropy", "double")]
    expected = [p + 0.5 * v + 0.1 * d for p, v, _, d in zip(*parts, strict=True)]
    assert logged["losses/total_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "more", [("+optimizer_kwargs.eps=1e-8",), ("shards=2",), ("compile=true", "n_steps=64")]
)
def test_an_update_is_tried_on_observations_that_there_are(ppo_train, tmp_path, more):
    typed = (
        "env.id=zoo_envs:Zoo-v0",
        "+env.kwargs.observation=discrete",
        "n_envs=2",
        "n_steps=32",
        "batch_size=16",
    )
    done = ppo_train(*typed, "total_timesteps=128", "eval.episodes=0", "compile=false", *more)
    assert done.status == 0, done.err
    assert "compiled and runs" not in done.out + done.err  # 0 is no index of that space


def test_what_an_optimizer_keeps_of_the_first_weights_stays(ppo_train, tmp_path):
    typed = ("optimizer=own_update.Anchored", "compile=false", "checkpoint.keep=9", "hydra.run.dir=run")
    assert ppo_train(*TINY, *typed).status == 0
    first, last = (load_checkpoint(tmp_path / "run" / "checkpoints" / f"{step}.pt") for step in (0, "last"))
    assert torch.equal(first["optimizer"]["momentum"], last["optimizer"]["momentum"])
    assert not same(first["model"], last["model"])


@pytest.mark.slow
def test_what_can_not_be_traced_runs_uncompiled_after_a_line(ppo_train, tmp_path):
    own = "extra_losses=[{name: own_update.untraceable, coef: 0.1}]"
    for name, compiled in (("eager", "false"), ("compiled", "true")):
        assert ppo_train(*TINY, own, f"compile={compiled}", f"hydra.run.dir={name}").status == 0
    (line,) = refused_to_compile(tmp_path / "compiled")
    assert line.startswith("the update can't be compiled and runs uncompiled: Could not guard on data-dep")
    assert same(saved(tmp_path / "eager"), saved(tmp_path / "compiled"))


def test_the_knobs_reach_the_update():
    hyper = build_hyperparameters(
        composed("objective=kl_penalty", "+objective_kwargs.beta=0.5", "optimizer=sgd")
    )
    assert (hyper.objective.name, hyper.objective.options) == ("kl_penalty", {"beta": 0.5})
    assert hyper.optimizer.rule is OPTIMIZERS["sgd"]
    own = build_hyperparameters(composed(*OWN))
    assert [loss.metric for loss in own.extra_losses] == ["confidence", "drift"]
    assert own.extra_losses[0].options == {"power": 4}
    assert isinstance(own.optimizer.rule, Lion)
    instance = build_hyperparameters(composed("optimizer=own_update.lion")).optimizer.rule
    assert isinstance(instance, Lion)


def test_every_number_of_the_update_anneals_and_what_is_off_has_no_schedule():
    knobs = {"learning_rate": 1e-3, "gamma": 0.9, "gae_lambda": 0.8, "clip_ratio": 0.3, "vf_clip_ratio": 0.5,
             "ent_coef": 0.02, "vf_coef": 0.7, "max_grad_norm": 2.0, "target_kl": 0.1}  # fmt: skip
    typed = [f"{name}={value}" for name, value in knobs.items()]
    ends = {name: value / 2 for name, value in knobs.items()}
    schedules = build_schedules(
        composed(*typed, *(f"anneal.{name}.final={end}" for name, end in ends.items()))
    )
    assert {name: schedule(0.0) for name, schedule in schedules.items()} == knobs
    assert {name: schedule(1.0) for name, schedule in schedules.items()} == pytest.approx(ends)
    assert set(knobs) - set(build_schedules(composed())) == {"vf_clip_ratio", "target_kl"}


def test_annealed_numbers_are_logged_and_constant_ones_that_few_anneal_are_not(ppo_train, tmp_path):
    typed = (
        "gamma=0.9",
        "anneal.gamma.final=0.5",
        "target_kl=0.1",
        "anneal.target_kl.final=0.05",
        "compile=false",
    )
    assert ppo_train(*TINY, *typed, "hydra.run.dir=run").status == 0
    logged = scalars(tmp_path / "run")
    assert logged["charts/gamma"] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert logged["charts/target_kl"] == pytest.approx([0.1, 0.0875, 0.075, 0.0625])
    assert logged["charts/vf_coef"] == [0.5] * 4
    assert "charts/gae_lambda" not in logged
    assert "charts/max_grad_norm" not in logged


@pytest.mark.parametrize(
    "knob", ["gamma=0.9", "gae_lambda=0.9", "vf_clip_ratio=0.1", "max_grad_norm=0.5", "target_kl=0.01"]
)
def test_an_annealed_number_changes_what_is_learned_from_the_second_iteration_on(ppo_train, tmp_path, knob):
    name, _, start = knob.partition("=")
    end = float(start) / 100
    typed = (*TINY, knob, "compile=false", "learning_rate=1e-2", "eval.episodes=0", "checkpoint.keep=9")
    assert ppo_train(*typed, "hydra.run.dir=constant").status == 0
    assert ppo_train(*typed, f"anneal.{name}.final={end}", "hydra.run.dir=annealed").status == 0
    steps = [64, 256]
    models = [
        [load_checkpoint(tmp_path / run / "checkpoints" / f"{step}.pt")["model"] for step in steps]
        for run in ("constant", "annealed")
    ]
    assert same(models[0][0], models[1][0])
    assert not same(models[0][1], models[1][1])


def test_older_checkpoints_hold_what_adam_holds_now(ppo_train, tmp_path):
    assert ppo_train(*TINY, "compile=false", "hydra.run.dir=run").status == 0
    assert set(load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["optimizer"]) == {
        "exp_avg", "exp_avg_sq", "step",
    }  # fmt: skip


def test_the_optimizer_is_fixed_on_resuming_and_the_rest_may_change(ppo_train, tmp_path):
    assert ppo_train(*TINY, "compile=false", "hydra.run.dir=run").status == 0
    refused = ppo_train("resume=run", "optimizer=sgd", "total_timesteps=512")
    assert refused.status == 2
    assert "optimizer can't change on resuming: it was adam, given sgd" in refused.err
    taken = ppo_train("resume=run", "objective=spo", "+optimizer_kwargs.eps=1e-6", "total_timesteps=512")
    assert taken.status == 0
    assert "objective: clip -> spo" in taken.out
    misspelt = ppo_train("resume=run", "+objective_kwargs.beta=1", "total_timesteps=768")
    assert misspelt.status == 2
    assert "spo takes no option 'beta'" in misspelt.err
    assert not (tmp_path / "run" / "failed.txt").exists()  # of a run that is as good as before
    assert load_yaml(tmp_path / "run" / "config.yaml")["optimizer_kwargs"] == {"eps": 1e-6}


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (
            "objective=clpi",
            "objective=clpi: no loss 'clpi': expected clip, kl_penalty, spo, dual_clip or "
            "package.module.function; did you mean 'clip'?",
        ),
        (
            "objective=own_update.soft_clpi",
            "objective=own_update.soft_clpi: own_update has no 'soft_clpi'; did you mean 'soft_clip'?",
        ),
        (
            "objective=no_such_module.fn",
            "objective=no_such_module.fn: importing no_such_module raised "
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("objective=own_update.VALUE", "objective=own_update.VALUE: own_update.VALUE is no function"),
        (
            "objective=own_update.rows",
            "own_update.rows returned torch.float32 [2]: expected a scalar tensor of floats",
        ),
        (
            "objective=own_update.nothing",
            "own_update.nothing returned NoneType: expected a scalar tensor of floats",
        ),
        (
            "objective=own_update.broken",
            "own_update.broken raised AttributeError: 'Terms' object has no attribute 'value'",
        ),
        (
            "objective=kl_penalty +objective_kwargs.bta=1",
            "objective=kl_penalty: kl_penalty takes no option 'bta': it takes beta; did you mean 'beta'?",
        ),
        ("+objective_kwargs.beta=1", "objective=clip: clip takes no option 'beta': it takes none"),
        (
            "objective=kl_penalty +objective_kwargs.beta=much",
            "kl_penalty with {'beta': 'much'} raised TypeError: ",
        ),
        (
            "optimizer=adm",
            "optimizer=adm: no optimizer 'adm': expected adam, adamw, sgd, rmsprop, muon or "
            "package.module.Thing; did you mean 'adam'?",
        ),
        (
            "+optimizer_kwargs.epsilon=1",
            "optimizer=adam: adam.step takes no option 'epsilon': it takes betas, eps; did you mean 'eps'?",
        ),
        ("+optimizer_kwargs.betas=[0.9]", "adam.step with {'betas': [0.9]} raised ValueError: "),
        (
            "objective=own_update.somebody_elses +objective_kwargs.mode=w",
            "own_update.somebody_elses takes (path, mode='r'): expected (terms, ...)",
        ),
        ("objective=torch.sum", "torch.sum does not tell its arguments: expected (terms, ...)"),
        ("optimizer=torch.optim.Adam", "torch.optim.Adam has no function init: expected init and step"),
        (
            "optimizer=own_update.StepOnly",
            "optimizer=own_update.StepOnly: own_update.StepOnly has no function init: expected init and step",
        ),
        (
            "optimizer=own_update.NeedsMore",
            "optimizer=own_update.NeedsMore: own_update.NeedsMore() raised TypeError: ",
        ),
        (
            "optimizer=own_update.NoState",
            "own_update.NoState.init returned dict: expected a NamedTuple of tensors",
        ),
        ("optimizer=own_update.HalfStep", "own_update.HalfStep.step returned torch.float32 ["),
        ("optimizer=own_update.ForgetsState", "expected (params, state) as given, (torch.float32 ["),
        ("optimizer=own_update.InPlace", "own_update.InPlace.step changes in place what it is given"),
        ("objective=own_update.in_place", "own_update.in_place changes in place what it is given"),
        (
            "extra_losses=[{name: own_update.backless, coef: 1}]",
            "the gradient of the loss can't be computed: ",
        ),
        (
            "extra_losses=[{name: own_update.drift}]",
            "extra_losses: expected {name: package.module.function, coef: 0.1, "
            "...}, given {'name': 'own_update.drift'}",
        ),
        (
            "extra_losses=[{name: drift, coef: 1}]",
            "extra_losses=drift: no loss 'drift': expected package.module.function",
        ),
        (
            "extra_losses=[{name: own_update.drift, coef: 1, finl: 0}]",
            "extra_losses=own_update.drift: own_update.drift takes no option 'finl': it takes none",
        ),
        (
            "extra_losses=[{name: own_update.drift, coef: 1, final: low}]",
            "extra_losses: own_update.drift has final=low: expected a number or null",
        ),
        (
            "extra_losses=[{name: own_update.drift, coef: 1, final: 0, shape: linaer}]",
            "extra_losses: "
            "own_update.drift has shape=linaer: expected linear, cosine, exponential; did you mean 'linear'?",
        ),
        (
            "extra_losses=[{name: own_update.drift, coef: 1, final: 0, shape: exponential}]",
            "expected both ends above 0",
        ),
        (
            "extra_losses=[{name: own_update.entropy, coef: 1}]",
            "extra_losses: own_update.entropy is logged as "
            "losses/entropy, but ppo-cli logs a losses/entropy of its own: give the function another name",
        ),
        ("extra_losses=[{name: own_update.ent, coef: 1}]", "ppo-cli logs a charts/ent_coef of its own"),
        (
            "extra_losses=[{name: own_update.drift, coef: 1},{name: own_update.drift, coef: 2}]",
            "extra_losses: own_update.drift is logged as losses/drift, but own_update.drift is, too",
        ),
        (
            "anneal.vf_clip_ratio.final=0.1",
            "anneal.vf_clip_ratio.final=0.1: expected a finite vf_clip_ratio to start from",
        ),
        (
            "anneal.target_kl.final=0.1",
            "anneal.target_kl.final=0.1: expected a finite target_kl to start from",
        ),
        ("max_grad_norm=inf anneal.max_grad_norm.final=1", "expected a finite max_grad_norm to start from"),
        ("anneal.gamma.final=1.5", "anneal.gamma.final=1.5: expected a value from 0 to 1"),
    ],
)
def test_what_can_not_be_taken_is_a_line_and_leaves_nothing(ppo_train, tmp_path, typed, line):
    parts = [part.replace("\0", " ") for part in _quoted(typed).split(" ")]
    refused = ppo_train(*TINY, *parts)
    assert refused.status == 2
    assert line in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def _quoted(typed: str) -> str:
    """Spaces inside brackets, which part no words, as zeros."""
    depth, found = 0, ""
    for letter in typed:
        depth += (letter in "[{") - (letter in "]}")
        found += "\0" if letter == " " and depth else letter
    return found


def test_a_function_that_fails_on_the_way_ends_the_run_in_a_line(ppo_train, tmp_path, monkeypatch):
    from own_update import drift

    calls = []

    def fails_later(terms):
        calls.append(terms)
        if len(calls) > 20:
            raise ValueError("no more")
        return drift(terms)

    monkeypatch.setattr("own_update.drift", fails_later)
    own = "extra_losses=[{name: own_update.drift, coef: 1}]"
    outcome = ppo_train(*TINY, own, "compile=false", "hydra.run.dir=run")
    assert outcome.status == 1
    assert "own_update.drift raised ValueError: no more" in outcome.err
    assert "Traceback" not in outcome.err


def test_what_a_folder_names_is_said_before_it_is_imported_and_a_policy_needs_none_of_it(ppo_train, tmp_path):
    from ppo_cli.config.trust import imports

    config = composed(*OWN)
    (line,) = imports(config, Path("config.yaml"))
    assert line == "importing own_update, which config.yaml names (objective=own_update.soft_clip)"
    assert imports(config, Path("last.pt"), trains=False) == []


def test_a_metric_of_every_minibatch_is_one_line(ppo_train, tmp_path, monkeypatch):
    monkeypatch.setitem(update.DIAGNOSTICS, "surprise", lambda terms: -terms.old_logprobs.mean())
    assert ppo_train(*TINY, "compile=false", "hydra.run.dir=run").status == 0
    logged = scalars(tmp_path / "run")["losses/surprise"]
    assert len(logged) == 4
    assert all(0.5 < value < 0.8 for value in logged)  # about ln 2: two actions, almost uniform


def test_the_entropy_coefficient_anneals_as_the_others_do():
    config = composed("ent_coef=0.1", "anneal.ent_coef.final=0.0", "anneal.learning_rate.final=0.0")
    agent = build_agent(config, Spaces(spaces.Box(-1, 1, (3,)), spaces.Discrete(2)))
    agent.update_ent_coef(0.5)
    assert (agent.knobs["ent_coef"], agent.knobs["learning_rate"]) == (0.05, 3e-4)
    agent.anneal(0.5)
    assert (agent.knobs["ent_coef"], agent.knobs["learning_rate"]) == (0.05, 1.5e-4)
