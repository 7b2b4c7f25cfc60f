"""The additions to ppo-cli itself that docs/extending.md shows: each is made to a copy, counted and used.

A fence names a file (`+++ path`), then its hunks, each behind a line `@@`: lines that go (`-`), that come
(`+`) and that stay around them. What stays and goes has to stand in the file once, so that the page is exact.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import FENCE, ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
PRELUDE = """
import json, logging, sys
import numpy as np
import torch
import ppo_cli
from ppo_cli.runs.checkpoint import load_checkpoint

TINY = {
    "total_timesteps": 128, "n_envs": 2, "n_steps": 32, "n_epochs": 2, "batch_size": 32, "compile": False,
    "eval": {"episodes": 1}, "verbose": False,
}


def train(env="CartPole-v1", **knobs):
    return ppo_cli.train(env=env, preset="none", **{**TINY, "vectorization": "sync", **knobs})


def weights(run):
    return load_checkpoint(run.folder / "checkpoints" / "last.pt")["model"]


def same(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refused(**knobs):
    try:
        train(**knobs)
    except ppo_cli.ConfigError as error:
        return str(error)
"""
CONSTANT = """
narrow, wide = (train(target_kl=1e-4, learning_rate=1e-2, kl_margin=margin) for margin in (1.01, 1e6))
found = {
    "default": train().config.kl_margin, "refused": refused(kl_margin=0.5), "acts": not same(narrow, wide),
}
"""
ANNEALED = """
plain, run = train(), train(logit_coef=0.2, anneal={"logit_coef": {"final": 0.0}})
found = {
    "charted": run.metrics["charts/logit_coef"].tolist(), "refused": refused(logit_coef=-1),
    "acts": not same(plain, run),
}
"""
OPTION = """
plain, run = train(), train(network={"residual": True})
model = ppo_cli.load(run).batch.model
observations = torch.ones(2, 4)
with torch.no_grad():
    inner = model.trunk
    expected = torch.tanh(inner.layers[0](observations))
    expected = torch.tanh(inner.layers[1](expected)) + expected
    found = {"acts": torch.allclose(inner(observations), expected), "learns": not same(plain, run)}
found["refused"] = refused(network={"residual": 3})
"""
ACTIVATION = """
run = train(network={"activation": "mish"})
x = torch.linspace(-2, 2, 5)
found = {"acts": torch.equal(ppo_cli.load(run).batch.model.trunk.activation(x), torch.nn.functional.mish(x))}
"""
ACTIONS = """
import gymnasium as gym


class Pick(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(np.array([-1, 3], np.int16), np.array([1, 4], np.int16), dtype=np.int16)
    seen = set()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        assert action.dtype == np.int16 and self.action_space.contains(action)
        Pick.seen.add(tuple(action.tolist()))
        return np.zeros(2, np.float32), float(action[0]), False, False, {}


gym.register("Pick-v0", Pick, max_episode_steps=8)
policy = ppo_cli.load(train("Pick-v0"))
action = policy.act(np.zeros(2, np.float32))
exported = policy.batch.distribution.to_env_module()(torch.tensor([[0, 1], [2, 0]]))
found = {
    "exported": [str(exported.dtype), exported.tolist()],
    "class": type(policy.batch.distribution).__name__, "seen": sorted(Pick.seen),
    "inside": policy.action_space.contains(action),
}
"""
BACKEND = """
found = {
    "same": same(train(vectorization="sync"), train(vectorization="thread")),
    "refused": refused(vectorization="thred"),
    "loaded": "ppo_cli.envs.thread" in sys.modules,
}
"""
TAG = """
run = train()
found = {"rewards": run.metrics["charts/largest_reward"].tolist()}
found["header"] = (run.folder / "metrics.csv").read_text().splitlines()[0]
"""
MINIBATCH_TAG = """
found = {"ratios": train().metrics["losses/largest_ratio"].tolist()}
"""
SHAPE = """
run = train(anneal={"clip_ratio": {"final": 0.0, "shape": "quadratic"}})
found = {"curve": run.metrics["charts/clip_ratio"].tolist()}
"""


def changes(section, number=0):
    """The files that a fence of a section changes, each with its hunks: lines before and after."""
    (text,) = re.findall(rf"^### {section}\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    fence = [block for language, block in FENCE.findall(text) if language == "diff"][number]
    files = {}
    for part in re.split(r"^\+\+\+ ", fence, flags=re.MULTILINE)[1:]:
        name, body = part.split("\n", 1)
        hunks = body.removeprefix("@@\n").removesuffix("\n").split("\n@@\n")
        files[name] = [split(hunk.split("\n")) for hunk in hunks]
    return files


def split(lines):
    assert all(line[:1] in ("", " ", "+", "-") for line in lines)
    before = [line[1:] for line in lines if not line.startswith("+")]
    return before, [line[1:] for line in lines if not line.startswith("-")]


def applied(text, before, after):
    """A file's text with a hunk's lines in place of those that stood there, once."""
    lines = text.split("\n")
    starts = [at for at in range(len(lines)) if lines[at : at + len(before)] == before]
    assert len(starts) == 1, f"{len(starts)} times:\n" + "\n".join(before)
    lines[starts[0] : starts[0] + len(before)] = after
    return "\n".join(lines)


@pytest.fixture
def house(tmp_path):
    """A copy of what the additions change, in which Python finds ppo_cli."""
    copy = tmp_path / "house"
    for name in ("ppo_cli", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "metrics.md", copy / "docs")
    return copy


def build(house, files):
    """Makes an addition."""
    for name, hunks in files.items():
        path = house / name
        if not path.exists():
            ((before, after),) = hunks
            assert not before
            path.write_text("\n".join(after) + "\n")
            continue
        for before, after in hunks:
            path.write_text(applied(path.read_text(), before, after))


def use(house, program):
    """What a program finds that is run with the addition."""
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}{program}print(json.dumps(found))"],
        cwd=house.parent, env={**os.environ, "PYTHONPATH": str(house)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def counted(files):
    """How many files, and places in them."""
    return len(files), sum(len(hunks) for hunks in files.values())


def added(house, section, program, number=0):
    files = changes(section, number)
    build(house, files)
    return counted(files), use(house, program)


def test_a_constant_knob_is_four_places(house):
    count, found = added(house, "A constant knob", CONSTANT)
    assert count == (3, 4)
    assert found["default"] == 1.5
    assert found["refused"].startswith("kl_margin=0.5: expected a value above 1")
    assert found["acts"]


@pytest.mark.slow
def test_an_annealed_knob_is_four_places_and_is_logged(house):
    count, found = added(house, "An annealed knob", ANNEALED)
    assert count == (3, 4)
    assert found["charted"] == pytest.approx([0.2, 0.1])
    assert found["refused"].startswith("logit_coef=-1.0: expected a value from 0")
    assert found["acts"]


@pytest.mark.slow
def test_an_option_of_the_network_is_four_places(house):
    count, found = added(house, "An option of the network", OPTION)
    assert count == (3, 4)
    assert found["acts"] and found["learns"]
    assert "network.residual" in found["refused"]


@pytest.mark.slow
def test_an_activation_is_three_places(house):
    assert added(house, "An option of the network", ACTIVATION, number=1) == ((3, 3), {"acts": True})


@pytest.mark.slow
def test_an_action_space_is_one_file_and_its_line(house):
    count, found = added(house, "An action space", ACTIONS)
    assert count == (2, 3)  # the import of the class is one of them
    assert found["class"] == "IntegerBox"
    assert found["exported"] == ["torch.int16", [[-1, 4], [1, 3]]]
    assert found["seen"] == [[a, b] for a in (-1, 0, 1) for b in (3, 4)]
    assert found["inside"]


@pytest.mark.slow
def test_a_backend_is_one_file_its_line_and_its_word(house):
    count, found = added(house, "A backend", BACKEND)
    assert count == (3, 3)
    assert found["same"] and found["loaded"]
    assert "did you mean 'thread'" in found["refused"]


@pytest.mark.slow
def test_a_tag_is_two_places_and_its_paragraph(house):
    count, found = added(house, "A tag", TAG)
    assert count == (3, 3)
    assert found["rewards"] == [1.0, 1.0]
    assert "charts/cut_episodes,charts/largest_reward," in found["header"]
    assert "### `charts/largest_reward`" in (house / "docs" / "metrics.md").read_text()


@pytest.mark.slow
def test_a_tag_of_every_minibatch_is_two_places_and_its_paragraph(house):
    count, found = added(house, "A tag", MINIBATCH_TAG, number=1)
    assert count == (3, 3)
    assert all(1 <= ratio < 2 for ratio in found["ratios"])


@pytest.mark.slow
def test_a_schedule_shape_is_three_places(house):
    count, found = added(house, "A schedule shape", SHAPE)
    assert count == (2, 3)
    assert found["curve"] == pytest.approx([0.2, 0.05])


def test_every_change_on_the_page_fits_the_files_and_is_used_here(house):
    sections = re.findall(r"^### ([^\n]*)\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    fences = [
        (title, number)
        for title, text in sections
        for number, _ in enumerate(block for language, block in FENCE.findall(text) if language == "diff")
    ]
    used = re.findall(r'added\(house, "(.*?)", \w+(?:, number=(\d))?\)', Path(__file__).read_text())
    assert [(title, int(number or 0)) for title, number in used] == fences
    for fence in fences:
        build(house, changes(*fence))  # all of them, one after the other
