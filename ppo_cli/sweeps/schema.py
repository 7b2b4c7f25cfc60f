"""The settings of our sweepers, `hydra.sweeper.*`, as knobs; their defaults are in ``conf/hydra/sweeper``."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Optional, TypeVar

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ppo_cli.config.checks import check_fields
from ppo_cli.config.knob import Boolean, Integer, describe_type, knob, walk
from ppo_cli.config.schema import COUNT, SEED
from ppo_cli.errors import ConfigError
from ppo_cli.text import nearest

PREFIX = "hydra.sweeper."
SWEEPER = "hydra/sweeper="
OPTUNA = f"{SWEEPER}optuna"
EXTRAS = {  # of launchers and sweepers: what each needs, and the extra that brings it
    "hydra/launcher=joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "hydra/launcher=submitit_local": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "hydra/launcher=submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "hydra/launcher=ray": ("ray", "ray"),
    OPTUNA: ("optuna", "optuna"),
}


@dataclass
class SweepSettings:
    """A sweep's: ``hydra/sweeper=jobs``."""

    max_batch_size: Optional[Integer] = knob(COUNT)  # noqa: UP045 - for OmegaConf on 3.10
    stored: Boolean = knob()
    params: dict[str, str] = knob()


@dataclass
class SearchSettings:
    """A search's: ``hydra/sweeper=optuna``."""

    n_trials: Integer = knob(COUNT)
    objective: str = knob(choices=("final", "auc"))
    aggregate: str = knob(choices=("mean", "iqm"))
    evaluations: Integer = knob(COUNT)
    seed: Integer = knob(SEED)
    sampler: str = knob(choices=("tpe", "random", "gp"))
    sampler_kwargs: dict[str, Any] = knob()
    pruner: str = knob(choices=("median", "percentile", "halving", "hyperband", "none"))
    pruner_kwargs: dict[str, Any] = knob()
    params: dict[str, str] = knob()


SCHEMAS = {"jobs": SweepSettings, "optuna": SearchSettings}
Settings = TypeVar("Settings", SweepSettings, SearchSettings)


def without_swept(overrides: Sequence[Override]) -> list[Override]:
    """The overrides of one value each: what the jobs of a sweep have in common.

    Where ``env.id`` is swept, that no preset is wanted goes with it: it leaves no environment alone.
    """
    swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
    kept = [override for override in overrides if not override.is_sweep_override()]
    return [o for o in kept if not ("env.id" in swept and o.is_delete() and o.key_or_group == "env")]


def check_extras(overrides: Sequence[str]) -> None:
    """Raises ConfigError, which names the extra to install, where a launcher's or a sweeper's is missing."""
    for override in overrides:
        module, extra = EXTRAS.get(override, (None, ""))
        if module and importlib.util.find_spec(module) is None:  # not imported: Ray reads its settings then
            raise ConfigError(f"{override} needs an extra: pip install 'ppo-cli[{extra}]'")


def choose_sweeper(overrides: Sequence[str]) -> list[str]:
    """The overrides, with the sweeper that a ready space, ``search=NAME``, is for."""
    ready = any(override.startswith("search=") for override in overrides)
    if ready and not any(override.startswith(SWEEPER) for override in overrides):
        return [*overrides, OPTUNA]
    return list(overrides)


def check_typed(overrides: Sequence[str]) -> None:
    """Raises ConfigError where a setting is unknown, or does not go together with the sweeper."""
    chosen = ([o.removeprefix(SWEEPER) for o in overrides if o.startswith(SWEEPER)] or ["jobs"])[-1]
    if chosen not in SCHEMAS:  # another's
        return
    known = [item.name for item in fields(SCHEMAS[chosen])]
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.startswith("hydra/launcher") and OPTUNA in overrides:
            raise ConfigError(
                f"{override}: a search runs in this process; to share it, type the line that goes on with it "
                "in another terminal"
            )
        name = key.removeprefix(PREFIX)
        if name.startswith("params") and key.startswith(PREFIX):
            raise ConfigError(f"{override}: type what to vary as a knob, KEY=V1,V2 or KEY=interval(LOW,HIGH)")
        if key.startswith(PREFIX) and name.partition(".")[0] not in known:
            raise ConfigError(
                f"unknown key {key!r} in {override!r}{nearest(name, known)}; known: {', '.join(known)}"
            )


def composed_settings(schema: type[Settings], sweeper: DictConfig) -> Settings:
    """The settings of one kind in a composed ``hydra.sweeper``.

    Raises:
        ConfigError: as `read_settings`.
    """
    own = OmegaConf.masked_copy(sweeper, [item.name for item in fields(schema)])
    plain: dict[str, Any] = OmegaConf.to_container(own)  # type: ignore[assignment]
    return read_settings(schema, plain)


def read_settings(schema: type[Settings], plain: Mapping[str, Any]) -> Settings:
    """Checked settings from plain values; what would be interpolated is not.

    Raises:
        ConfigError: one is missing, unknown, of a wrong type, or out of range.
    """
    known = dict(walk(schema, PREFIX))
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(schema), dict(plain)))
    except OmegaConfBaseException as error:
        key = f"{PREFIX}{error.full_key}"
        expected = f"expected {describe_type(known[key].kind)}" if key in known else "it is no setting"
        raise ConfigError(f"{key}={error.value}: {expected}") from error
    settings = schema(**merged)  # type: ignore[arg-type]
    check_fields(settings, known, PREFIX)
    return settings
