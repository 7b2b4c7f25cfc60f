"""A run that is cut into shards, and the processes that have them."""

import csv
import math
import os
import random
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from run_hooks import INTERRUPTIBLE
from tensorboard.backend.event_processing import event_file_loader

import ppo_cli
from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.agent import flatten_parameters
from ppo_cli.collective import ALONE, Collective
from ppo_cli.config.checks import check
from ppo_cli.config.compose import load
from ppo_cli.diagnostics import trained_weights
from ppo_cli.distributions import make_distribution
from ppo_cli.errors import ConfigError, RunError
from ppo_cli.hooks import Hook
from ppo_cli.normalize import RunningMeanStd
from ppo_cli.policy import BatchPolicy
from ppo_cli.rollout import Batch, sequences
from ppo_cli.runs import beside
from ppo_cli.runs.beside import run_beside, runs_beside
from ppo_cli.runs.build import check_environment, env_maker
from ppo_cli.runs.caller import COMMAND, Caller
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.runs.evaluation import EvaluationPlan, evaluate
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.processes import compare, fingerprint
from ppo_cli.seeding import OwnGenerators, spawn_seeds, stream_generator
from ppo_cli.sharded import Data, ShardedStep, sharded_minibatches, weighted_sum
from ppo_cli.shards import joined, split
from ppo_cli.spaces import Spaces
from ppo_cli.tensors import Tensors
from ppo_cli.update import Hyperparameters, first_state, make_step, parameter_shapes

TINY = (
    "env=CartPole-v1", "preset=none", "n_envs=4", "n_steps=16", "total_timesteps=192", "batch_size=32",
    "n_epochs=2", "eval.episodes=2", "vectorization=sync", "compile=false", "checkpoint.every=1", "shards=4",
    "network.hidden_sizes=[8]",
)  # fmt: skip
SCALED = ("normalize.observations=true", "normalize.rewards=true", "normalize.values=true")
KNOBS = {"learning_rate": 1e-3, "clip_ratio": 0.2, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5}
SHARDS, ROWS, OBSERVATION = 4, 24, 3


def of_clock(tag):
    return tag.startswith(("time/", "_hparams_")) or tag == "charts/SPS"


def logged(folder):
    """The step, the tag and the value of everything in a run's event files."""
    loads = (event_file_loader.LegacyEventFileLoader(str(file)).Load() for file in folder.glob("events.*"))
    values = [(event.step, value) for events in loads for event in events for value in event.summary.value]
    return [[step, value.tag, str(value)] for step, value in values if not of_clock(value.tag)]


def learnt(folder):
    """All of a run that no clock has a part in: its checkpoints, its CSV, its evaluation and its events."""
    with (folder / "metrics.csv").open() as file:
        rows = [{k: v for k, v in row.items() if not of_clock(k)} for row in csv.DictReader(file)]
    checkpoints = {
        file.name: {k: v for k, v in load_checkpoint(file).items() if k not in ("log", "versions", "config")}
        for file in sorted((folder / "checkpoints").iterdir())
    }
    evaluation = RunFolder(folder).evaluation
    return {"rows": rows, "checkpoints": checkpoints, "evaluation": evaluation, "events": logged(folder)}


def assert_same(first, second, where=""):
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for i, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}.{i}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, float):
        assert first == second or first != first != second, where  # NaN where no episode has ended
    else:
        assert first == second, where


@pytest.fixture(scope="module")
def config():
    return load(*TINY)


