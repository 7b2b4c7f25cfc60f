"""Optuna's side of a search: the study, its sampler, and its pruner."""

import inspect
import os
import sqlite3
import stat
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL

from ppo_cli.errors import ConfigError
from ppo_cli.files import printable
from ppo_cli.seeding import derived_seed
from ppo_cli.sweeps.schema import PREFIX, SearchSettings
from ppo_cli.text import flat

NAME = "search"
BUSY = 120  # seconds to wait for another process that writes
LARGEST = 2**30  # bytes of a study; a trial takes some hundreds
SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # a journal that ends so names a file, which SQLite deletes
SAMPLERS: dict[str, type[BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "gp": optuna.samplers.GPSampler,
}
PRUNERS: dict[str, type[BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "none": optuna.pruners.NopPruner,
}


def make_sampler(settings: SearchSettings, number: int) -> BaseSampler:
    """The sampler of one trial, seeded by its number.

    What a trial gets then follows from the search's seed, its number and the trials that are over: a search
    that was stopped and goes on draws what one that was never stopped draws.

    Raises:
        ConfigError: Optuna's class doesn't take an argument.
    """
    seed = derived_seed(settings.seed, number, bits=32)
    arguments: dict[str, Any] = {"seed": seed}
    if settings.sampler == "tpe":
        arguments["constant_liar"] = True  # processes that share a search keep out of each other's way
    sampler: BaseSampler = _call(
        SAMPLERS[settings.sampler], arguments, "sampler_kwargs", settings.sampler_kwargs
    )
    return sampler


def make_pruner(settings: SearchSettings) -> BasePruner:
    """The pruner.

    Raises:
        ConfigError: Optuna's class doesn't take an argument.
    """
    arguments = {"percentile": 25.0} if settings.pruner == "percentile" else {}
    if warm_up(settings):
        arguments["n_warmup_steps"] = warm_up(settings)
    pruner: BasePruner = _call(PRUNERS[settings.pruner], arguments, "pruner_kwargs", settings.pruner_kwargs)
    return pruner


def warm_up(settings: SearchSettings) -> int:
    """Points of comparison at the start of each run at which it is never pruned: they say little."""
    if settings.pruner not in ("median", "percentile"):
        return 0
    given = settings.pruner_kwargs.get("n_warmup_steps", -(-settings.evaluations // 4))
    return given if isinstance(given, int) else 0


def _call(make: Callable[..., Any], own: Mapping[str, Any], name: str, given: Mapping[str, Any]) -> Any:  # noqa: ANN401
    known = {key: item.default for key, item in inspect.signature(make).parameters.items() if key != "seed"}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"{PREFIX}{name}.{key}: expected one of {', '.join(known) or 'none'}")
        kind = type(known[key])  # Optuna looks at it when it is too late
        if kind in (bool, int) and type(value) is not kind:
            raise ConfigError(
                f"{PREFIX}{name}.{key}={value}: expected {'true or false' if kind is bool else 'an integer'}"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return make(**{**own, **given})
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{PREFIX}{name}={dict(given)}: {flat(error)}") from error


def check_study(path: Path) -> None:
    """Raises ConfigError where a study's file, which may come from anybody, is damaged or no mere table.

    What Optuna keeps in it are numbers and JSON. SQLite itself would follow a link, run triggers and views,
    and delete a file that its journal names.
    """
    try:
        for name in (path, *(path.with_name(f"{path.name}-{end}") for end in ("journal", "wal", "shm"))):
            if os.path.lexists(name) and not stat.S_ISREG(name.lstat().st_mode):
                raise ValueError(f"{name.name} is no plain file")
        if not path.exists():
            return
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is longer than {LARGEST:,} bytes")
        journal = path.with_name(f"{path.name}-journal")
        if journal.exists() and _end(journal, len(SUPER_JOURNAL)) == SUPER_JOURNAL:
            raise ValueError(f"{journal.name} is of several files")
        with closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", timeout=BUSY, uri=True)
        ) as database:
            database.execute("PRAGMA trusted_schema=OFF")
            for kind, name, text in database.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
                if kind not in ("table", "index") or str(text).upper().startswith("CREATE VIRTUAL"):
                    raise ValueError(f"it has the {kind} {name}")
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise ValueError(found)
    except (OSError, ValueError, sqlite3.Error) as error:
        text = printable(flat(error))
        raise ConfigError(f"{path} is damaged, or no study of a search: {text:.500}") from error


def _end(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read()


def open_study(path: Path, settings: SearchSettings) -> optuna.Study:
    """The study of a search, made where there is none.

    Raises:
        ConfigError: what lies there is none.
    """
    check_study(path)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a search says its own lines
    url = URL.create("sqlite", database=str(path.resolve())).render_as_string()
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": BUSY}})
    return optuna.create_study(
        study_name=NAME,
        storage=storage,
        pruner=make_pruner(settings),
        direction="maximize",
        load_if_exists=True,
    )


def report(trial: optuna.Trial, settings: SearchSettings, step: int, value: float, after: int) -> bool:
    """Reports a value, once, and asks the pruner whether to end the trial, by what came after a step.

    Pruners of Optuna's hold the *best* value so far against others' values of now. A trial's seeds run one
    after the other, so that its curve begins anew with each; the best of an earlier one would shield it.
    """
    before = _frozen(trial)
    if step not in before.intermediate_values:  # or else the run was stopped since, and repeats its steps
        trial.report(value, step)
    if step - after < warm_up(settings):
        return False
    now = _frozen(trial)
    now.intermediate_values = {at: seen for at, seen in now.intermediate_values.items() if at > after}
    return trial.study.pruner.prune(trial.study, now)


def _frozen(trial: optuna.Trial) -> FrozenTrial:
    return next(found for found in trial.study.get_trials() if found.number == trial.number)
