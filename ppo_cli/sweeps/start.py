"""How a sweep or a search starts: Hydra makes the sweeper that is chosen, which plans its jobs and runs them."""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from ppo_cli.config.compose import (
    compose_job,
    compose_jobs,
    composing,
    fixed_folder,
    given_folder,
    parse_overrides,
    with_folder,
)
from ppo_cli.config.quoting import hydra_quoted, shell_quoted
from ppo_cli.config.schema import Config, ConfigError, conf_dir
from ppo_cli.envs.make import resolve_env_id
from ppo_cli.errors import RunError
from ppo_cli.runs.endings import no_advice
from ppo_cli.runs.run_dir import FAILED, is_hydra, new_folder
from ppo_cli.sweeps.ending import failed_table
from ppo_cli.sweeps.job import run_job
from ppo_cli.sweeps.plan import JOBS, REPLACED, load_jobs
from ppo_cli.sweeps.search.settings import check_typed
from ppo_cli.terminal import wrapped

SWEEPER = "hydra/sweeper="
OPTUNA = f"{SWEEPER}optuna"
OURS = "hydra_plugins.ppo_cli"  # what the targets of our sweepers begin with
EXTRAS = {  # of launchers: what each needs, and the extra that brings it
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "ray": ("ray", "ray"),
}


def check_launcher(overrides: Sequence[str]) -> None:
    """Raises ConfigError, which names the extra to install, where a launcher's plugin is missing."""
    for override in overrides:
        key, _, name = override.partition("=")
        if key == "hydra/launcher" and name in EXTRAS:
            module, extra = EXTRAS[name]
            if importlib.util.find_spec(module) is None:  # not imported: Ray reads its settings when it is
                raise ConfigError(f"{override} needs an extra: pip install 'ppo-cli[{extra}]'")


def choose_sweeper(overrides: Sequence[str]) -> list[str]:
    """The overrides, with the sweeper that a ready space, ``search=NAME``, is for."""
    ready = any(override.startswith("search=") for override in overrides)
    if ready and not any(override.startswith(SWEEPER) for override in overrides):
        return [*overrides, OPTUNA]
    return list(overrides)


def start(overrides: Sequence[str], config_dir: str | None, config_name: str, go_on: bool = False) -> None:
    """Starts a sweep or a search.

    Args:
        overrides: As typed, in Hydra's own terms.
        config_dir: A folder of the user's own files, or None.
        config_name: The name of the primary config.
        go_on: Whether to go on with the one that is there already, if one is.

    Raises:
        ConfigError: it can't be run like that, or another one is there.
        Interrupted: a signal ended it.
        RunError: jobs failed.
    """
    check_typed(overrides)
    parsed = parse_overrides(overrides, config_dir)
    if any(is_hydra(str(o.input_line)) and o.is_sweep_override() for o in parsed):
        raise ConfigError("settings of Hydra's can't be swept: give each one value")
    fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    composed = compose_job(fixed, config_dir, config_name)
    if not str(composed.hydra.sweeper.get("_target_", "")).startswith(OURS):
        _start_other(overrides, config_dir, config_name, go_on)
        return
    if go_on:
        overrides = [*_with_stored(fixed_folder("sweep"), overrides), "hydra.sweeper.resume=auto"]
    multirun(with_folder(overrides, config_dir), config_name)


def _with_stored(folder: Path, overrides: Sequence[str]) -> list[str]:
    """The overrides, and the settings of Hydra's that the sweep in a folder has, where one is there."""
    if not (folder / JOBS).is_file():
        return list(overrides)
    settings = [o for o in overrides if is_hydra(o) and o.partition("=")[0] not in REPLACED]
    stored = [o for o in load_jobs(folder, settings).overrides if o not in settings]
    return [*stored, *overrides]