@pytest.fixture
def start(ppo_train, monkeypatch):
    """A function that runs `ppo-train` as several processes and tells the status of the first.

    All are forked from this process, which never meets anybody: what gloo listens with survives no fork.
    """
    ports = iter(range(20_000 + 40 * os.getpid() % 10_000, 32_000))

    def fork(rank, work):
        pid = os.fork()
        if not pid:
            os.environ["RANK"] = str(rank)
            status = 99
            try:
                status = work()
            finally:
                os._exit(status)
        return pid

    def call(processes, *arguments):
        if processes == 1:
            return ppo_train(*arguments).status
        with monkeypatch.context() as patch:
            patch.setenv("MASTER_ADDR", "127.0.0.1")
            patch.setenv("MASTER_PORT", str(next(ports)))
            patch.setenv("WORLD_SIZE", str(processes))
            others = [fork(rank, lambda: ppo_train().status) for rank in range(1, processes)]
            first = fork(0, lambda: ppo_train(*arguments).status)
        assert [os.waitpid(pid, 0)[1] for pid in others] == [0] * len(others)
        return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])

    return call


def test_two_processes_have_the_bits_of_one_also_of_a_run_that_goes_on(start, interrupt, tmp_path):
    typed = (*TINY, *SCALED, INTERRUPTIBLE)
    assert start(1, *typed, "hydra.run.dir=whole") == 0
    interrupt(2)
    assert start(2, *typed, "hydra.run.dir=cut") == 143
    interrupt(None)
    assert start(1, "resume=cut") == 0
    whole, cut = (learnt(tmp_path / name) for name in ("whole", "cut"))
    assert sorted(whole.pop("events")) == sorted(cut.pop("events"))
    assert_same(whole, cut)


CASES = {
    "compiled": ("n_envs=8", "n_steps=32", "total_timesteps=768", "batch_size=128", "compile=true"),
    "compiled sequences": (
        "env=Taxi-v3", "n_envs=8", "n_steps=32", "total_timesteps=768", "batch_size=128",
        "network.memory=lstm", "env.action_mask=true", "compile=true",
    ),
    "compiled images": (
        "env=ALE/Pong-v5", "-preset", "n_steps=16", "n_envs=8", "batch_size=64", "total_timesteps=256",
        "eval.max_steps=60", "compile=true",
    ),
    "a masked LSTM": (
        "env=Taxi-v3", "n_steps=32", "total_timesteps=384", "batch_size=64", "network.memory=lstm",
        "env.action_mask=true",
    ),
    "annealing and a KL stop": (
        "env=LunarLander-v3", "n_steps=64", "total_timesteps=2048", "anneal.clip_ratio.final=0",
        "anneal.learning_rate.final=0", "target_kl=0.003",
    ),
    "everything annealed": (
        "anneal.gamma.final=0.9", "anneal.gae_lambda.final=0.5", "value_lambda=0.9",
        "anneal.value_lambda.final=1", "vf_clip_ratio=0.5", "anneal.vf_clip_ratio.final=0.1",
        "anneal.ent_coef.final=0.1", "anneal.vf_coef.final=1", "anneal.max_grad_norm.final=0.1",
        "target_kl=0.1", "anneal.target_kl.final=0.01", "anneal.learning_rate.warmup=0.5",
    ),
    "a KL that steers": ("anneal.learning_rate.shape=kl", "log.diagnostics=true", "eval.every=1"),
    "normalised": (
        "env=HalfCheetah-v5", "n_envs=4", "n_steps=64", "batch_size=64", "total_timesteps=512", *SCALED
    ),
    "images": (
        "env=ALE/Pong-v5", "-preset", "n_steps=16", "n_envs=8", "batch_size=64", "total_timesteps=256",
        "eval.max_steps=60",
    ),
    "processes of environments": ("vectorization=async", "n_envs=8", *SCALED),
    "a vector entry point": ("vectorization=entry_point", "n_envs=8", "n_steps=32", "total_timesteps=512"),
    "agents of a vector": (
        "env=vector_envs:Worlds", "vectorization=auto", "n_envs=12", "n_steps=32", "batch_size=96",
        "total_timesteps=500", "network.memory=lstm", "eval.every=1",
    ),
    "filler rows": ("vectorization=envpool", "n_envs=8", "n_steps=32", "total_timesteps=512", *SCALED),
    "ragged minibatches, time limits": (
        "env=Pendulum-v1", "n_steps=50", "total_timesteps=1200", "batch_size=48", "use_sde=true",
        "sde_sample_freq=8", "value_loss=two_hot", "freeze=[policy_head]",
    ),
    "Dict observations": ("env=probe_envs:HiddenReward-v0", *SCALED),
    "several actions": ("env=odd_envs:Several-v0", "eval.deterministic=false", "network.memory=gru"),
    "faults": (
        "env=broken_envs:Faulty-v0", "+env.kwargs.mode=raise", "+env.kwargs.at=13", "env.on_error=restart",
        "eval.episodes=0", *SCALED,
    ),
    "stopped": ("total_timesteps=9600", "stop.return=15", "stop.window=4", "eval.every=2"),
    "two shards": ("shards=2", *SCALED),
    "eight shards": ("shards=8", "n_envs=8", "n_epochs=3", *SCALED),
}  # fmt: skip


