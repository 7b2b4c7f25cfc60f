"""What ``init_from`` names: an earlier run's weights and statistics, found and read.

A source may come from anybody. Nothing of it is imported or run: weights and statistics are tensors that load
with ``weights_only=True``, and of the config beside them a few words and switches are compared.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ppo_cli.config.idle import default_values
from ppo_cli.config.quoting import typed_path
from ppo_cli.errors import ConfigError
from ppo_cli.files import printable
from ppo_cli.runs.checkpoint import CheckpointError, digest, load_run
from ppo_cli.runs.checkpoint_schema import Checkpoint
from ppo_cli.runs.folder import RunFolder, run_of
from ppo_cli.runs.sb3 import read_sb3
from ppo_cli.text import flat

# The knobs that say what network has the weights, and what becomes of what it computes.
SETTINGS = (
    "network.hidden_sizes", "network.activation", "network.layer_norm", "network.trunk", "network.shared",
    "network.log_std", "network.log_std_init", "network.log_std_min", "network.log_std_max", "network.memory",
    "network.memory_size", "network.actor.observations", "network.critic.observations",
    "network.critic.hidden_sizes", "network.encoders", "network.critic.encoders", "use_sde", "squash_actions",
    "box_policy", "action_bins", "value_loss", "normalize.values", "intrinsic",
)  # fmt: skip
# The knobs that say, as far as a config does, which leaves of which spaces they are of.
TASK = ("env.id", "env.kwargs", "env.wrappers", "network.actor.observations", "network.critic.observations")
_PARTS = re.compile(r"(?P<path>.*?)(:(?P<which>best|last|\d{1,16}))?(@(?P<weights>[0-9a-f]{12}))?", re.DOTALL)
LISTS = {"jobs.json": "sweep", "search.json": "search"}  # beside the runs of one


@dataclass(frozen=True)
class Source:
    """Weights and statistics to begin with.

    Attributes:
        name: What ``config.yaml`` calls it: where it was found, the steps, and the beginning of a digest of
            the contents, by which it is the same for ever.
        weights: The weights by name.
        settings: The values of some of `SETTINGS` and `TASK`, by dotted name.
        steps: The environment steps that it was trained for.
        observations: The observation normaliser's statistics; None where there is none.
        rewards: The reward normaliser's statistics; None where there is none.
        is_ours: Whether it is a run of ours, and not a file of Stable-Baselines3's, which has no statistics.
    """

    name: str
    weights: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    steps: int
    observations: Mapping[str, Any] | None = None
    rewards: Mapping[str, Any] | None = None
    is_ours: bool = True


def find_source(typed: str) -> Source:
    """What a text names: ``RUN``, ``RUN:best``, ``RUN:last``, ``RUN:STEPS``, or a file.

    Behind it may stand ``@`` and the beginning of a digest, as a run's config has it: then what is found must
    have those contents.

    Raises:
        ConfigError: there is no such source, or it is damaged; one line.
    """
    try:
        path, which, expected = _split(typed)
        source = _read(path, which)
    except (CheckpointError, ConfigError, OSError) as error:
        raise ConfigError(f"init_from={typed}: {printable(flat(error))}") from error
    if expected is not None and not source.name.endswith(f"@{expected}"):
        raise ConfigError(
            f"init_from={typed}: other weights lie there than @{expected}; leave that out to take these"
        )
    return source


def is_same_source(typed: str | None, stored: str | None) -> bool:
    """Whether a typed text names what a run's config has stored for it, as far as the texts say."""
    if typed == stored or typed is None or stored is None:
        return typed == stored
    (path, which, weights), (stored_path, steps, stored_weights) = _split(typed), _split(stored)
    home = path.parent.parent if path.parent.name == RunFolder.checkpoints.name else path
    return (
        stored_path in (path, home)
        and (which in (None, "best", "last") or which == steps)
        and weights in (None, stored_weights)
    )


def of_checkpoint(saved: Checkpoint, name: str) -> Source:
    """What a run's checkpoint holds of its policy."""
    return Source(
        name,
        saved.model,
        settings_in(saved.config),
        saved.steps,
        saved.observation_statistics,
        saved.reward_statistics,
    )


def settings_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `SETTINGS` and `TASK` in a stored config; younger knobs have their defaults."""
    defaults = {**dict.fromkeys(TASK), **{key: _lookup(default_values(), key) for key in SETTINGS}}
    return {key: _lookup(config, key, default) for key, default in defaults.items()}


def _split(typed: str) -> tuple[Path, str | None, str | None]:
    found = _PARTS.fullmatch(typed)
    assert found is not None  # since it may be nothing but a path
    if typed_path(typed).exists():  # a name that happens to end so
        return typed_path(typed), None, None
    return typed_path(found["path"]), found["which"], found["weights"]


def _read(path: Path, which: str | None) -> Source:
    if path.is_dir():
        return _of_run(path, which)
    if which is not None and path.is_file():
        raise ConfigError(f":{which} chooses among the checkpoints of a run, and {path} is a file")
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such folder or file; expected a run's folder, with :best, :last or :STEPS, a "
            "checkpoint file, or a .zip of Stable-Baselines3's"
        )
    if path.suffix == ".zip":
        found = read_sb3(path)
        name = f"{path}@{_weights_digest(found.weights, None, None)}"
        return Source(name, found.weights, found.settings, found.steps, is_ours=False)
    saved, run = load_run(path), run_of(path)
    return _named(saved, str(path) if run is None else f"{run.path}:{saved.steps}")


def _of_run(path: Path, which: str | None) -> Source:
    run = RunFolder(path)
    for name, kind in LISTS.items():
        if not run.is_run and (path / name).is_file():
            raise ConfigError(f"{path} is the folder of a {kind}: name one run in it{_first_run(path)}")
    run.check()
    saved = _at_steps(run, int(which)) if which is not None and which.isdigit() else None
    if saved is None:
        saved = load_run(run.find_checkpoint(which or "last"))
    return _named(saved, f"{path}:{saved.steps}")


def _at_steps(run: RunFolder, steps: int) -> Checkpoint | None:
    """The best checkpoint, where it is of those steps and the one of that name is not kept any more."""
    best = run.checkpoint("best")
    if run.checkpoint(steps).is_file() or not best.is_file():
        return None
    saved = load_run(best)
    return saved if saved.steps == steps else None


def _first_run(folder: Path) -> str:
    runs: Iterable[Path] = sorted(file.parent for file in folder.glob("*/config.yaml"))
    return next((f", such as {run}" for run in runs), "")


def _named(saved: Checkpoint, place: str) -> Source:
    """A checkpoint as a source.

    Args:
        saved: The checkpoint.
        place: Where it lies, which begins its name.
    """
    weights = _weights_digest(saved.model, saved.observation_statistics, saved.reward_statistics)
    return of_checkpoint(saved, f"{place}@{weights}")


def _weights_digest(*contents: Any) -> str:  # noqa: ANN401
    return digest(list(contents))[:12]


def _lookup(values: Any, key: str, otherwise: Any = None) -> Any:  # noqa: ANN401
    """A value by its dotted name in nested mappings of anybody's, or what it is otherwise."""
    for part in key.split("."):
        if not (isinstance(values, Mapping) and part in values):
            return otherwise
        values = values[part]
    return values
