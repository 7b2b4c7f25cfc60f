"""Composition before Hydra runs: every job of a command line is composed and checked, or refused."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError

from ppo_cli.config.convert import as_omegaconf, check_type, parse
from ppo_cli.config.explain import composing
from ppo_cli.config.overrides import GROUPS, read_line, read_override, text_of
from ppo_cli.config.presets import take_successors_preset
from ppo_cli.config.quoting import typed_path
from ppo_cli.config.schema import KNOBS, Config, conf_dir, is_entry
from ppo_cli.config.user_files import search_path
from ppo_cli.errors import ConfigError
from ppo_cli.text import nearest

Word = str | Override  # an override, as it is typed or as it is read


ELSEWHERE = {  # names of Stable-Baselines3, CleanRL and other tools
    "environment": "env", "env_id": "env", "lr": "learning_rate", "clip_range": "clip_ratio",
    "clip_coef": "clip_ratio", "clip_range_vf": "vf_clip_ratio", "num_envs": "n_envs", "num_steps": "n_steps",
    "update_epochs": "n_epochs", "n_timesteps": "total_timesteps", "total_steps": "total_timesteps",
    "entropy_coef": "ent_coef", "value_coef": "vf_coef", "lam": "gae_lambda",
}  # fmt: skip


@dataclass(frozen=True)
class Composed:
    """A job, composed once.

    Attributes:
        config: The checked config of the job.
        whole: The config that Hydra composed, its own settings included.
    """

    config: Config
    whole: DictConfig


def load(*words: str, config_dir: str | None = None, config_name: str = "config") -> Config:
    """The checked config of a run.

    Args:
        *words: Overrides as they are typed, such as ``env=CartPole-v1``.
        config_dir: A folder of the user's own files, or None.
        config_name: The name of the primary config.

    Raises:
        ConfigError: One line on the first thing that is wrong.
    """
    return compose_run(read_line(words).overrides, config_dir, config_name).config


def compose_run(overrides: Sequence[Word], config_dir: str | None, config_name: str) -> Composed:
    """What one run's overrides compose to, checked.

    Raises:
        ConfigError: One line on the first thing that is wrong.
    """
    with _composer(overrides, config_dir) as parsed:
        _refuse_sweeps(parsed)
        whole = _compose([text_of(override) for override in parsed], config_name)
        return Composed(parse(whole), whole)


def compose_jobs(
    overrides: Sequence[Word], config_dir: str | None, config_name: str
) -> list[tuple[list[str], Config]]:
    """The checked config of every job of a sweep, each with its own overrides.

    Raises:
        ConfigError: One line on the first thing that is wrong.
    """
    with _composer(overrides, config_dir) as parsed:
        jobs = list(_expand(parsed))
        if not jobs:
            raise ConfigError("the sweep has no job: a key lists no value")
        for job in jobs:
            if jobs.count(job) > 1:
                raise ConfigError(f"the sweep has the job {' '.join(job)} twice; a value is listed twice")
        return [(job, parse(_compose(job, config_name))) for job in jobs]


def compose_job(overrides: Sequence[Word], config_dir: str | None, config_name: str) -> DictConfig:
    """What one command line composes to, Hydra's own settings included, its knobs not checked.

    Raises:
        ConfigError: It can't be composed.
    """
    with _composer(overrides, config_dir) as parsed:
        _refuse_sweeps(parsed)
        whole = _compose([text_of(override) for override in parsed], config_name)
        with open_dict(whole):
            whole.env.id = whole.env.id  # a literal, resolved while Hydra's config is at hand
        return whole


@contextmanager
def _composer(overrides: Sequence[Word], config_dir: str | None) -> Iterator[list[Override]]:
    """Hydra, ready to compose; gives the overrides as it reads them, checked, with the user's folder."""
    read = [read_override(word) if isinstance(word, str) else word for word in overrides]
    own = [read_override(word) for word in search_path([text_of(word) for word in read], config_dir)]
    with composing(), initialize_config_dir(str(conf_dir()), "train", "1.3"):
        for override in read:
            override.config_loader = (
                GlobalHydra.instance().config_loader()
            )  # in which glob() looks for choices
            _check_override(override)
        yield [*read, *own]


def given_folder(section: Literal["run", "sweep"]) -> Path | None:
    """``hydra.run.dir`` or ``hydra.sweep.dir`` of the job that was composed last; None where it is auto.

    Raises:
        ConfigError: it can't be resolved, or is empty.
    """
    with composing():
        typed = str(getattr(HydraConfig.get(), section).dir)
    if not typed.strip():
        raise ConfigError(f"hydra.{section}.dir= is empty: name a folder, or . for this one")
    return None if typed == "auto" else typed_path(typed)


def fixed_folder(section: Literal["run", "sweep"]) -> Path:
    """`given_folder`, for ``resume=auto``.

    Raises:
        ConfigError: it is auto, or another one each time.
    """
    folder = given_folder(section)
    raw = OmegaConf.to_container(getattr(HydraConfig.get(), section))
    if folder is None or "${now:" in str(raw):
        example = "hydra.run.dir=outputs/NAME" if section == "run" else "hydra.sweep.dir=outputs/sweeps/NAME"
        raise ConfigError(f"resume=auto needs a folder that is the same each time: type {example} too")
    return folder


