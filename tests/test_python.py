"""The face: what a script or a notebook does with ppo_cli, and that it is what the commands do."""

import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import nbformat
import numpy as np
import pytest
import torch
from gymnasium import spaces
from nbclient import NotebookClient

import ppo_cli
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.seeding import are_drawn_from, global_states

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
TINY = {
    "total_timesteps": 256, "n_envs": 2, "n_steps": 32, "n_epochs": 2, "compile": False,
    "vectorization": "sync", "eval": {"episodes": 2}, "verbose": False,
}  # fmt: skip
TYPED = (
    "total_timesteps=256", "n_envs=2", "n_steps=32", "n_epochs=2", "compile=false", "vectorization=sync",
    "eval.episodes=2",
)  # fmt: skip


class Line(gym.Env):
    """Registered here, as in a notebook: walks along a line."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = float(self.np_random.uniform(-0.1, 0.1))
        return np.array([self.at], np.float32), {}

    def step(self, action):
        self.at += 0.1 if action else -0.1
        return np.array([np.clip(self.at, -1, 1)], np.float32), self.at, abs(self.at) > 0.5, False, {}


class Louder(gym.Wrapper):
    """Pays twice."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, 2 * reward, *rest


class Enough(ppo_cli.Hook):
    """Logs a number of its own, counts, and stops."""

    def __init__(self, after):
        self.after, self.seen = after, 0

    def after_iteration(self, run, scalars):
        self.seen += 1
        scalars["own/seen"] = float(self.seen)
        if self.seen >= self.after:
            run.stop("enough")

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def size_of_logits(terms):
    raise AssertionError("it is replaced")


REPLACED = size_of_logits


def size_of_logits(terms, power=2.0):
    return (terms.logits.abs().pow(power).mean(-1) * terms.weights).sum() / terms.weights.sum()


