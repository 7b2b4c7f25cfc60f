"""The settings of a search: `hydra.sweeper.*`, and what each may be."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ppo_cli.config.schema import ConfigError
from ppo_cli.text import headline, nearest

PREFIX = "hydra.sweeper."
CHOICES = {
    "objective": ("final", "auc"),
    "aggregate": ("mean", "iqm"),
    "sampler": ("tpe", "random", "gp"),
    "pruner": ("median", "percentile", "halving", "hyperband", "none"),
}
AT_LEAST = {"n_trials": 1, "evaluations": 1, "seed": 0}


@dataclass(frozen=True)
class Settings:
    """`hydra.sweeper.*`; `conf/hydra/sweeper/optuna.yaml` says what each means."""

    n_trials: int = 20
    objective: str = "final"
    aggregate: str = "mean"
    evaluations: int = 10
    seed: int = 0
    sampler: str = "tpe"
    sampler_kwargs: dict[str, Any] = field(default_factory=dict)
    pruner: str = "median"
    pruner_kwargs: dict[str, Any] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


def check_typed(overrides: Sequence[str]) -> None:
    """Raises ConfigError where a setting is unknown, or does not go together with a search."""
    known = [item.name for item in fields(Settings)]
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        name = key.removeprefix(PREFIX)
        if key.startswith("hydra/launcher"):
            raise ConfigError(
                f"{override}: a search runs in this process; to share it, type the line that goes on with it "
                "in another terminal"
            )
        if key.startswith(f"{PREFIX}params"):
            raise ConfigError(f"{override}: {PREFIX}params is for files; type what to search as KEY=SWEEP")
        if key.startswith(PREFIX) and name.partition(".")[0] not in known:
            raise ConfigError(
                f"unknown key {key!r} in {override!r}{nearest(name, known)}; known: {', '.join(known)}"
            )


def read_settings(given: object) -> Settings:
    """The settings in a composed ``hydra.sweeper``.

    Raises:
        ConfigError: one is of a wrong type or out of range.
    """
    if not isinstance(given, DictConfig):
        raise ConfigError(f"hydra.sweeper={given}: expected its settings, one by one: {PREFIX}n_trials=20")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.to_container(given))
        settings = Settings(**OmegaConf.to_container(merged))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{PREFIX}{error.full_key}: {headline(error.msg)}") from error
    check_settings(settings)
    return settings


def check_settings(settings: Settings) -> None:
    """Raises ConfigError where a setting is out of range."""
    for name, least in AT_LEAST.items():
        value = getattr(settings, name)
        if value < least:
            raise ConfigError(f"{PREFIX}{name}={value}: expected an integer of at least {least}")
    for name, allowed in CHOICES.items():
        value = getattr(settings, name)
        if value not in allowed:
            raise ConfigError(
                f"{PREFIX}{name}={value}: expected one of {', '.join(allowed)}{nearest(value, list(allowed))}"
            )
