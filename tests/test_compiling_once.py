"""A library is compiled once: for all sizes of a rollout, among all runs, and beside a run that begins."""

import errno
import fcntl
import itertools
import logging
import multiprocessing as mp
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from gymnasium import spaces

from ppo_cli import cache, compiled_step, update
from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.agent import PPOAgent
from ppo_cli.cache import Turn
from ppo_cli.compile import compile_ahead, compile_function, library
from ppo_cli.compile.sizes import Axis
from ppo_cli.distributions import make_distribution
from ppo_cli.rollout import Rollout
from ppo_cli.schedules import Schedule

ANY = [Axis("rows", 2)] * 2
KNOBS = ("learning_rate", "clip_ratio", "ent_coef", "vf_coef", "max_grad_norm")


def rows_of(length):
    return [torch.ones(length, 2), torch.ones(length, 2)]


def add(x, y):
    return (x + y,)


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """What compiles and loads is a fake; the processes that compiled, one a line, and the folder."""
    log = tmp_path / "log"
    log.touch()
    done = SimpleNamespace(folder=tmp_path / "cache", during=lambda: None, given=[])

    def build(function, examples, axes, work):
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        done.given.append([tuple(example.shape) for example in examples])
        done.during()
        (work / "library.pt2").write_bytes(b"a library")
        return work / "library.pt2"

    monkeypatch.setattr(library, "build", build)
    monkeypatch.setattr(library, "_load", lambda package: lambda inputs: inputs)
    monkeypatch.setattr(library, "_begun", set())
    done.by = lambda: [int(line) for line in log.read_text().split()]
    return done


def agent_for(n_envs, batch_size, length, folder, shards=1):
    torch.manual_seed(0)
    memory = {"memory": "gru", "memory_size": 4} if length > 1 else {}
    actions = spaces.Discrete(3)
    return PPOAgent(
        make_actor_critic(spaces.Box(-1, 1, (5,)), actions, hidden_sizes=(8,), **memory),
        make_distribution(actions),
        update.Hyperparameters(batch_size=batch_size, n_epochs=1, sequence_length=length),
        {name: Schedule(0.1) for name in (*KNOBS, "gamma", "gae_lambda")},
        [torch.Generator() for _ in range(shards)], n_envs, torch.device("cpu"), folder,
    )  # fmt: skip


def learn_once(n_steps, n_envs, batch_size, length, folder, monkeypatch, ahead=False, shards=1):
    """One update by the agent itself, with a step that leaves everything as it was."""
    agent = agent_for(n_envs, batch_size, length, folder, shards)
    n_leaves = len(update.state_leaves(update.first_state(agent._params, agent.optimizer, agent.hyper)))
    part = torch.zeros(len(agent._params) + len(agent.hyper.metrics) - 1)

    def step(inputs):  # of a run in shards, either half of it
        return inputs[:n_leaves] if shards == 1 or len(inputs) == n_leaves + 2 else [part]

    monkeypatch.setattr(library, "_load", lambda package: step)
    rollout = Rollout(
        n_steps, n_envs, (5,), torch.float32, (), torch.int64, state_size=agent.model.state_size
    )
    if ahead:
        agent.compile_ahead(rollout)
    agent.update([agent.compute_gae(rollout)] * shards, [rollout.valid] * shards)