def start_case(typed, start, processes, folder):
    chosen = {word.partition("=")[0]: word for word in (*TINY, *typed)}
    if "-preset" in chosen:
        del chosen["-preset"], chosen["preset"]
    assert start(processes, *chosen.values(), f"hydra.run.dir={folder}") == 0


@pytest.mark.slow
@pytest.mark.parametrize("typed", CASES.values(), ids=CASES)
def test_any_run_is_the_same_on_several_processes(typed, start, tmp_path):
    several = (2,) if "shards=2" in typed else (2, 4)
    for processes in (1, *several):
        start_case(typed, start, processes, processes)
    one = learnt(tmp_path / "1")
    for processes in several:
        assert_same(one, learnt(tmp_path / str(processes)))


@pytest.mark.slow
def test_a_run_begins_with_the_weights_and_statistics_of_another_on_any_number(start, tmp_path):
    start_case([*SCALED, "shards=1"], start, 1, "source")
    for processes in (1, 2):
        start_case([*SCALED, "init_from=source"], start, processes, processes)
    assert_same(learnt(tmp_path / "1"), learnt(tmp_path / "2"))


@pytest.mark.slow
def test_what_environments_draw_from_global_generators_is_a_shards_own(start, tmp_path):
    for processes in (1, 2):
        start_case(["env=stubborn_envs:Late-v0", "eval.episodes=0"], start, processes, processes)
    one, two = (learnt(tmp_path / name) for name in "12")
    assert_same(one, two)
    assert len(set(one["checkpoints"]["last.pt"]["observations"][:, 1].tolist())) == 4


def program(folder, *typed, **variables):
    """`ppo-train` as a process of its own, in a session of its own."""
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from ppo_cli.cli.entry import train; train()", *typed],
        cwd=folder, env={**os.environ, "PYTHONPATH": path, **variables}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_the_launcher_starts_processes(tmp_path):
    for processes in (1, 4):
        whole = program(tmp_path, *TINY, f"processes={processes}", f"hydra.run.dir={processes}")
        assert whole.communicate(timeout=120)[1] == ""
    assert_same(learnt(tmp_path / "1"), learnt(tmp_path / "4"))


class Process(Collective):
    """One of several processes: what it would send is kept, and the others send zeros."""

    def __init__(self, rank, processes):
        self.rank, self.processes, self.sent = rank, processes, []

    def gather(self, parts):
        self.sent += parts
        nothing = [torch.zeros_like(parts[0])] * len(parts)
        return [*nothing * self.rank, *parts, *nothing * (self.processes - 1 - self.rank)]

    def combine(self, parts, function):
        return function(self.gather(parts))


def learning(**choices):
    """A model, its distribution, and the constants of an update."""
    torch.manual_seed(0)
    spaces = Spaces(Box(-1, 1, (OBSERVATION,)), Discrete(3))
    model = make_actor_critic(*spaces, hidden_sizes=(8,))
    return model, make_distribution(spaces.action_space), Hyperparameters(**choices)


