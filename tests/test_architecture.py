"""The rules of the house: who may import what, and how long a reader must read."""

import ast
from pathlib import Path

import pytest

import ppo_cli
from ppo_cli.actor_critic import ACTIVATIONS
from ppo_cli.cli.help import knob_comments
from ppo_cli.config import CHOICES, knobs

PACKAGE = Path(ppo_cli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
PURE = {
    "agent.py",
    "losses.py",
    "advantages.py",
    "distributions.py",
    "actor_critic.py",
    "schedules.py",
    "optim.py",
}


def imported(module):
    """Dotted names that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_cli_and_config_know_hydra(module):
    names = {name.split(".")[0] for name in imported(module)}
    if "cli" not in module.relative_to(PACKAGE).parts and module.name != "config.py":
        assert not names & {"hydra", "omegaconf"}


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_import_no_environment_and_no_log(name):
    forbidden = ("gymnasium.vector", "torch.utils.tensorboard", "tensorboard", "ppo_cli.envs", "ppo_cli.cli")
    assert not [found for found in imported(PACKAGE / name) if found.startswith(forbidden)]


def test_imports_point_one_way():
    order = ["cli", "trainer", "agent"]  # each may import those after it, never those before
    for position, name in enumerate(order):
        modules = (PACKAGE / name).rglob("*.py") if name == "cli" else [PACKAGE / f"{name}.py"]
        above = [f"ppo_cli.{upper}" for upper in order[:position]]
        for module in modules:
            assert not [found for found in imported(module) if found.startswith(tuple(above) or ("-",))]


def test_every_knob_has_its_comment():
    comments = knob_comments()
    assert [key for key, _ in knobs() if key not in comments] == []


def test_the_config_knows_every_activation():
    assert set(CHOICES["network.activation"]) == set(ACTIVATIONS)