@pytest.mark.parametrize("length", [1, 4], ids=["rows", "sequences"])
def test_a_search_over_the_sizes_of_a_rollout_compiles_once(compiled, monkeypatch, length):
    sizes = [*itertools.product((16, 23, 128), (1, 4), (64,)), (128, 4, 256), (64, 4, 10**6), (23, 4, 92)]
    for n_steps, n_envs, batch_size in sizes:  # some batches are larger than the rollout, some end in pads
        if length > 1 and -(-n_steps // length) * n_envs < compiled_step.FEW // length:
            continue
        learn_once(n_steps, n_envs, batch_size, length, compiled.folder, monkeypatch)
    assert len(compiled.by()) == 1


def test_fewer_rows_than_that_compile_for_themselves_and_once_each(compiled, monkeypatch):
    for _ in range(2):
        for n_steps, batch_size in ((8, 64), (8, 4), (15, 64), (32, 8), (32, 16), (64, 16)):
            learn_once(n_steps, 1, batch_size, 1, compiled.folder, monkeypatch)
    assert len(compiled.by()) == 5  # the last two share theirs


def test_two_runs_at_once_compile_once_and_the_one_that_waits_says_so(compiled, caplog):
    begun = threading.Barrier(2, timeout=20)
    compiled.during = lambda: (begun.wait(), time.sleep(0.2))
    first = threading.Thread(target=compile_function, args=(add, rows_of(4), compiled.folder))
    first.start()
    begun.wait()
    with caplog.at_level(logging.INFO, "ppo_cli"):
        compile_function(add, rows_of(4), compiled.folder)
    first.join()
    assert compiled.by() == [os.getpid()]
    assert caplog.messages == ["another process compiles the same update: waiting for it"]
    assert [path.suffix for path in compiled.folder.iterdir()] == [".pt2"]


def hold_turn(folder, taken):
    turn = Turn("name", folder)
    turn.take()
    taken.set()
    time.sleep(60)


def test_a_process_that_dies_while_it_compiles_leaves_the_turn_to_the_next(tmp_path):
    context = mp.get_context("fork")
    taken = context.Event()
    holder = context.Process(target=hold_turn, args=(tmp_path, taken))
    holder.start()
    assert taken.wait(20)
    turn = Turn("name", tmp_path)
    assert not turn.take()
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with turn:
        turn.wait(quietly=True)
        assert turn.is_held
    assert list(tmp_path.iterdir()) == []


def test_who_waits_too_long_compiles_and_says_so(compiled, monkeypatch, caplog):
    monkeypatch.setattr(cache, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(Turn, "take", lambda turn: False)
    compile_function(add, rows_of(4), compiled.folder)
    assert len(compiled.by()) == 1
    assert "took longer than 0 s" in caplog.text


def test_an_interrupt_ends_the_wait(compiled, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(Turn, "take", lambda turn: False)
    monkeypatch.setattr(cache.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compile_function(add, rows_of(4), compiled.folder)
    assert compiled.by() == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES])
def test_where_files_can_not_be_locked_everybody_compiles(compiled, monkeypatch, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    compile_ahead(add, rows_of(4), compiled.folder, ANY)  # nobody could wait for it
    compile_function(add, rows_of(4), compiled.folder, ANY)
    assert compiled.by() == [os.getpid()]


def test_where_there_are_no_such_locks_it_compiles(compiled, monkeypatch):
    monkeypatch.setattr(cache, "fcntl", None)
    compile_function(add, rows_of(4), compiled.folder)
    assert compiled.by() == [os.getpid()]


def test_a_process_beside_compiles_what_the_first_update_waits_for(compiled, monkeypatch, caplog):
    compiled.during = lambda: time.sleep(0.2)
    with caplog.at_level(logging.INFO, "ppo_cli"):
        learn_once(32, 2, 16, 1, compiled.folder, monkeypatch, ahead=True)
        learn_once(16, 4, 32, 1, compiled.folder, monkeypatch, ahead=True)  # is there already
    (by,) = compiled.by()
    assert by != os.getpid()
    assert caplog.messages == []
    assert len(list(compiled.folder.glob("*.pt2"))) == 1
    assert compiled.given == []  # not in this process


def test_both_halves_of_a_run_in_shards_are_compiled_beside_it(compiled, monkeypatch, caplog):
    with caplog.at_level(logging.INFO, "ppo_cli"):
        learn_once(32, 2, 32, 1, compiled.folder, monkeypatch, ahead=True, shards=2)
    first, second = compiled.by()
    assert len({first, second, os.getpid()}) == 3
    assert caplog.messages == []


def test_frozen_weights_that_may_still_be_replaced_are_not_compiled_beside(compiled):
    agent = agent_for(2, 16, 1, compiled.folder)
    next(agent.model.parameters()).requires_grad_(False)
    agent.compile_ahead(Rollout(32, 2, (5,), torch.float32, (), torch.int64))
    assert list(compiled.folder.glob("*")) == []  # nobody has begun


def test_a_process_beside_that_fails_costs_no_run(compiled):
    parent = os.getpid()

    def fail_beside():
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    compiled.during = fail_beside
    compile_ahead(add, rows_of(4), compiled.folder, ANY)
    inputs = rows_of(4)
    assert compile_function(add, rows_of(4), compiled.folder, ANY)(inputs) is inputs
    assert compiled.by()[-1] == parent
    assert len(compiled.by()) == 2


def test_nothing_is_compiled_beside_that_is_for_one_length_alone(compiled):
    compile_ahead(add, rows_of(1), compiled.folder, ANY)
    compile_ahead(add, rows_of(4), compiled.folder, [])
    assert compiled.by() == []
    assert not compiled.folder.exists()


def test_the_processor_is_what_it_can_do_in_whatever_order_it_says_so(monkeypatch):
    from ppo_cli.compile import fingerprint

    said = []
    for flags in ("fpu avx2 sse", "sse fpu avx2"):
        text = f"processor : 0\nflags\t\t: {flags}\nprocessor : 1\nflags\t\t: {flags}\n"
        monkeypatch.setattr(Path, "read_text", lambda path, encoding, text=text: text)
        said.append(fingerprint._processor())
    assert said[0] == said[1] == "avx2 fpu sse"