def random_batch(seed, rows=ROWS):
    generator = torch.Generator().manual_seed(seed)
    normal = [torch.randn(rows, generator=generator) for _ in range(4)]
    actions = torch.randint(3, (rows,), generator=generator)
    return Batch(torch.randn(rows, OBSERVATION, generator=generator), actions, *normal)


def minibatches_of(valid, size=8):
    cuts = [sequences(each, 1) for each in valid]
    return list(
        sharded_minibatches(cuts, size, [stream_generator(0, "minibatch", s) for s in range(len(cuts))])
    )


def stepped(step, state, data, minibatches, knobs):
    for minibatch in minibatches:
        state = step(state, data, minibatch, torch.tensor(list(knobs.values())))
    return state


@pytest.mark.parametrize("choices", [{}, {"normalize_advantage": False}])
def test_a_step_in_parts_is_that_of_the_whole_minibatch(choices):
    model, distribution, hyper = learning(**choices)
    batches = [random_batch(seed) for seed in range(SHARDS)]
    valid = [torch.rand(ROWS, 1) < share for share in (1.0, 0.9, 0.5, 0.2)]  # so that parts are unequal
    minibatches = minibatches_of(valid)
    assert {len(part[0]) for minibatch in minibatches for part in minibatch} == {0, 8}  # some have none left
    knobs = KNOBS | {"target_kl": 1e9}
    params = flatten_parameters(model)
    state = first_state(params, hyper.optimizer.init(params, parameter_shapes(model)), hyper)
    sharded = ShardedStep(model, distribution, hyper, tuple(knobs), ALONE)
    data = Data(batches, [each.advantages for each in batches])
    found = stepped(sharded, state, data, minibatches, knobs)
    whole = Batch(*(torch.cat(columns) for columns in zip(*batches, strict=True)))
    step = make_step(model, distribution, hyper, tuple(knobs))
    for minibatch in minibatches:
        rows = torch.cat([indices + ROWS * s for s, (indices, _) in enumerate(minibatch)])
        weights = torch.cat([weights for _, weights in minibatch])
        state = step(state, whole, rows, weights, torch.tensor(list(knobs.values())))
    torch.testing.assert_close(found.params, state.params, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.sums, state.sums, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("processes", [2, 4])
def test_what_a_process_sends_is_what_one_that_has_all_shards_computes(processes):
    model, distribution, hyper = learning()
    batches = [random_batch(seed) for seed in range(SHARDS)]
    advantages = [each.advantages for each in batches]
    (minibatch, *_) = minibatches_of([torch.ones(ROWS, 1, dtype=torch.bool)] * SHARDS)
    params = flatten_parameters(model)
    state = first_state(params, hyper.optimizer.init(params, parameter_shapes(model)), hyper)

    def sent(rank, processes):
        process, own = Process(rank, processes), SHARDS // processes
        step = ShardedStep(model, distribution, hyper, tuple(KNOBS), process)
        data = Data(batches[rank * own : (rank + 1) * own], advantages)
        step(state, data, minibatch, torch.tensor(list(KNOBS.values())))
        return process.sent

    parts = [part for rank in range(processes) for part in sent(rank, processes)]
    assert all(map(torch.equal, parts, sent(0, 1)))
    assert len(parts) == SHARDS


def test_parts_are_added_in_their_order_and_what_has_no_rows_does_not_count():
    parts = [torch.tensor([x]) for x in (1.0, float("nan"), 3.0)]
    assert weighted_sum(parts, [3.0, 0.0, 1.0]).tolist() == [0.75 + 0.75]
    assert weighted_sum(parts[:1], [5.0]).tolist() == [1.0]


def test_statistics_that_waited_are_merged_as_if_they_had_been_taken_in_at_once():
    batches = np.random.default_rng(0).normal(3.0, 2.0, (4, 10, 2))
    at_once, merged, seen = RunningMeanStd((2,)), RunningMeanStd((2,)), RunningMeanStd((2,))
    for batch in batches:
        at_once.update(batch)
        seen.forget()
        merged.merge(seen)  # nothing
        seen.update(batch)
        merged.merge(seen)
    assert merged.count == at_once.count
    np.testing.assert_allclose(merged.mean, at_once.mean)
    np.testing.assert_allclose(merged.var, at_once.var)


def test_nothing_that_has_seen_nothing_stays_finite_in_tensors():
    rows, none = torch.full((3, 2), 7.0), torch.zeros(3, dtype=torch.bool)
    seen = RunningMeanStd((2,))
    seen.take_kind(Tensors(torch.device("cpu")))
    seen.forget()
    seen.update(rows, none)
    assert seen.state_dict()["count"] == 0
    seen.update(rows, ~none)
    assert (seen.mean.tolist(), seen.var.tolist(), float(seen.count)) == ([7.0, 7.0], [0.0, 0.0], 3.0)


def test_global_generators_of_several_go_on_where_each_left_them():
    def drawn(generators):
        with generators:
            return random.random(), np.random.random(), torch.rand(()).item()

    outside = random.getstate()
    first, second = OwnGenerators(1), OwnGenerators(2)
    mixed = [drawn(each) for each in (first, second, first, second)]
    again, other = OwnGenerators(1), OwnGenerators(2)
    assert [drawn(again), drawn(again)] == mixed[::2]
    assert [drawn(other), drawn(other)] == mixed[1::2]
    assert len({*mixed}) == 4
    assert random.getstate() == outside


def test_an_evaluation_in_parts_plays_the_same_episodes(config):
    torch.manual_seed(0)
    make = env_maker(config.env)
    env = make()
    spaces = Spaces(env.observation_space, env.action_space)
    policy = BatchPolicy(make_actor_critic(*spaces), make_distribution(env.action_space), None)
    plan = EvaluationPlan(make, 5, seed=3, deterministic=True)
    whole = evaluate(policy, plan)
    for parts in (2, 3, 7):
        counted = []
        found = evaluate(policy, plan, progress=counted.append, parts=parts)
        assert found == whole
        assert counted[-1] == 5


@pytest.mark.parametrize(("others", "same"), [(0, True), (1, False)])
def test_processes_with_other_weights_are_found_out(others, same):
    model, _, _ = learning()
    own = fingerprint(trained_weights(model))

    class Two(Collective):
        def most(self, number):
            return max(number, (own + others) * (1 if number > 0 else -1))

    run = SimpleNamespace(agent=SimpleNamespace(model=model), shards=SimpleNamespace(collective=Two()))
    with nullcontext() if same else pytest.raises(RunError, match="other weights than each other"):
        compare(run)


def test_weights_that_change_places_have_another_fingerprint():
    weights = torch.arange(5.0)
    assert fingerprint(weights) == fingerprint(weights.clone())
    assert fingerprint(weights) != fingerprint(weights.flip(0))


def test_the_first_shard_draws_what_a_run_that_is_not_cut_does_and_others_draw_something_else():
    assert spawn_seeds(5, "action", 1, 0) == spawn_seeds(5, "action", 1)
    drawn = [stream_generator(5, "action", shard).initial_seed() for shard in range(8)]
    assert len(set(drawn)) == 8


def test_states_of_collectors_are_one_and_come_apart_again():
    states = [
        {"observations": torch.full((2, 3), float(s)), "episodes": {"returns": np.full(2, s), "cut": s},
         "environments": {"kind": "seed", "starts": [s, None]}, "reward_statistics": {"count": 4.0}}
        for s in range(3)
    ]  # fmt: skip
    whole = joined(states)
    assert whole["observations"].shape == (6, 3)
    assert whole["episodes"]["cut"] == 3
    assert whole["environments"] == {"kind": "seed", "starts": [0, None, 1, None, 2, None]}
    parts = split(whole, 3)
    assert [part["episodes"].pop("cut") for part in parts] == [3, 0, 0]
    for part, state in zip(parts, states, strict=True):
        assert part["environments"] == state["environments"]
        assert torch.equal(part["observations"], state["observations"])
    assert joined([{"environments": None}] * 2) == {"environments": None}


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        ({"n_envs": 6}, "shards=4 cuts n_envs=6 into unequal parts: expected a multiple of 4"),
        ({"batch_size": 33}, "shards=4 cuts batch_size=33 into unequal parts: expected a multiple of 4"),
        ({"intrinsic": "rnd"}, "intrinsic=rnd learns from whole rollouts; use shards=1, or intrinsic=none"),
        ({"processes": 3}, "processes=3: expected a divisor of shards=4"),
        ({"hooks": [{"name": "test_hooks.Doubled"}]}, "use shards=1"),
        ({"extra_losses": [{"name": "own_update.noisy", "coef": 1.0}]}, "draws random numbers in the update"),
    ],
)
def test_what_can_not_be_cut_is_refused_in_a_line(config, knobs, line):
    changed = replace(config, **knobs)
    with pytest.raises(ConfigError, match=line) as refused:
        check(changed)
        check_environment(changed, watchdog=False)
    assert "\n" not in str(refused.value)