def parse_overrides(overrides: Sequence[Word], config_dir: str | None) -> list[Override]:
    """Overrides as Hydra reads them, their keys checked; those of a search may be intervals.

    Raises:
        ConfigError: One line on the first thing that is wrong.
    """
    with _composer(overrides, config_dir) as parsed:
        return parsed[: len(overrides)]


def _check_override(override: Override) -> None:
    """Refuses a key that is no knob, naming the nearest one, and a value that is not of the knob's type."""
    typed, key = override.input_line, override.key_or_group
    chosen = _is_group(key) and not (override.is_delete() or override.is_sweep_override())
    if chosen and not isinstance(override.value(), (str, int, float, bool)):
        raise ConfigError(f"{typed}: expected a name, and one only; to leave out a choice, type ~{key}")
    if key in GROUPS or key.startswith(("hydra/", "hydra.")) or is_entry(key):
        return
    if key in KNOBS:
        if override.is_add() or override.is_force_add() or override.is_delete():
            if KNOBS[key].entries:
                raise ConfigError(f"{typed}: each is set by its own name, +{key}.NAME=VALUE")
            raise ConfigError(f"{typed}: {key!r} is a knob, which can only be set: {key}=VALUE")
        if not override.is_sweep_override():
            check_type(key, override.value(), str(typed))
        return
    below = [name for name in KNOBS if name.startswith(f"{key}.")]
    if not below:
        raise ConfigError(
            f"unknown key {key!r} in {typed!r}{nearest(_as_here(key), [*KNOBS, *GROUPS])}"
            "; `ppo-train --help` lists every key"
        )
    if not isinstance(override.value(), dict):
        raise ConfigError(f"{typed}: {key!r} is a section; set one of {', '.join(below)}")


def _as_here(key: str) -> str:
    """A key with the names that knobs have here in place of those that they have elsewhere."""
    return ".".join(ELSEWHERE.get(part, part) for part in key.split("."))


def _is_group(key: str) -> bool:
    return key in GROUPS or key.startswith("hydra/")


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
    composed = compose(config_name, overrides=list(overrides), return_hydra_config=True)
    if take_successors_preset(composed.hydra):
        composed = compose(config_name, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(composed)  # what ${hydra:...} reads
    _check_hydra(composed.hydra)
    try:
        _ = composed.env.id  # which resolves it
    except InterpolationResolutionError as error:
        if "runtime.choices" not in str(error):
            raise
        raise ConfigError("no environment is chosen: type env=ID, or env.id=ID for no preset") from error
    return composed


def _check_hydra(hydra: DictConfig) -> None:
    """Raises ConfigError where a setting of Hydra's, typed or in a file, is none for ppo-train."""
    if hydra.job.chdir:
        raise ConfigError(
            "hydra.job.chdir=true: ppo-train stays in the folder where it was started, so that paths mean "
            "what they say; leave it out"
        )
    for name in ("launcher", "sweeper"):
        if not OmegaConf.is_dict(hydra[name]):
            raise ConfigError(
                f"hydra.{name}={hydra[name]}: expected its settings, one by one; hydra/{name}=NAME chooses it"
            )
    for name in ("job_logging", "hydra_logging"):
        _check_levels(f"hydra.{name}", OmegaConf.to_container(hydra[name]))
    if hydra.mode is not None and hydra.mode.name == "MULTIRUN":
        raise ConfigError("hydra.mode=MULTIRUN in a config file: leave it out, and type -m for a sweep")


def _check_levels(key: str, settings: Any) -> None:  # noqa: ANN401
    """Raises ConfigError where a level is none, in settings as `logging.config.dictConfig` takes them."""
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if name == "level" and not isinstance(value, int) and logging.getLevelName(value) == f"Level {value}":
            raise ConfigError(f"{key}.level={value}: expected DEBUG, INFO, WARNING, ERROR or CRITICAL")
        _check_levels(f"{key}.{name}", value)


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """The config with knobs changed, each by an override of one value.

    Raises:
        ConfigError: a key is no knob, or a value can't be taken.
    """
    changed = as_omegaconf(config)
    for typed in overrides:
        override = read_override(typed)
        key = override.key_or_group
        if override.is_sweep_override():
            raise ConfigError(f"{typed}: resume= goes on with one run, which takes one value")
        if key not in KNOBS and not is_entry(key):
            raise ConfigError(
                f"unknown key {key!r} in {typed!r}{nearest(key, list(KNOBS))}; "
                "resume= takes knobs, not groups"
            )
        if override.is_delete():
            _remove(changed, key, typed)
            continue
        if key in KNOBS:
            check_type(key, override.value(), typed)
        with composing():
            OmegaConf.update(changed, key, override.value(), merge=False, force_add=True)
    return parse(changed)


def _remove(config: DictConfig, key: str, typed: str) -> None:
    """Takes an option of the user's own out of a config.

    Raises:
        ConfigError: it is a knob, or there is none.
    """
    section, _, name = key.rpartition(".")
    given = OmegaConf.select(config, section) if key not in KNOBS else None
    if not isinstance(given, DictConfig) or name not in given:
        raise ConfigError(f"{typed}: there is no option {key} to remove; a knob takes another value")
    del given[name]
