"""Composition before Hydra runs: every job of a command line is composed and checked, or refused."""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from ppo_cli.config import (
    OPEN,
    Config,
    ConfigError,
    check_type,
    conf_dir,
    explain,
    knobs,
    nearest,
    parse,
    register_schema,
)

GROUPS = ("env", "network", "experiment", "search")


def expand_preset(overrides: Sequence[str]) -> list[str]:
    """Rewrites what chooses a preset into Hydra's own terms.

    ``env=ID`` is a choice of the optional group ``env``: the id, and its preset where there is a file.
    ``preset=none`` makes it ``env.id=ID``; an ``env.id=ID`` without ``env=`` loads no preset: ``~env``.

    Raises:
        ConfigError: ``preset`` is anything but ``none`` or ``auto``.
    """
    presets = [override for override in overrides if override.startswith("preset=")]
    rest = [override for override in overrides if not override.startswith("preset=")]
    for preset in presets:
        if preset not in ("preset=none", "preset=auto"):
            raise ConfigError(
                f"{preset}: expected none (plain defaults) or auto (the environment's own, if there is one); "
                "for the preset of another environment, type env=OTHER env.id=ID"
            )
    if presets and presets[-1] == "preset=none":
        rest = [f"env.id={o[4:]}" if o.startswith("env=") else o for o in rest]
        if not any(override.startswith(("env.id=", "experiment=")) for override in rest):
            rest.append("env.id=CartPole-v1")
    if any(o.startswith("env.id=") for o in rest) and not any(o.startswith("env=") for o in rest):
        rest.append("~env")
    return rest


def compose_jobs(
    overrides: Sequence[str], multirun: bool, config_dir: str | None, config_name: str
) -> list[tuple[list[str], Config]]:
    """The checked config of every job that a command line stands for, each with its own overrides.

    Raises:
        ConfigError: one line on the first thing that is wrong.
    """
    overrides = _with_folder(overrides, config_dir)
    with initialize_config_dir(config_dir=str(conf_dir()), job_name="train", version_base="1.3"):
        parsed = _parse_all(overrides)
        if not multirun:
            _refuse_sweeps(parsed)
        jobs = list(_expand(parsed)) if multirun else [list(overrides)]
        for job in jobs:
            if jobs.count(job) > 1:
                raise ConfigError(f"the sweep has the job {' '.join(job)} twice; a value is listed twice")
        return [(job, parse(_compose(job, config_name))) for job in jobs]


def parse_overrides(overrides: Sequence[str], config_dir: str | None) -> list[Override]:
    """Overrides as Hydra reads them, their keys checked; those of a search may be intervals.

    Raises:
        ConfigError: one line on the first thing that is wrong.
    """
    _with_folder(overrides, config_dir)
    with initialize_config_dir(config_dir=str(conf_dir()), job_name="train", version_base="1.3"):
        return _parse_all(overrides)


def _with_folder(overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """Overrides, and the one that makes Hydra look into a user's folder too."""
    register_schema()
    if config_dir is None:
        return list(overrides)
    directory = Path(config_dir).resolve()
    if not directory.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    for file in directory.rglob("*.yaml"):
        if (conf_dir() / file.relative_to(directory)).exists():
            raise ConfigError(
                f"{file}: ppo-train has a file of that name, which would be taken; give it another one"
            )
    return [*overrides, f"hydra.searchpath=['file://{directory}']"]


def _parse_all(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = [_parse_override(parser, override) for override in overrides]
    for override in parsed:
        _check_override(override)
    return parsed


def _parse_override(parser: OverridesParser, override: str) -> Override:
    try:
        return parser.parse_override(override)
    except HydraException as error:
        raise ConfigError(
            f"can't read {override!r}: expected KEY=VALUE, in quotes where the shell would take a character; "
            f"{' '.join(str(error).split())}"
        ) from error


def _check_override(override: Override) -> None:
    """Refuses a key that is no knob, naming the nearest one, and a value that is not of the knob's type."""
    typed, key = override.input_line, override.key_or_group
    if key in GROUPS and isinstance(override.value(), (dict, type(None))) and not override.is_delete():
        raise ConfigError(f"{typed}: expected a name; to leave out a choice, type ~{key}")
    if key in GROUPS or key.startswith(("hydra/", "hydra.", *OPEN)):
        return
    kinds = dict(knobs())
    if key in kinds:
        if override.is_add() or override.is_force_add() or override.is_delete():
            if f"{key}." in OPEN:
                raise ConfigError(f"{typed}: each is set by its own name, +{key}.NAME=VALUE")
            raise ConfigError(f"{typed}: {key!r} is a knob, which can only be set: {key}=VALUE")
        if not override.is_sweep_override():
            check_type(key, override.value(), str(typed))
        return
    below = [name for name in kinds if name.startswith(f"{key}.")]
    if not below:
        raise ConfigError(
            f"unknown key {key!r} in {typed!r}{nearest(key, [*kinds, *GROUPS])}"
            "; `ppo-train --help` lists every key"
        )
    if not isinstance(override.value(), dict):
        raise ConfigError(f"{typed}: {key!r} is a section; set one of {', '.join(below)}")


def _refuse_sweeps(parsed: Sequence[Override]) -> None:
    for override in parsed:
        if override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line}: several values need a sweep; add -m (or quote a literal comma)"
            )


def _expand(parsed: Sequence[Override]) -> Iterator[list[str]]:
    """Overrides of each job of a sweep."""
    axes = []
    for override in parsed:
        if not override.is_sweep_override():
            axes.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            raise ConfigError(
                f"{override.input_line}: an interval needs a search, hydra/sweeper=optuna; "
                "a sweep takes listed values"
            )
    yield from (list(job) for job in itertools.product(*axes))


def _compose(overrides: Sequence[str], config_name: str) -> DictConfig:
    try:
        composed = compose(config_name, overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(composed)  # what ${hydra:...} reads
        with open_dict(composed):
            composed.env.id = composed.env.id  # a literal, resolved while Hydra's config is at hand
    except MissingConfigException as error:
        raise ConfigError(_missing_choice(error)) from error
    except HydraException as error:
        raise ConfigError(_explain_hydra(error)) from error
    except InterpolationResolutionError as error:
        raise ConfigError("no environment is chosen: type env=ID, or env.id=ID for no preset") from error
    except (YAMLError, OSError) as error:
        raise ConfigError(f"a config file can't be read: {' '.join(str(error).split())}") from error
    return composed


def _missing_choice(error: MissingConfigException) -> str:
    text = str(error)
    found = re.search(r"Could not find '(?P<group>.+)/(?P<name>[^/']+)'", text)
    if found is None or error.options is None:
        return " ".join(text.split())
    group, name = found["group"], found["name"]
    return f"{group}={name}: expected one of {', '.join(error.options)}{nearest(name, list(error.options))}"


def _explain_hydra(error: HydraException) -> str:
    cause = error.__cause__
    text = " ".join(str(error).split())
    if isinstance(cause, OmegaConfBaseException):
        key = str(cause.full_key or "")
        for section, what in OPEN.items():
            if key.startswith(section):
                return f"unknown key {key!r}: {what} takes a plus, +{key}=VALUE"
        return explain(cause)
    unknown = re.search(r"In '(?P<file>[^']+)'.*Key '(?P<key>[^']+)' not in", text)
    if unknown is not None:
        names = [name for knob, _ in knobs() for name in (knob, knob.rpartition(".")[2])]
        return f"unknown key {unknown['key']!r} in {unknown['file']}.yaml{nearest(unknown['key'], names)}"
    return text
