"""What a start does no more than it has to: counted, not timed."""

import gc
import json
import os
import subprocess
import sys
import weakref
from contextlib import contextmanager

import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from hydra.plugins.config_source import ConfigLoadError
from omegaconf import OmegaConf

import ppo_cli
from ppo_cli.config import convert
from ppo_cli.config.compose import load
from ppo_cli.config.remembered import FileConfigSource
from ppo_cli.importing import importing
from ppo_cli.runs import start

COUNTED = """
import json, os, sys
from collections import Counter
from ppo_cli.cli.entry import train
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

counts, jobs = Counter(), []

def counted(name, kind, method):
    before = getattr(kind, method)
    def call(*given, **named):
        counts[name] += 1
        return before(*given, **named)
    setattr(kind, method, call)

counted("made", CartPoleEnv, "__init__")
counted("composed", ConfigLoaderImpl, "load_configuration")
counted("typed", OmegaConf, "structured")
load = OmegaConf.load
def loaded(file):
    counts["parsed"] += 1
    return load(file)
OmegaConf.load = staticmethod(loaded)

import ppo_cli.sweeps.sweep as sweep
job = sweep.run_job
def run_job(*given, **named):
    done = job(*given, **named)
    jobs.append(dict(counts))
    counts.clear()
    return done
sweep.run_job = run_job
try:
    train()
finally:
    heavy = {"optuna", "scipy", "matplotlib", "pandas", "sympy", "torch._dynamo", "torch._inductor"}
    with open("counts.json", "w") as file:
        json.dump({"jobs": jobs, "heavy": sorted(heavy & set(sys.modules))}, file)
"""
SMALL = (
    "env=CartPole-v1", "total_timesteps=64", "n_envs=2", "n_steps=32", "batch_size=64", "n_epochs=1",
    "eval.episodes=0", "compile=false", "vectorization=sync",
)  # fmt: skip


@pytest.fixture
def before_pytorch(monkeypatch):
    """As in a process that has not imported PyTorch."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    yield
    gc.unfreeze()


def test_what_a_command_imports_is_left_out_of_collections_and_what_comes_later_is_not(before_pytorch):
    class Node:
        pass

    collected = []
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000
    circle = Node()
    circle.itself = circle
    gc.callbacks.append(lambda phase, info: collected.append(info.get("collected", 0)))
    try:
        del circle
        gc.collect()
    finally:
        gc.callbacks.pop()
    assert sum(collected) >= 1


def test_an_import_that_fails_leaves_collections_as_they_were(before_pytorch):
    with pytest.raises(ModuleNotFoundError), importing():
        raise ModuleNotFoundError
    assert gc.isenabled()


def test_what_lives_in_the_process_of_another_program_or_after_the_start_stays_its_own(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with importing(owns_process=False):
        assert gc.isenabled()
    monkeypatch.setitem(sys.modules, "torch", object())  # it is there: runs may have left garbage by then
    with importing():
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_what_importing_leaves_behind_for_good_holds_no_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made, kept = weakref.WeakSet(), []
    before = CartPoleEnv.__init__

    def make(env, *given, **named):
        made.add(env)
        before(env, *given, **named)

    @contextmanager
    def keeping_frames(*_):  # as the traceback of an exception does
        frame = sys._getframe()
        while frame.f_globals is not globals() or not kept[3:]:
            kept.append(frame)
            frame = frame.f_back
        yield

    monkeypatch.setattr(CartPoleEnv, "__init__", make)
    monkeypatch.setattr(start, "importing", keeping_frames)
    ppo_cli.train(*SMALL)
    gc.collect()
    assert "start_run" in [frame.f_code.co_name for frame in kept]
    assert not list(made)


def test_a_job_of_a_sweep_composes_once_parses_nothing_again_and_makes_no_environment_more(tmp_path):
    """Two environments train, one is tried, and one more tells how they are brought back."""
    subprocess.run(
        [sys.executable, "-c", COUNTED, "-m", *SMALL, "seed=0,1"],
        cwd=tmp_path, capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    found = json.loads((tmp_path / "counts.json").read_text())
    first, second = found["jobs"]
    assert second == {"composed": 1, "made": 4}
    assert first["parsed"] < 20  # each file once, though it composed several times
    assert found["heavy"] == []


def test_what_is_imported_while_a_run_goes_on_draws_from_no_generator_of_the_runs():
    """As it is imported, Rich draws from Python's."""
    program = (
        "import random, ppo_cli.runs.run\nbefore = random.getstate()\n"
        "from ppo_cli.terminal import LiveLine, output_console\n"
        "LiveLine(output_console(), 1, '').stop()\nassert random.getstate() == before"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.fixture
def source(tmp_path):
    """A function that reads a file of configs through our source, as one of two sources that lead to it."""
    (tmp_path / "one.yaml").write_text("# @package _global_\nn_envs: 4\n")

    def read(provider="main"):
        return FileConfigSource(provider, f"file://{tmp_path}").load_config("one")

    return read


def test_a_config_file_that_changes_between_jobs_is_read_again(source, tmp_path):
    file = tmp_path / "one.yaml"
    times = file.stat()
    assert source().config.n_envs == 4
    file.write_text("# @package _group_\nn_envs: 5\n")  # as long, and as old
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert source().config.n_envs == 5
    assert source().header == {"package": "_group_"}
    file.unlink()
    with pytest.raises(ConfigLoadError, match="not found"):
        source()
    file.write_text("n_envs: [\n")
    with pytest.raises(Exception, match=r"one\.yaml"):  # with the place, as Hydra says it
        source()


def test_what_is_done_to_a_config_that_was_read_is_not_seen_by_the_next(source):
    first = source()
    first.config.n_envs = 7
    first.header["package"] = "elsewhere"
    second = source("experiments")
    assert second.config == {"n_envs": 4}
    assert second.header == {"package": "_global_"}
    assert (first.provider, second.provider) == ("main", "experiments")
    assert first.path == second.path


@pytest.mark.parametrize(
    "typed",
    [
        ["env=CartPole-v1", "total_timesteps=1e6", "n_envs=4.0", "network.hidden_sizes=[32.0]"],
        ["env.id=Foo-v0", "+env.kwargs.x={a: [1, null, '1e3']}", "stop.return=1"],
        ["env=LunarLander-v2", "experiment=wide_lander", "network=simba"],
        ["env=CartPole-v1", "seed=${oc.env:SEED}"],
        ["env.id=${device}"],
        ["env=CartPole-v1", r"env.wrappers=[{name: a.b, text: '\${x}'}]"],
    ],
)
def test_a_config_that_hydra_typed_is_what_typing_it_again_makes_of_it(typed, monkeypatch):
    monkeypatch.setenv("SEED", "7")
    config = load(*typed)
    monkeypatch.setattr(convert, "_of_schema", lambda *_: None)
    assert repr(config) == repr(load(*typed))


def test_a_stored_config_is_written_as_omegaconf_writes_it(tmp_path):
    texts = "{a: '1e3', b: 'yes', c: 'a: b', d: '', e: 'é', f: null, g: [1.0e-9, {h: []}]}"
    config = load("env=CartPole-v1", f"+env.kwargs.x={texts}", r"env.wrappers=[{name: a.b, y: '\${x}'}]")
    convert.save_yaml(config, tmp_path / "config.yaml")
    assert (tmp_path / "config.yaml").read_text("utf-8") == OmegaConf.to_yaml(convert.as_omegaconf(config))