def test_what_is_refused_leaves_nothing_behind(ppo_train, tmp_path):
    found = ppo_train(*TINY, "extra_losses=[{name: own_update.noisy, coef: 1.0}]")
    assert found.status == 2
    assert "draws random numbers in the update" in " ".join(found.err.split())
    assert not list(tmp_path.iterdir())


def test_processes_that_are_not_there_are_refused(config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="3 processes can't share shards=4"):
        check_environment(config, watchdog=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="processes=2: this run has 4"):
        check_environment(replace(config, processes=2), watchdog=False)


class Untold(Hook):
    """Is told nothing."""


def test_from_python_and_in_sweeps_several_processes_are_a_command_beside(config, tmp_path, monkeypatch):
    begun = []

    class Command(nullcontext):
        returncode = 0

        def __init__(self, words, **settings):
            super().__init__(self)
            begun.append(words)

        def communicate(self):
            return None, self.told

        told = ""

    monkeypatch.setattr(beside.subprocess, "Popen", Command)
    python, wanted = Caller(owns_process=False), replace(config, processes=2)
    assert not runs_beside(config, python)
    assert not runs_beside(wanted, COMMAND)
    assert runs_beside(wanted, python)
    with pytest.raises(ConfigError, match="an object is told of runs of one process"):
        runs_beside(wanted, python._replace(hooks=[Untold()]))
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ConfigError, match="one of 2 processes"):
            runs_beside(config, python)
    assert math.isnan(run_beside(wanted, tmp_path, python))
    assert begun[0][-1] == f"resume='{tmp_path}'"
    assert RunFolder(tmp_path).config == wanted
    Command.returncode, Command.told = 2, "a warning\nppo-train: n_envs=0: it is\n  too few\n"
    with pytest.raises(ConfigError, match=r"^n_envs=0: it is too few$"):
        run_beside(wanted, tmp_path, python)
    Command.returncode = -9
    with pytest.raises(RunError):
        run_beside(wanted, tmp_path, python)


@pytest.mark.slow
def test_from_python_a_run_of_several_processes_has_the_bits_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [ppo_cli.train(*TINY, f"processes={p}", folder=f"{p}", verbose=False) for p in (1, 2)]
    assert_same(*(learnt(run.folder) for run in runs))
    more = [ppo_cli.resume(run, "total_timesteps=256", verbose=False) for run in runs]
    assert_same(*(learnt(run.folder) for run in more))
    assert len(more[1].metrics["step"]) == 4