def weights(folder):
    return load_checkpoint(Path(folder) / "checkpoints" / "last.pt")["model"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_from_python_is_the_command_lines_to_the_bit(ppo_train, here):
    typed = ("env=CartPole-v1", "clip_ratio=0.15", "network=mlp_large", "hydra.run.dir=typed")
    assert ppo_train(*typed, *TYPED).status == 0
    run = ppo_cli.train("env=CartPole-v1", clip_ratio=0.15, network="mlp_large", folder="called", **TINY)
    assert same(weights("typed"), weights(run.folder))
    typed = ppo_cli.read("typed")
    assert typed.evaluation == run.evaluation
    for tag in ("charts/episodic_return", "losses/total_loss"):
        assert np.array_equal(typed.metrics[tag], run.metrics[tag], equal_nan=True)
    files = [
        sorted(path.name for path in Path(name).rglob("*") if "tfevents" not in path.name)
        for name in ("typed", "called")
    ]
    assert files[0] == files[1]


def test_a_run_is_read_evaluated_and_goes_on(here):
    run = ppo_cli.train(env={"id": "CartPole-v1", "kwargs": {"sutton_barto_reward": True}}, **TINY)
    assert run.folder.parent == Path("outputs/CartPole-v1")
    assert run.config.env.kwargs == {"sutton_barto_reward": True}
    assert run.metrics["step"].tolist() == [64, 128, 192, 256]
    assert run.checkpoints == (0, 256)
    assert ppo_cli.evaluate(run) == run.evaluation == ppo_cli.evaluate(ppo_cli.load(run.folder, 256))
    assert len(ppo_cli.evaluate(run, episodes=3, deterministic=False).returns) == 3
    assert re.fullmatch(r"Run\(CartPole-v1, 256 steps, return -?[\d.]+, '.*'\)", repr(run))
    longer = ppo_cli.resume(run, total_timesteps=320, verbose=False)
    assert longer.metrics["step"].tolist() == [64, 128, 192, 256, 320]
    assert longer.folder == run.folder and longer.config.total_timesteps == 320


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"clip_ration": 0.1}, r"unknown key 'clip_ration' .* did you mean 'clip_ratio'"),
        ({"eval": {"episode": 3}}, r"unknown key 'eval.episode'"),
        ({"n_envs": -1}, "n_envs=-1: expected a value from 1 to 65536"),
        ({"env": "CartPol-v1"}, "CartPol"),
        ({"activation": torch.tanh}, "activation"),
        ({"network": {"activation": lambda x: x}}, "defined inside a function: expected one at the top"),
        ({"objective": REPLACED}, "size_of_logits is a lambda, replaced, or defined inside"),
        ({"optimizer": Enough.state_dict}, "Enough.state_dict is a lambda, replaced, or defined inside"),
        ({"hooks": [object()]}, "expected objects of subclasses of ppo_cli.Hook"),
        ({"hooks": ["wandbb"]}, "did you mean 'wandb'"),
        ({"hooks": "wandb"}, "hooks: expected a list of hooks, given 'wandb'"),
        ({"folder": ""}, "is empty: name a folder"),
        ({"extra_losses": [{"name": size_of_logits, "coef": 1, "powr": 3}]}, "takes no option 'powr'"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_a_line_and_leaves_nothing(here, knobs, message):
    with pytest.raises(ppo_cli.ConfigError, match=message) as found:
        ppo_cli.train(**{"env": "CartPole-v1", **TINY, **knobs})
    assert "\n" not in str(found.value)
    assert not list(here.iterdir())


def test_hooks_and_losses_are_given_as_they_are_and_stay_exact(here):
    losses = [{"name": size_of_logits, "coef": 0.01, "power": 3.0}]
    own = {"env": "CartPole-v1", "preset": "none", "extra_losses": losses, **TINY}
    whole = ppo_cli.train(hooks=[Enough(99)], folder="whole", **own)
    part = ppo_cli.train(hooks=[Enough(2)], folder="part", **own)
    assert part.metrics["own/seen"].tolist() == [1, 2]
    assert part.evaluation is not None
    assert whole.config.extra_losses[0]["name"] == f"{__name__}.size_of_logits"
    assert (whole.metrics["losses/size_of_logits"] > 0).all()
    on = ppo_cli.resume(part, hooks=[Enough(99)], total_timesteps=320, verbose=False)
    assert on.metrics["own/seen"].tolist() == [1, 2, 3, 4, 5]
    assert np.array_equal(on.metrics["losses/total_loss"][:4], whole.metrics["losses/total_loss"])


def test_what_a_notebook_defines_is_taken_where_it_is_given_and_not_from_a_file(here, monkeypatch):
    monkeypatch.setattr(size_of_logits, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "size_of_logits", size_of_logits, raising=False)
    losses = [{"name": size_of_logits, "coef": 0.01}]
    run = ppo_cli.train(env="CartPole-v1", extra_losses=losses, **TINY)
    with pytest.raises(ppo_cli.ConfigError, match="or extra_losses given anew where it is yours"):
        ppo_cli.resume(run, total_timesteps=320)
    assert (
        ppo_cli.resume(run, total_timesteps=320, extra_losses=losses, verbose=False).metrics["step"][-1]
        == 320
    )


def test_a_policy_with_what_a_notebook_defines_is_loaded_there(here, monkeypatch):
    monkeypatch.setattr(Louder, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Louder", Louder, raising=False)
    run = ppo_cli.train(env={"id": "CartPole-v1", "wrappers": [{"name": Louder}]}, **TINY)
    assert ppo_cli.evaluate(ppo_cli.load(run)) == run.evaluation
    assert run.evaluation.mean == 2 * np.mean(run.evaluation.lengths)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_environment_that_is_registered_here_works(here, monkeypatch, vectorization):
    monkeypatch.setitem(
        gym.registry, "Line-v0", gym.envs.registration.EnvSpec("Line-v0", Line, max_episode_steps=20)
    )
    run = ppo_cli.train(env="Line-v0", **{**TINY, "vectorization": vectorization})
    policy = ppo_cli.load(run)
    assert policy.act(policy.make_env().reset(seed=0)[0]) in (0, 1)


def test_the_process_around_stays_as_it_is(here):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    threads, drawn = torch.get_num_threads(), global_states()
    torch.set_num_threads(3)
    run = ppo_cli.train(env="CartPole-v1", **TINY)
    ppo_cli.evaluate(ppo_cli.resume(run, total_timesteps=320, verbose=False))
    assert not are_drawn_from(drawn)
    if Path("/proc/self/fd").exists():
        opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        assert not [path for path in opened if path.startswith(str(here))]
    assert torch.get_num_threads() == 3
    torch.set_num_threads(threads)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    assert not logging.getLogger("ppo_cli").handlers
    assert not multiprocessing.active_children()
    assert "256 steps" in (run.folder / "train.log").read_text()


def test_runs_of_several_threads_have_the_bits_of_one_alone(here):
    alone = ppo_cli.train(env="CartPole-v1", folder="alone", **TINY)
    with ThreadPoolExecutor(2) as pool:
        folders = pool.map(lambda name: ppo_cli.train(env="CartPole-v1", folder=name, **TINY).folder, "ab")
        assert all(same(weights(folder), weights(alone.folder)) for folder in folders)


@pytest.mark.slow
def test_a_hydra_application_around_keeps_its_config(here):
    program = f"""
import hydra, ppo_cli
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
store = ConfigStore.instance()
store.store(name="config", node={{"defaults": [{{"env": "small"}}], "seed": 1}})
store.store(group="env", name="small", node={{"k": 1}})

@hydra.main(version_base="1.3", config_name="config", config_path=None)
def main(config):
    own = HydraConfig.get().runtime.output_dir
    ppo_cli.train("env=CartPole-v1", seed=config.seed, folder=f"{{own}}/ppo", **{TINY})
    assert HydraConfig.get().runtime.output_dir == own
    assert HydraConfig.get().job.name == "app"

main()
"""
    Path("app.py").write_text(program)
    arguments = [sys.executable, "app.py", "-m", "seed=1,2", "hydra.sweep.dir=own"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [len(ppo_cli.read(f"own/{job}/ppo").metrics["step"]) for job in (0, 1)] == [4, 4]


def test_a_run_that_is_interrupted_goes_on(here):
    class Interrupting(ppo_cli.Hook):
        def after_checkpoint(self, run, path):
            if run.steps == 128:
                raise KeyboardInterrupt

    own = {"env": "CartPole-v1", **TINY, "checkpoint": {"every": 1}}
    whole = ppo_cli.train(folder="whole", **own)
    with pytest.raises(KeyboardInterrupt):
        ppo_cli.train(folder="cut", hooks=[Interrupting()], **own)
    assert ppo_cli.read("cut").evaluation is None
    assert same(weights(ppo_cli.resume("cut", verbose=False).folder), weights(whole.folder))


def test_a_run_without_an_evaluation_is_evaluated_as_ppo_eval_does(here):
    run = ppo_cli.train(env="CartPole-v1", **{**TINY, "eval": {"episodes": 0}})
    assert run.evaluation is None
    assert len(ppo_cli.evaluate(run).returns) == 20


def test_an_evaluation_is_of_the_policy_that_is_there(here):
    run = ppo_cli.train(env="CartPole-v1", **TINY)
    assert run.evaluation is not None
    again = ppo_cli.resume(run, total_timesteps=512, hooks=[Enough(2)], verbose=False, eval={"episodes": 0})
    assert again.metrics["step"][-1] > run.metrics["step"][-1]
    assert again.evaluation is None


def test_a_checkpoint_that_is_named_is_the_one_or_none(here):
    run = ppo_cli.train(env="CartPole-v1", **TINY, checkpoint={"every": 1})
    file = run.folder / "checkpoints" / f"{run.checkpoints[-2]}.pt"
    assert ppo_cli.load(file).steps == run.checkpoints[-2]
    with pytest.raises(ppo_cli.ConfigError, match="chooses among those of a run"):
        ppo_cli.load(file, "best")
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    file.write_bytes(damaged)
    with pytest.raises(ppo_cli.RunError, match="is damaged"):
        ppo_cli.load(file)


class Squash(torch.nn.Module):
    """An encoder with an option."""


@pytest.mark.parametrize(
    "knobs",
    [
        {"hooks": [{"name": Enough, "after": abs}]},
        {"network": {"encoders": {"observation": {"name": Squash, "act": torch.nn.Tanh}}}},
        {"env": {"id": "CartPole-v1", "wrappers": [{"name": gym.wrappers.TransformReward, "func": abs}]}},
        {"objective": "clip", "objective_kwargs": {"f": abs}},
    ],
)
def test_a_function_as_an_option_is_refused_before_anything_is_written(here, knobs):
    with pytest.raises(ppo_cli.ConfigError, match="expected a number, a text"):
        ppo_cli.train(**{"env": "CartPole-v1", **knobs})
    assert not list(here.iterdir())


def test_an_environment_with_arguments_has_its_preset(here):
    section = {"id": "CartPole-v1", "kwargs": {"sutton_barto_reward": True}}
    found = ppo_cli.train(env=section, **TINY).config
    assert found.env.kwargs == section["kwargs"]
    assert found.learning_rate == ppo_cli.train(env="CartPole-v1", **TINY).config.learning_rate != 3e-4


def test_a_folder_without_a_run_is_said(here):
    for call in (ppo_cli.read, ppo_cli.load, ppo_cli.evaluate, ppo_cli.resume):
        with pytest.raises(ppo_cli.ConfigError, match="nowhere: no run there"):
            call("nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", ""), (b"iteration,step,a/b\n1,64,0.", ""), (b"\xff\xfe", "damaged"),
        (b"a,b\n1,2\n", "no column iteration"), (b"iteration,step\n1,x\n", "damaged"),
        (b"iteration,step\n1\n", "damaged"),
    ],
    ids=["empty", "on its way", "no text", "no columns", "no number", "no cell"],
)  # fmt: skip
def test_a_log_that_has_nothing_yet_is_read_and_a_damaged_one_is_a_line(here, text, message):
    run = ppo_cli.train(env="CartPole-v1", **TINY)
    (run.folder / "metrics.csv").write_bytes(text)
    if not message:
        assert len(ppo_cli.read(run).metrics["step"]) == 0
        assert "0 steps" in repr(ppo_cli.read(run))
        return
    with pytest.raises(ppo_cli.ConfigError, match=message) as found:
        ppo_cli.read(run)
    assert "\n" not in str(found.value)


def test_importing_ppo_cli_brings_nothing_heavy():
    program = (
        "import sys, ppo_cli; heavy = {'torch', 'gymnasium', 'hydra', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy; assert 'train' in dir(ppo_cli); ppo_cli.ConfigError; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_page_is_a_notebook_that_runs(here):
    cells = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    code = [line for cell in cells for line in cell.splitlines() if line.strip()]
    assert len(code) <= 40
    small = [re.sub(r"\b(\d)0_000\b", r"\g<1>_024", cell).replace("100_000", "8_192") for cell in cells]
    small[0] = f"%matplotlib agg\n{small[0]}"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in small])
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(here)}}
    ).execute()
    outputs = [str(output.get("data", output)) for cell in notebook.cells for output in cell.outputs]
    assert any("<progress" in text for text in outputs)
    assert any("Run(CartPole-v1, 2,048 steps" in text for text in outputs)
    assert "error" not in {output.output_type for cell in notebook.cells for output in cell.outputs}