def _start_other(overrides: Sequence[str], config_dir: str | None, config_name: str, go_on: bool) -> None:
    """Starts what another sweeper does, of whose jobs some are chosen on the way."""
    if go_on:
        raise ConfigError(
            "resume=auto: another sweeper than ppo-train's keeps no plan to go on with; leave it out"
        )
    checked_jobs(overrides, config_dir, config_name)
    with sweep_folder() as folder:
        multirun(
            [*with_folder(overrides, config_dir), f"hydra.sweep.dir={hydra_quoted(folder)}"], config_name
        )
        failed = sorted(note.parent.name for note in folder.glob(f"*/{FAILED}"))
        if failed:
            raise RunError(f"{len(failed)} jobs of {folder} failed{failed_table(folder, failed)}")


def resume_sweep(folder: Path, overrides: Sequence[str]) -> None:
    """Runs what is missing of a sweep, goes on with what is partial, and leaves alone what is finished.

    Args:
        folder: The folder of the sweep.
        overrides: Settings of Hydra's to change, such as the launcher.

    Raises:
        ConfigError: the folder holds no sweep, or an override can't be taken.
        Interrupted: a signal ended it.
        RunError: jobs failed.
    """
    for override in overrides:
        if not is_hydra(override):
            raise ConfigError(
                f"{override}: sweep.resume= takes settings of Hydra's only, such as hydra/launcher=joblib; "
                "the jobs keep their configs"
            )
    stored = load_jobs(folder, overrides)
    check_launcher(stored.overrides)
    own = [f"hydra.sweep.dir={hydra_quoted(folder)}", "hydra.sweeper.resume=always"]
    multirun([*stored.overrides, *own], stored.config_name)


def multirun(overrides: Sequence[str], config_name: str) -> None:
    """Has Hydra make the sweeper that the overrides choose, and sweep.

    Raises:
        ConfigError: a setting of Hydra's is none.
    """
    with composing():
        with initialize_config_dir(str(conf_dir()), "train", "1.3"):
            hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        hydra.multirun(config_name, run_job, [*overrides, "hydra.mode=MULTIRUN"])


def checked_jobs(
    overrides: Sequence[str], config_dir: str | None, config_name: str
) -> list[tuple[list[str], Config]]:
    """The jobs that overrides stand for, whose environments were tried; says what is to be known of all.

    Raises:
        ConfigError: one line on the first thing that is wrong.
    """
    own = [override for override in overrides if not override.startswith("hydra.mode=")]
    jobs = compose_jobs(own, config_dir, config_name)
    for _, config in jobs:
        resolve_env_id(config.env.id)  # a misspelt id is said before PyTorch is there
    from ppo_cli.runs.build import check_environment
    from ppo_cli.runs.watchdog import Watchdog

    with Watchdog(max(config.env.timeout for _, config in jobs), no_advice):  # one for all
        checked = [check_environment(config) for _, config in jobs]
    for notice in dict.fromkeys(notice for each in checked for notice in each.notices):
        print(wrapped(notice))
    return jobs


def folder_to_go_on(resume: Literal["never", "auto", "always"], plan: str) -> Path | None:
    """The folder to go on in, by the config that was composed last; None where a new one is to be made.

    Args:
        resume: ``hydra.sweeper.resume``.
        plan: The file that a folder has to go on in.
    """
    if resume == "never":
        return None
    folder = fixed_folder("sweep")
    return folder if resume == "always" or (folder / plan).is_file() else None


@contextmanager
def sweep_folder() -> Iterator[Path]:
    """A folder for a sweep whose jobs are composed: what ``hydra.sweep.dir`` says, or by the time.

    Raises:
        ConfigError: there is something in it.
    """
    given = given_folder("sweep")
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    path = Path("outputs") / "sweeps" / now if given is None else given
    if given is not None and path.is_dir() and any(not file.name.startswith(".") for file in path.iterdir()):
        raise ConfigError(
            f"hydra.sweep.dir={path} is not empty; sweep.resume={shell_quoted(path)} goes on with a sweep"
        )
    with new_folder(path, exclusive=given is None) as folder:
        yield folder
