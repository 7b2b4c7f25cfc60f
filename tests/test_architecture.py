"""The rules of the house: its rooms, who may import whom, and how long a reader must read."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import ppo_cli
from ppo_cli.config.comments import knob_comments
from ppo_cli.config.schema import KNOBS
from ppo_cli.trunks import ACTIVATIONS

PACKAGE = Path(ppo_cli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# Every room, a folder or a module of its own, from the top of the house to the ground: each imports from
# lower floors alone.
FLOORS = (
    {"__init__", "__main__"},  # the face, lazy, and `python -m ppo_cli`
    {"api", "cli"},  # from Python; the four commands, and what a terminal shows
    {"report", "sweeps"},  # many runs
    {"runs"},  # the life of a run
    {"trainer"},  # the loop
    {"hooks"},  # who is told of it
    {"shards"},  # the parts of a run
    {"collector"},  # what it learns from
    {"agent", "diagnostics", "export"},
    {"sharded"},  # the update in parts
    {"compiled_step"},
    {"numpy_actor", "parts", "policy", "targets", "update"},
    {"actor_critic", "config", "intrinsic", "value_losses"},
    {"compile", "encoders", "envs", "objectives", "optimizers"},
    {"cache", "distributions", "import_path", "tables", "terminal", "value_heads"},
    {
        "adaptive",
        "advantages",
        "episodes",
        "losses",
        "memory",
        "normalize",
        "rollout",
        "schedules",
        "trunks",
    },
    {"collective", "files", "importing", "names", "seeding", "spaces", "statistics", "stop_signals"},
    {"tensors"},
    {"arrays", "errors", "text", "versions"},
    {"__version__"},
)
PRIVATE = re.compile(r"\b(?:(?:hydra|torch|optuna)(?:\.\w+)*\._[a-z][.\w]+|\w+\._trial_id)")
KNOW_HYDRA = {"cli", "config", "sweeps"}
# The algorithm. Those of `STEPPING` know the environments that the loop steps, the others know none.
STEPPING = {"collector", "shards", "trainer"}
ALGORITHM = STEPPING | {
    "actor_critic", "adaptive", "advantages", "agent", "arrays", "collective", "compile", "compiled_step",
    "diagnostics", "distributions", "encoders", "episodes", "hooks", "intrinsic", "losses", "memory",
    "normalize", "numpy_actor", "objectives", "optimizers", "parts", "policy", "rollout", "schedules",
    "sharded", "targets", "tensors", "trunks", "update", "value_heads", "value_losses",
}  # fmt: skip
SETTINGS_AND_LOGS = ("hydra", "omegaconf", "ppo_cli.config", "tensorboard", "torch.utils.tensorboard")
ENVIRONMENTS = ("gymnasium.vector", "ppo_cli.envs")
# The longest that one reads without losing the thread, docstrings and comments included.
FILE, CLASS, FUNCTION = 400, 200, 60
COMMAND_LINE = 1085  # all of cli/: what a terminal types and sees, and nothing else


@cache
def nodes(module):
    return list(ast.walk(ast.parse(module.read_text())))


@cache
def imported(module):
    """Dotted names that a module imports, anywhere in it."""
    names = []
    for node in nodes(module):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return names


def room(module):
    return module.relative_to(PACKAGE).with_suffix("").parts[0]


def floor(name):
    (found,) = (number for number, rooms in enumerate(FLOORS) if name in rooms)  # each room is on the map
    return found


def each_module(test):
    names = [str(path.relative_to(PACKAGE)) for path in MODULES]
    return pytest.mark.parametrize("module", MODULES, ids=names)(test)


@each_module
def test_imports_lead_down_the_house(module):
    rooms = {name.split(".")[1] for name in imported(module) if name.startswith("ppo_cli.")}
    assert not {each for each in rooms - {room(module)} if floor(each) <= floor(room(module))}


@each_module
def test_only_the_rooms_of_settings_know_hydra(module):
    if room(module) not in KNOW_HYDRA:
        assert not {name.split(".")[0] for name in imported(module)} & {"hydra", "omegaconf"}


@pytest.mark.parametrize("name", sorted(ALGORITHM))
def test_the_algorithm_knows_no_settings_no_log_and_only_the_loop_environments(name):
    forbidden = SETTINGS_AND_LOGS if name in STEPPING else SETTINGS_AND_LOGS + ENVIRONMENTS
    modules = [module for module in MODULES if room(module) == name]
    assert modules
    assert not [found for module in modules for found in imported(module) if found.startswith(forbidden)]


@each_module
def test_what_is_read_at_once_is_short(module):
    assert len(module.read_text().splitlines()) <= FILE
    for node in nodes(module):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= (CLASS if isinstance(node, ast.ClassDef) else FUNCTION), node.name


@each_module
def test_seeds_are_made_in_one_room(module):
    assert room(module) == "seeding" or "SeedSequence" not in module.read_text()


def test_every_private_part_of_a_library_that_is_used_is_listed():
    listed = (PACKAGE.parent / "docs" / "trust.md").read_text().partition("## Private parts")[2]
    for module in MODULES:
        parts = PRIVATE.findall(module.read_text())
        assert not parts or str(module.relative_to(PACKAGE)) in listed, parts
        assert all(part.rpartition(".")[2] in listed for part in parts), parts


def test_the_command_line_is_thin():
    lines = [len(module.read_text().splitlines()) for module in MODULES if room(module) == "cli"]
    assert sum(lines) <= COMMAND_LINE


def test_no_room_is_on_the_map_that_is_not_in_the_house():
    assert set.union(*FLOORS) - {"__version__"} == {room(module) for module in MODULES}


def test_every_knob_has_its_comment():
    comments = knob_comments()
    assert [key for key in KNOBS if key not in comments] == []


def test_the_config_knows_every_activation():
    assert set(KNOBS["network.activation"].choices) == set(ACTIVATIONS)
